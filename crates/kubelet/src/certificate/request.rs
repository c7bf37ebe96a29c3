//! Asks the cluster for a certificate and waits for it (follows client-go's `csr.RequestCertificate`,
//! `WaitForCertificate`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use api::resource::CERTIFICATE_SIGNING_REQUESTS;
use api::view::certificates::CertificateSigningRequest;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{CancellationToken, Client, Delta, Informers};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Identity;
use crate::config::Config;

/// How long somebody may take to approve and sign (upstream: `certificateWaitTimeout`).
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a request for it cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("it cannot be asked for: {0}")]
    Ask(#[from] client::Error),
    #[error("certificate signing request {name} is {verdict}, reason: {reason:?}, message: {message:?}")]
    Refused { name: String, verdict: &'static str, reason: String, message: String },
    #[error("certificate signing request {0} is gone")]
    Gone(String),
    #[error("certificate signing request {0} was not signed in time; does somebody approve such requests?")]
    Waited(String),
    #[error("certificate signing request {0} was answered by what is no certificate")]
    NoCertificate(String),
}

impl Error {
    /// The HTTP code by which the API server refused to be asked.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Ask(error) => error.status().map(|status| status.code),
            _ => None,
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Client,
    Serving,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Client => "client",
            Purpose::Serving => "serving",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// Keys of elliptic curves encipher no others.
    fn usages(self) -> [&'static str; 2] {
        match self {
            Purpose::Client => ["digital signature", "client auth"],
            Purpose::Serving => ["digital signature", "server auth"],
        }
    }
}

/// What the certificate is to say.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub purpose: Purpose,
    node_name: String,
    /// By which the node is reached; none for clients.
    address: Option<IpAddr>,
}

impl Wanted {
    pub fn of(purpose: Purpose, config: &Config) -> Self {
        let address = (purpose == Purpose::Serving).then_some(config.node_ip);
        Wanted { purpose, node_name: config.node_name.clone(), address }
    }

    pub fn client(node_name: &str) -> Self {
        Wanted { purpose: Purpose::Client, node_name: node_name.to_owned(), address: None }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", self.node_name));
        if let Some(address) = self.address {
            params.subject_alt_names.push(SanType::DnsName(self.node_name.as_str().try_into()?));
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        Ok(params)
    }

    /// Whether a certificate names the node by all its names.
    pub fn is_named_by(&self, identity: &Identity) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(identity.certificate.as_bytes()) else { return false };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
        let common_name = format!("system:node:{}", self.node_name);
        let is_own = certificate.subject().iter_common_name().any(|name| name.as_str() == Ok(&common_name));
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let known: BTreeSet<Vec<u8>> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.as_bytes().to_vec()),
                GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
                _ => None,
            })
            .collect();
        let reached_by = |address: IpAddr| match address {
            IpAddr::V4(v4) => known.contains(&v4.octets()[..]),
            IpAddr::V6(v6) => known.contains(&v6.octets()[..]),
        };
        is_own
            && self
                .address
                .is_none_or(|address| reached_by(address) && known.contains(self.node_name.as_bytes()))
    }
}

/// A new key, with the certificate that the cluster has signed for it.
pub async fn issue(client: &Client, wanted: &Wanted) -> Result<Identity, Error> {
    let key = KeyPair::generate()?;
    let request = wanted.params()?.serialize_request(&key)?.pem()?;
    let asked = client.create(CERTIFICATE_SIGNING_REQUESTS, "", &object(wanted.purpose, &request)).await?;
    let name = asked["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let signed = tokio::time::timeout(WAIT_MAX, signed(client, &name)).await;
    let certificate = signed.map_err(|_| Error::Waited(name))??;
    Ok(Identity { certificate, key: key.serialize_pem() })
}

fn object(purpose: Purpose, request: &str) -> Value {
    json!({
        "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version(), "kind": CERTIFICATE_SIGNING_REQUESTS.kind,
        "metadata": {"generateName": "csr-"},
        "spec": {"request": STANDARD.encode(request), "signerName": purpose.signer(), "usages": purpose.usages()},
    })
}

async fn signed(client: &Client, name: &str) -> Result<String, Error> {
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let informers = Informers::new(client.clone(), stop);
    let selector = format!("metadata.name={name}");
    let requests =
        informers.get_selected::<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS, &selector);
    let mut changes = requests.subscribe();
    while let Some(delta) = changes.recv().await {
        if let Delta::Deleted(_) = delta {
            break;
        }
        if let Some(verdict) = verdict(delta.object()) {
            return verdict;
        }
    }
    Err(Error::Gone(name.to_owned()))
}

/// None while nobody has decided or signed.
fn verdict(csr: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let name = csr.metadata.name.clone();
    for (kind, verdict) in [("Denied", "denied"), ("Failed", "failed")] {
        if let Some(condition) = csr.status.condition(kind) {
            let (reason, message) = (condition.reason.clone(), condition.message.clone());
            return Some(Err(Error::Refused { name, verdict, reason, message }));
        }
    }
    if csr.status.certificate.is_empty() {
        return None;
    }
    let pem = STANDARD.decode(&csr.status.certificate).ok().and_then(|pem| String::from_utf8(pem).ok());
    Some(pem.ok_or(Error::NoCertificate(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(purpose: Purpose) -> Wanted {
        let address = (purpose == Purpose::Serving).then_some(IpAddr::from([192, 0, 2, 1]));
        Wanted { purpose, node_name: "n1".to_owned(), address }
    }

    fn self_signed(wanted: &Wanted) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = wanted.params().expect("names").self_signed(&key).expect("signs");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    #[test]
    fn a_certificate_must_name_the_node_by_name_and_address() {
        let (serving, client) = (wanted(Purpose::Serving), wanted(Purpose::Client));
        assert!(serving.is_named_by(&self_signed(&serving)));
        assert!(!serving.is_named_by(&self_signed(&client)));
        assert!(client.is_named_by(&self_signed(&client)));
        let moved = Wanted { address: Some(IpAddr::from([192, 0, 2, 2])), ..serving.clone() };
        assert!(!moved.is_named_by(&self_signed(&serving)));
        let other = Wanted { node_name: "n2".to_owned(), ..client.clone() };
        assert!(!other.is_named_by(&self_signed(&client)));
    }

    #[test]
    fn a_request_is_waited_for_until_it_is_signed_or_refused() {
        let check = |status: Value, expect: Option<Result<&str, &str>>| {
            let csr = json!({"metadata": {"name": "c"}, "status": status});
            let found = verdict(&apimachinery::from_value(csr).expect("a request"));
            let found = found.map(|found| found.map_err(|error| error.to_string()));
            let expect = expect.map(|expect| expect.map(str::to_owned).map_err(str::to_owned));
            assert_eq!(found, expect);
        };
        check(json!({}), None);
        let approved = json!({"type": "Approved", "status": "True"});
        check(json!({"conditions": [approved]}), None);
        check(json!({"conditions": [approved], "certificate": STANDARD.encode("PEM")}), Some(Ok("PEM")));
        let denied = json!({"type": "Denied", "status": "True", "reason": "No", "message": "never"});
        let why = r#"certificate signing request c is denied, reason: "No", message: "never""#;
        check(json!({"conditions": [denied]}), Some(Err(why)));
    }
}
