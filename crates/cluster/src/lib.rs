//! The birth and life of a cluster on a machine: where its files are, its addresses, its certificates, the
//! kubeconfigs that lead to it, what the machine must offer, and how nothing of it is left.
//!
//! Nothing here speaks the API or knows a kind; `cox` puts these parts together with the components.

pub mod address;
pub mod files;
pub mod kubeconfig;
pub mod kubelet_root;
pub mod layout;
pub mod lock;
pub mod pki;
pub mod preflight;
pub mod settings;
mod slots;

pub use layout::Layout;
pub use settings::Settings;

/// The cluster that `cox up` means when no name is given.
pub const DEFAULT_NAME: &str = "coxswain";
/// The longest cluster name: link and cgroup names are made of it.
pub const NAME_MAX: usize = 32;
