//! The group `admissionregistration.k8s.io` (follows `pkg/registry/admissionregistration` and
//! `pkg/apis/admissionregistration`).

pub mod binding;
pub mod policy;
pub mod webhook;
