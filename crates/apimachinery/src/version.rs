//! Which Kubernetes this is: the release whose API and behaviour all components have.

pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// The release as clients compare it.
pub const KUBERNETES: &str = "v1.36.2";

/// The release with the project's own version as build metadata, as servers and nodes report it.
pub const GIT_VERSION: &str = concat!("v1.36.2+coxswain.", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_name_the_same_release() {
        assert!(KUBERNETES.starts_with(&format!("v{MAJOR}.{MINOR}.")));
        assert!(GIT_VERSION.starts_with(&format!("{KUBERNETES}+")));
    }
}
