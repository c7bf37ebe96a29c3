//! Clears requests away that nobody will look at again (follows `pkg/controller/certificates/cleaner`), at the moment
//! their time is over.

use api::resource::CERTIFICATE_SIGNING_REQUESTS;
use api::view::certificates::CertificateSigningRequest;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Informer, Informers};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{APPROVED, DENIED, FAILED};
use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

/// How long requests are kept that have been dealt with.
const SETTLED_EXPIRATION: SignedDuration = SignedDuration::from_hours(1);
/// How long requests are kept that wait for something.
const PENDING_EXPIRATION: SignedDuration = SignedDuration::from_hours(24);

struct Cleaner {
    requests: Informer<CertificateSigningRequest>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Cleaner { requests: informers.get() })
}

#[async_trait]
impl Controller for Cleaner {
    fn watch(&self, watches: &mut Watches) {
        watches.on(CERTIFICATE_SIGNING_REQUESTS, &self.requests, itself);
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let csr = self.requests.get("", &key.name);
        Ok(csr.map(|csr| reconcile(&csr, now)).unwrap_or_default())
    }
}

pub fn reconcile(csr: &CertificateSigningRequest, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match expires_at(csr) {
        Some(at) if at > now => plan.requeue(at),
        Some(_) => plan.act(Action::delete(CERTIFICATE_SIGNING_REQUESTS, &csr.metadata)),
        None => {}
    }
    plan
}

fn expires_at(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let status = &csr.status;
    if status.conditions.is_empty() {
        return after(csr.metadata.creation_timestamp, PENDING_EXPIRATION);
    }
    let is_issued = !status.certificate.is_empty();
    let of_conditions = status.conditions.iter().filter_map(|condition| match condition.kind.as_str() {
        DENIED | FAILED => after(condition.last_update_time, SETTLED_EXPIRATION),
        APPROVED if is_issued => after(condition.last_update_time, SETTLED_EXPIRATION),
        APPROVED => after(condition.last_update_time, PENDING_EXPIRATION),
        _ => None,
    });
    let of_certificate = status.condition(APPROVED).and_then(|_| not_after(&status.certificate));
    of_conditions.chain(of_certificate).min()
}

fn after(time: Option<Timestamp>, span: SignedDuration) -> Option<Timestamp> {
    time.map(|time| time.saturating_add(span).unwrap_or(Timestamp::MAX))
}

/// The end of an issued certificate.
fn not_after(encoded: &str) -> Option<Timestamp> {
    let pem = STANDARD.decode(encoded).ok()?;
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
