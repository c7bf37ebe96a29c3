//! The group `networking.k8s.io` (follows `pkg/registry/networking` and `pkg/apis/networking`).

pub mod ingress;
pub mod ingressclass;
pub mod ipaddress;
pub mod networkpolicy;
pub mod servicecidr;
