//! Images: names, the content store, unpacked layers, archives, registries.

mod archive;
mod directory;
mod error;
mod layer;
mod manifest;
mod reference;
mod registry;
mod rootfs;
mod store;
#[cfg(test)]
mod tests;

pub use archive::import;
pub use directory::{Imported, import_changed};
pub use error::{Error, Result};
pub use manifest::{ContainerConfig, ImageConfig};
pub use reference::Reference;
pub use registry::{Credentials, HttpClient, Registry, TlsFiles};
pub use rootfs::{Source, import_rootfs, program_files};
pub use store::{Image, ImageRef, Store};
