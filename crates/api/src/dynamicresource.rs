//! The group `resource.k8s.io`, dynamic resource allocation (follows `pkg/registry/resource` and `pkg/apis/resource`).

pub mod adminaccess;
pub mod deviceclass;
pub mod resourceclaim;
pub mod resourceslice;
pub mod selector;
mod validation;
