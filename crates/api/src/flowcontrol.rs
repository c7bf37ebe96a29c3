//! The group `flowcontrol.apiserver.k8s.io` (follows `pkg/registry/flowcontrol` and `pkg/apis/flowcontrol`).

pub mod flowschema;
pub mod prioritylevel;
