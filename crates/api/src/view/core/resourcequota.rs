//! Limits of a namespace.

use apimachinery::Value;
use apimachinery::meta::ObjectMeta;
use serde::{Deserialize, Serialize};

/// A ResourceQuota. Spec and status stay whole, as [`crate::quota`] reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceQuota {
    pub metadata: ObjectMeta,
    pub spec: Value,
    pub status: Value,
}
