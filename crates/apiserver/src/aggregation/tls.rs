//! TLS to extension servers: which of them are believed, and the certificate by which they believe this server.

use std::sync::Arc;

use client::certificate::Replaceable;
use rustls::{ClientConfig, RootCertStore};

/// The common name of this server's certificate for extension servers.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// What makes extension servers believe whom this server names (upstream: `--proxy-client-cert-file` and
/// `--proxy-client-key-file`); replaced when it is renewed.
pub type FrontProxy = Arc<Replaceable>;

/// Whom to believe at the other end.
pub enum Trust {
    Authorities(RootCertStore),
    /// Anybody who holds the key that is shown (`insecureSkipTLSVerify`).
    Anybody,
}

pub fn client_config(trust: Trust, front_proxy: Option<&FrontProxy>) -> Arc<ClientConfig> {
    let builder = match trust {
        Trust::Authorities(roots) => ::tls::client().with_root_certificates(roots),
        Trust::Anybody => ::tls::client_of_anybody(),
    };
    Arc::new(match front_proxy {
        Some(certificate) => builder.with_client_cert_resolver(certificate.clone()),
        None => builder.with_no_client_auth(),
    })
}
