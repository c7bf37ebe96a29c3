//! The server's side of TLS: which certificate it shows, whose client certificates it takes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// What new connections use; replacing it rotates certificates and authorities without a restart.
pub type SharedTls = Arc<ArcSwap<Serving>>;

/// A server's TLS, and the authorities of its clients. A client whose certificate comes from elsewhere is let in as far
/// as its request, which is then refused: only so can it be told why.
pub struct Serving {
    pub config: Arc<rustls::ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// A client certificate, after the handshake.
#[derive(Clone, Debug)]
pub enum ClientCertificate {
    /// In DER.
    Verified(Arc<[u8]>),
    Unverified,
}

impl ClientCertificate {
    pub fn presented(&self) -> auth::Certificate<'_> {
        match self {
            ClientCertificate::Verified(der) => auth::Certificate::Verified(der),
            ClientCertificate::Unverified => auth::Certificate::Unverified,
        }
    }
}

impl Serving {
    /// From PEM, like [`server_config`].
    pub fn new(certificate: &[u8], key: &[u8], client_ca: &[u8]) -> Result<Serving, TlsError> {
        let clients = client_verifier(client_ca)?;
        let lenient = clients.clone().map(|inner| Arc::new(Lenient(inner)) as Arc<dyn ClientCertVerifier>);
        Ok(Serving { config: Arc::new(config(certificate, key, lenient)?), clients })
    }

    /// What a chain of certificates that the handshake has seen is worth.
    pub fn client_certificate(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (own, intermediates) = chain.split_first()?;
        let verifier = self.clients.as_ref()?;
        match verifier.verify_client_cert(own, intermediates, UnixTime::now()) {
            Ok(_) => Some(ClientCertificate::Verified(Arc::from(&**own))),
            Err(error) => {
                tracing::debug!(%error, "client certificate not verified");
                Some(ClientCertificate::Unverified)
            }
        }
    }
}

/// Checks that the client holds the key of its certificate, not where the certificate comes from.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {what} as PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("use the certificates")]
    Rustls(#[from] rustls::Error),
    #[error("use the client certificate authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The usual configuration, from PEM. Clients may show a certificate of `client_ca`, and need not; others are refused
/// by the handshake.
pub fn server_config(
    certificate: &[u8],
    key: &[u8],
    client_ca: &[u8],
) -> Result<rustls::ServerConfig, TlsError> {
    config(certificate, key, client_verifier(client_ca)?)
}

/// Who takes certificates of these authorities; `None` when there are no authorities.
fn client_verifier(client_ca: &[u8]) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(client_ca, "the client certificate authority")? {
        roots.add(authority)?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(Some(verifier.allow_unauthenticated().build()?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn config(
    certificate: &[u8],
    key: &[u8],
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<rustls::ServerConfig, TlsError> {
    let chain = certificates(certificate, "the serving certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|source| TlsError::Pem { what: "the serving key", source })?;
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes a configuration replaceable.
pub fn shared(serving: Serving) -> SharedTls {
    Arc::new(ArcSwap::from_pointee(serving))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}
