//! What all Kubernetes kinds share: names and versions, object metadata, selectors, quantities, errors the API's
//! user sees, and the schema engine that decodes, defaults, merges and describes objects from tables.
//!
//! Nothing here knows any particular kind, performs I/O or reads a clock.

pub mod codec;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod intstr;
pub mod labels;
pub mod managedfields;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod percent;
pub mod plain;
pub mod quantity;
pub mod quote;
pub mod schema;
pub mod status;
pub mod time;
pub mod value;
pub mod version;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use status::Status;
pub use value::{Map, Text, Value, from_value, to_value};
