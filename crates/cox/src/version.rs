//! Which Kubernetes this is, and which Coxswain.

/// The version of Kubernetes whose API and behaviour this binary has.
pub const KUBERNETES: &str = "v1.36.2";

/// As nodes and the API server report it.
pub const FULL: &str = concat!("v1.36.2+coxswain", env!("CARGO_PKG_VERSION"));
