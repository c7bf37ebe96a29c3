//! The server's side of TLS: which certificate it shows, whose client certificates it takes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What new connections use; replacing it rotates certificates and authorities without a restart.
pub type SharedTls = Arc<ArcSwap<rustls::ServerConfig>>;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {what} as PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("use the certificates")]
    Rustls(#[from] rustls::Error),
    #[error("use the client certificate authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The usual configuration, from PEM. Clients may show a certificate of `client_ca`, and need not.
pub fn server_config(
    certificate: &[u8],
    key: &[u8],
    client_ca: &[u8],
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(certificate, "the serving certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|source| TlsError::Pem { what: "the serving key", source })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(client_ca, "the client certificate authority")? {
        roots.add(authority)?;
    }
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes a configuration replaceable.
pub fn shared(config: rustls::ServerConfig) -> SharedTls {
    Arc::new(ArcSwap::from_pointee(config))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}
