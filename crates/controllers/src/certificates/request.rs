//! What a request for a certificate says, and what kubelets' requests must say (upstream:
//! `pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("x509: malformed certificate request")]
    Malformed,
    #[error("x509: the certificate request's signature does not fit its public key")]
    Signature,
}

/// A request whose author holds the key that it names.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Names,
    /// In DER, as they go into the certificate.
    pub subject: Vec<u8>,
    pub public_key: Vec<u8>,
}

/// The subject's alternative names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
}

impl Names {
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.addresses.is_empty() && self.emails.is_empty() && self.uris.is_empty()
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Reads `spec.request`, base64 of PEM.
pub fn parse(encoded: &str) -> Result<Request, Error> {
    let pem = STANDARD.decode(encoded).map_err(|_| Error::Pem)?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|_| Error::Pem)?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| Error::Malformed)?;
    parsed.verify_signature().map_err(|_| Error::Signature)?;
    let info = &parsed.certification_request_info;
    let text = |name: &AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
    let mut names = Names::default();
    for extension in parsed.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension {
            found.general_names.iter().for_each(|name| names.add(name));
        }
    }
    Ok(Request {
        common_name: info.subject.iter_common_name().last().and_then(text).unwrap_or_default(),
        organizations: info.subject.iter_organization().filter_map(text).collect(),
        names,
        subject: info.subject.as_raw().to_vec(),
        public_key: info.subject_pki.raw.to_vec(),
    })
}

const NODE_USER_PREFIX: &str = "system:node:";
const CLIENT_USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
const SERVING_USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// Whether the usages are these; only keys of RSA encipher others.
fn check_usages(usages: &[String], expected: [&str; 3]) -> Result<(), String> {
    let found: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(expected);
    let without_rsa = expected.into_iter().filter(|usage| *usage != "key encipherment").collect();
    if found == all || found == without_rsa {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", expected.join(" ")))
}

fn check_organization(request: &Request) -> Result<(), String> {
    if request.organizations == ["system:nodes"] {
        return Ok(());
    }
    Err("subject organization is not system:nodes".to_owned())
}

fn check_common_name(request: &Request) -> Result<(), String> {
    if request.common_name.starts_with(NODE_USER_PREFIX) {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".to_owned())
}

fn refuse_if(found: bool, what: &str) -> Result<(), String> {
    if found { Err(format!("{what} subjectAltNames are not allowed")) } else { Ok(()) }
}

/// Of the certificate a kubelet shows to the API server.
pub fn check_kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    check_organization(request)?;
    let names = &request.names;
    refuse_if(!names.dns.is_empty(), "DNS")?;
    refuse_if(!names.emails.is_empty(), "Email")?;
    refuse_if(!names.addresses.is_empty(), "IP")?;
    refuse_if(!names.uris.is_empty(), "URI")?;
    check_common_name(request)?;
    check_usages(usages, CLIENT_USAGES)
}

/// Of the certificate a kubelet serves with.
pub fn check_kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    check_organization(request)?;
    let names = &request.names;
    if names.dns.is_empty() && names.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    refuse_if(!names.emails.is_empty(), "Email")?;
    refuse_if(!names.uris.is_empty(), "URI")?;
    check_usages(usages, SERVING_USAGES)?;
    check_common_name(request)
}

/// Of the certificate any other client shows to the API server.
pub fn check_client(usages: &[String]) -> Result<(), String> {
    if let Some(other) = usages.iter().find(|usage| !CLIENT_USAGES.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".to_owned())
}

/// The node whose kubelet asks for itself.
pub fn own_node<'a>(request: &'a Request, username: &str) -> Option<&'a str> {
    request.common_name.strip_prefix(NODE_USER_PREFIX).filter(|_| request.common_name == username)
}
