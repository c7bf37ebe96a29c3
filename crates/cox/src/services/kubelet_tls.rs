//! The TLS of the kubelet's own API: its certificate from files, from the cluster's authority, or still to be asked for.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::certificate::Replaceable;
use kubelet::KubeletConfiguration;

pub struct KubeletTls {
    pub config: rustls::ServerConfig,
    pub serving: Arc<Replaceable>,
}

/// `own` is what is shown where no files are named; `client_ca`, PEM, whose certificates are taken from clients where the
/// configuration names no file.
pub fn of(
    configuration: &KubeletConfiguration,
    own: Option<Arc<Replaceable>>,
    client_ca: &[u8],
) -> anyhow::Result<KubeletTls> {
    let read = |path: &str| std::fs::read(Path::new(path)).with_context(|| format!("{path} cannot be read"));
    let (certificate, key) = (&configuration.tls_cert_file, &configuration.tls_private_key_file);
    let serving = match (certificate.is_empty(), own) {
        (false, _) => Replaceable::new(&read(certificate)?, &read(key)?)
            .with_context(|| format!("{certificate} and {key} cannot be served with"))?,
        (true, Some(own)) => own,
        (true, None) if configuration.server_tls_bootstrap => Replaceable::empty(),
        (true, None) => bail!(
            "the kubelet's own API has no certificate; give one with --tls-cert-file and --tls-private-key-file, or have the cluster sign one with --rotate-server-certificates"
        ),
    };
    let file = &configuration.authentication.x509.client_ca_file;
    let client_ca = if file.is_empty() { client_ca.to_vec() } else { read(file)? };
    let config = apiserver::tls::server_config_showing(serving.clone(), &client_ca)?;
    Ok(KubeletTls { config, serving })
}
