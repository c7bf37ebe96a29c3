//! Certificate signing requests: approved when they are a kubelet's own, signed once approved, cleared away when done
//! with (follows upstream's `pkg/controller/certificates`).

mod approver;
mod authority;
mod cleaner;
mod key;
mod request;
mod signer;
#[cfg(test)]
mod tests;

pub use approver::new as approving;
pub use cleaner::new as cleaning;
pub use signer::new as signing;

use api::view::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition};
use jiff::Timestamp;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBE_APISERVER_CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

fn condition(
    kind: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        kind: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message,
        last_update_time: Some(now),
        last_transition_time: None,
    }
}

fn is_true(csr: &CertificateSigningRequest, kind: &str) -> bool {
    csr.status.conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
}

/// Approved and not denied (upstream: `IsCertificateRequestApproved`).
fn is_approved(csr: &CertificateSigningRequest) -> bool {
    is_true(csr, APPROVED) && csr.status.condition(DENIED).is_none()
}

/// Whether somebody has said yes or no.
fn is_decided(csr: &CertificateSigningRequest) -> bool {
    csr.status.condition(APPROVED).is_some() || csr.status.condition(DENIED).is_some()
}
