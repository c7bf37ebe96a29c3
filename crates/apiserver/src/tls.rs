//! The server's side of TLS: which certificate it shows, whose client certificates it takes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use auth::certificate::Subject;
use client::certificate::{CertificateError, Replaceable};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::Ticketer;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// How often a session of a client can be resumed (Go's `crypto/tls` sends as many).
const TICKETS: usize = 1;

/// What new connections use; replacing it rotates certificates and authorities without a restart.
pub type SharedTls = Arc<ArcSwap<Serving>>;

/// Whose certificates are taken from clients; PEM, nobody's when empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Authorities<'a> {
    /// Of users (upstream: `--client-ca-file`).
    pub clients: &'a [u8],
    /// Of those who may speak for users (upstream: `--requestheader-client-ca-file`).
    pub front_proxies: &'a [u8],
}

/// A server's TLS, and the authorities of its clients. A client whose certificate comes from elsewhere is let in as far
/// as its request, which is then refused: only so can it be told why.
pub struct Serving {
    pub config: Arc<rustls::ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

/// A client certificate, after the handshake.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    subject: Arc<Subject>,
    is_of_client: bool,
    is_of_front_proxy: bool,
}

impl ClientCertificate {
    pub fn presented(&self) -> auth::Certificate<'_> {
        if self.is_of_client {
            auth::Certificate::Verified(&self.subject)
        } else {
            auth::Certificate::Unverified
        }
    }

    /// Until when it identifies its holder, in seconds since 1970; none if it does not.
    pub fn expires(&self) -> Option<i64> {
        self.subject.not_after().filter(|_| self.is_of_client)
    }

    /// The certificate if its holder may speak for users.
    pub fn front_proxy(&self) -> Option<&Subject> {
        self.is_of_front_proxy.then_some(&*self.subject)
    }
}

impl Serving {
    /// From PEM, with a certificate that may be replaced.
    pub fn showing(certificate: Arc<Replaceable>, authorities: Authorities<'_>) -> Result<Serving, TlsError> {
        let clients = client_verifier(authorities.clients)?;
        let front_proxies = client_verifier(authorities.front_proxies)?;
        let verifiers = [&clients, &front_proxies].into_iter().flatten();
        let hints: Vec<_> = verifiers.flat_map(|verifier| verifier.root_hint_subjects().to_vec()).collect();
        let lenient = Arc::new(Lenient { hints, provider: ::tls::provider() }) as Arc<dyn ClientCertVerifier>;
        let lenient = (clients.is_some() || front_proxies.is_some()).then_some(lenient);
        let config = config(certificate, lenient)?;
        Ok(Serving { config: Arc::new(config), clients, front_proxies })
    }

    /// What a chain of certificates that the handshake has seen is worth.
    pub fn client_certificate(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (own, intermediates) = chain.split_first()?;
        let is_of = |verifier: &Option<Arc<dyn ClientCertVerifier>>| {
            let verified = verifier.as_ref()?.verify_client_cert(own, intermediates, UnixTime::now());
            verified.inspect_err(|error| tracing::debug!(%error, "client certificate not verified")).ok()
        };
        Some(ClientCertificate {
            subject: Arc::new(Subject::of(own)),
            is_of_client: is_of(&self.clients).is_some(),
            is_of_front_proxy: is_of(&self.front_proxies).is_some(),
        })
    }
}

/// Checks that the client holds the key of its certificate, not where the certificate comes from.
#[derive(Debug)]
struct Lenient {
    /// The authorities that the client is told of, so that it can choose a certificate.
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
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
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read the client certificate authority as PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
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
    server_config_showing(Replaceable::new(certificate, key)?, client_ca)
}

/// As [`server_config`], with a certificate that may be replaced.
pub fn server_config_showing(
    certificate: Arc<Replaceable>,
    client_ca: &[u8],
) -> Result<rustls::ServerConfig, TlsError> {
    Ok(config(certificate, client_verifier(client_ca)?)?)
}

/// Who takes certificates of these authorities; `None` when there are no authorities.
fn client_verifier(client_ca: &[u8]) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(client_ca) {
        roots.add(authority?)?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ::tls::provider());
    Ok(Some(verifier.allow_unauthenticated().build()?))
}

fn config(
    certificate: Arc<Replaceable>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder = match clients {
        Some(verifier) => ::tls::server().with_client_cert_verifier(verifier),
        None => ::tls::server().with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificate);
    // Clients keep what resumes their sessions, as upstream's do: what this server kept would hold their certificates.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes a configuration replaceable.
pub fn shared(serving: Serving) -> SharedTls {
    Arc::new(ArcSwap::from_pointee(serving))
}
