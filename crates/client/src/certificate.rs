//! A certificate that is replaced while it is in use: connections made from then on show the new one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("read the {what} as PEM")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("the certificate file holds no certificate")]
    Empty,
    #[error("use the certificate with its key")]
    Rustls(#[from] rustls::Error),
}

/// A certificate and its key, for either end of a connection.
#[derive(Debug)]
pub struct Replaceable(ArcSwapOption<CertifiedKey>);

impl Replaceable {
    /// From PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Arc<Replaceable>, CertificateError> {
        Ok(Arc::new(Replaceable(ArcSwapOption::from_pointee(certified_key(certificate, key)?))))
    }

    /// One that is still to come: nobody can connect before.
    pub fn empty() -> Arc<Replaceable> {
        Arc::new(Replaceable(ArcSwapOption::empty()))
    }

    /// Shows this one from now on.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        self.0.store(Some(Arc::new(certified_key(certificate, key)?)));
        Ok(())
    }
}

fn certified_key(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let unreadable = |what| move |source| CertificateError::Pem { what, source };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(unreadable("certificate"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(unreadable("key"))?;
    Ok(CertifiedKey::from_der(chain, key, &tls::provider())?)
}

impl ResolvesServerCert for Replaceable {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for Replaceable {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.0.load_full()?;
        current.key.choose_scheme(schemes).is_some().then_some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
