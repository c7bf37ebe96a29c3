//! What all that speak TLS share: one provider of cryptography, how a client's or a server's configuration begins, and
//! trust in whoever answers.

mod anybody;

use std::sync::{Arc, LazyLock};

use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::ServerConfig;
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, WantsVerifier, WantsVersions};

use anybody::Anybody;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// A client's configuration, before it is said whom it trusts.
pub fn client() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    with_versions(ClientConfig::builder_with_provider(provider()))
}

/// A client that trusts whoever holds the key of the certificate that is shown: for `insecure-skip-tls-verify` and its
/// likes, for probes, and for who learns the authority only by asking and then checks it by other means.
pub fn client_of_anybody() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    client().dangerous().with_custom_certificate_verifier(Arc::new(Anybody))
}

/// A server's configuration, before it is said whom it asks for certificates.
pub fn server() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    with_versions(ServerConfig::builder_with_provider(provider()))
}

fn with_versions<S: ConfigSide>(builder: ConfigBuilder<S, WantsVersions>) -> ConfigBuilder<S, WantsVerifier> {
    builder.with_safe_default_protocol_versions().expect("the provider has ciphers for TLS 1.2 and 1.3")
}
