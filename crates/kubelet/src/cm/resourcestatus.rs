//! How the devices of a container are, as its pod's status tells (upstream: `v1.ResourceStatus`).

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceStatus {
    /// A resource by which devices are asked for, or `claim:NAME` or `claim:NAME/REQUEST`.
    pub name: String,
    pub resources: Vec<ResourceHealth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceHealth {
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    pub health: Health,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Health {
    Healthy,
    Unhealthy,
    #[default]
    Unknown,
}
