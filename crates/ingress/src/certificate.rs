//! Certificates out of Secrets, and which one a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::core::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::table::one_label_less;

/// Keys of a Secret of type `kubernetes.io/tls`.
const TLS_CERT_KEY: &str = "tls.crt";
const TLS_PRIVATE_KEY_KEY: &str = "tls.key";

/// Who the certificate says it is that clients get where no Ingress names one.
const FALLBACK_NAME: &str = "ingress.local";

/// Why a Secret holds no certificate that could be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no {0}")]
    Missing(&'static str),
    #[error("decode {0}")]
    Base64(&'static str, #[source] base64::DecodeError),
    #[error("read {0} as PEM")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    #[error("{TLS_CERT_KEY} holds no certificate")]
    Empty,
    #[error("use certificate and key")]
    Key(#[source] rustls::Error),
    #[error("make a certificate")]
    Make(#[source] rcgen::Error),
}

/// Certificates by the host that a client asks for.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*`, dot included.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    any: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds a certificate for a host, or for all if that is empty; the first stays.
    pub fn add(&mut self, host: &str, key: &Arc<CertifiedKey>) {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix('*') {
            _ if host.is_empty() => {
                self.any.get_or_insert_with(|| key.clone());
            }
            Some(suffix) => {
                self.wildcard.entry(suffix.to_owned()).or_insert_with(|| key.clone());
            }
            None => {
                self.exact.entry(host).or_insert_with(|| key.clone());
            }
        }
    }

    /// What a client is shown that asks for `host`, or for none.
    pub fn find(&self, host: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let named = host.map(str::to_ascii_lowercase).and_then(|host| {
            let wildcard = || one_label_less(&host).and_then(|suffix| self.wildcard.get(suffix));
            self.exact.get(&host).or_else(wildcard)
        });
        named.or(self.any.as_ref())
    }
}

/// The certificate that a Secret holds.
pub fn certified_key(secret: &Secret) -> Result<CertifiedKey, CertificateError> {
    let decoded = |key: &'static str| {
        let text = secret.data.get(key).ok_or(CertificateError::Missing(key))?;
        STANDARD.decode(text).map_err(|source| CertificateError::Base64(key, source))
    };
    let (certificate, key) = (decoded(TLS_CERT_KEY)?, decoded(TLS_PRIVATE_KEY_KEY)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|source| CertificateError::Pem(TLS_CERT_KEY, source))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|source| CertificateError::Pem(TLS_PRIVATE_KEY_KEY, source))?;
    certified(chain, key)
}

/// A new self-signed certificate, as ingress controllers show clients that ask for a host nobody has.
pub fn fallback() -> Result<CertifiedKey, CertificateError> {
    let made = rcgen::generate_simple_self_signed([FALLBACK_NAME.to_owned()]);
    let made = made.map_err(CertificateError::Make)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    certified(vec![made.cert.der().clone()], key)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertificateError> {
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    CertifiedKey::from_der(chain, key, &tls::provider()).map_err(CertificateError::Key)
}
