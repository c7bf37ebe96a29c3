//! The group `certificates.k8s.io`: CertificateSigningRequest (follows `pkg/registry/certificates`).

use apimachinery::Value;

use crate::strategy::{Strategy, drop_field, keep};

pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }
}
