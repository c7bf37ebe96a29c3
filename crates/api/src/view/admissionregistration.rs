//! `admissionregistration.k8s.io/v1`.

use apimachinery::Value;
use apimachinery::meta::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Whole in spec and status: its expressions are checked as they are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValidatingAdmissionPolicy {
    pub metadata: ObjectMeta,
    pub spec: Value,
    pub status: Value,
}

super::view! {
    ValidatingAdmissionPolicy => VALIDATING_ADMISSION_POLICIES;
}
