//! The group `admissionregistration.k8s.io` (follows `pkg/registry/admissionregistration` and
//! `pkg/apis/admissionregistration`).

pub mod binding;
pub mod client;
pub mod expression;
mod matching;
pub mod policy;
pub mod typechecking;
pub mod webhook;

/// When admission looks at an object: to change it, or to judge what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Mutating,
    Validating,
}

/// Names that end so are kept for configuration in files, from a later release on.
const STATIC_SUFFIX: &str = ".static.k8s.io";

/// The warning about such a name (follows `WarningsForStaticSuffix`).
fn static_suffix_warning(obj: &apimachinery::Value) -> Option<String> {
    apimachinery::meta::str_at(obj, &["metadata", "name"]).ends_with(STATIC_SUFFIX).then(|| {
        format!(
            "metadata.name: names ending with \"{STATIC_SUFFIX}\" are reserved for static manifest-based configurations and cannot be managed via the API"
        )
    })
}
