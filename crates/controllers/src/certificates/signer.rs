//! Signs approved requests for the signers that the API server's own clients and the kubelets use (follows
//! `pkg/controller/certificates/signer`).

use std::sync::Arc;

use api::resource::CERTIFICATE_SIGNING_REQUESTS;
use api::view::certificates::CertificateSigningRequest;
use apimachinery::json;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Informer, Informers};
use jiff::{SignedDuration, Timestamp};

use super::authority::{self, Authority};
use super::request::{self, Request};
use super::{
    FAILED, KUBE_APISERVER_CLIENT, KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING, LEGACY_UNKNOWN, condition,
    is_approved, is_true,
};
use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

struct Signer {
    /// None where nobody has given the authority's key: requests then wait for another signer.
    authority: Option<Arc<Authority>>,
    requests: Informer<CertificateSigningRequest>,
}

pub fn new(config: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let authority = config.signing.as_ref().and_then(|signing| {
        let made = Authority::new(&signing.certificate, &signing.key, signing.duration);
        made.inspect_err(|error| tracing::error!(%error, "requests for certificates are not signed")).ok()
    });
    Box::new(Signer { authority: authority.map(Arc::new), requests: informers.get() })
}

#[async_trait]
impl Controller for Signer {
    fn watch(&self, watches: &mut Watches) {
        watches.on(CERTIFICATE_SIGNING_REQUESTS, &self.requests, itself);
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let (Some(authority), Some(csr)) = (&self.authority, self.requests.get("", &key.name)) else {
            return Ok(Plan::default());
        };
        Ok(reconcile(&csr, authority, now))
    }
}

pub fn reconcile(csr: &CertificateSigningRequest, authority: &Authority, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !is_approved(csr) || is_true(csr, FAILED) || !csr.status.certificate.is_empty() {
        return plan;
    }
    let request = match request::parse(&csr.spec.request) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(csr = csr.metadata.name, %error, "unable to parse csr");
            return plan;
        }
    };
    let Some(verdict) = check(csr, &request) else { return plan };
    let mut status = csr.status.clone();
    match verdict {
        Ok(()) => match sign(csr, &request, authority, now) {
            Ok(certificate) => status.certificate = STANDARD.encode(certificate),
            Err(error) => {
                tracing::error!(csr = csr.metadata.name, %error, "error auto signing csr");
                return plan;
            }
        },
        Err(why) => status.conditions.push(condition(FAILED, "SignerValidationFailure", why, now)),
    }
    plan.act(Action::update_status(CERTIFICATE_SIGNING_REQUESTS, &csr.metadata, json!(status)));
    plan
}

/// Whether the signer named signs such requests; none if it is not one of ours.
fn check(csr: &CertificateSigningRequest, request: &Request) -> Option<Result<(), String>> {
    let usages = &csr.spec.usages;
    match csr.spec.signer_name.as_str() {
        KUBE_APISERVER_CLIENT => Some(request::check_client(usages)),
        KUBE_APISERVER_CLIENT_KUBELET => Some(request::check_kubelet_client(request, usages)),
        KUBELET_SERVING => Some(request::check_kubelet_serving(request, usages)),
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

fn sign(
    csr: &CertificateSigningRequest,
    request: &Request,
    authority: &Authority,
    now: Timestamp,
) -> Result<String, authority::Error> {
    authority.sign(request, &csr.spec.usages, csr.spec.expiration_seconds.map(SignedDuration::from_secs), now)
}
