//! Where the API server is and who we are there: from a kubeconfig file or built in code.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::certificate::Replaceable;
use crate::error::{Error, Result};

/// How to reach one API server under one identity. Certificates and keys are PEM.
#[derive(Clone, Debug, Default)]
pub struct RestConfig {
    /// `https://host:port`.
    pub server: String,
    pub certificate_authority: Vec<u8>,
    /// Whoever answers is taken for the server.
    pub insecure_skip_tls_verify: bool,
    pub client_certificate: Option<Vec<u8>>,
    pub client_key: Option<Vec<u8>>,
    pub bearer_token: Option<String>,
}

impl RestConfig {
    /// Reads the current context of a kubeconfig.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Transport(format!("kubeconfig {} cannot be read: {e}", path.display())))?;
        let file: Kubeconfig = serde_saphyr::from_str(&text)
            .map_err(|e| Error::Transport(format!("kubeconfig {} is not valid: {e}", path.display())))?;
        file.current().map_err(|why| Error::Transport(format!("kubeconfig {}: {why}", path.display())))
    }

    /// The client certificate, if there is one.
    pub fn certificate(&self) -> Result<Option<Arc<Replaceable>>> {
        let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) else {
            return Ok(None);
        };
        let shown = Replaceable::new(certificate, key);
        shown.map(Some).map_err(|e| Error::Transport(format!("client certificate is not usable: {e}")))
    }

    /// The TLS side: trust the given authority only, or anybody if that is asked for, show the given client certificate if there is one.
    pub fn tls_showing(&self, certificate: Option<Arc<Replaceable>>) -> Result<Arc<rustls::ClientConfig>> {
        let bad =
            |what: &str, e: &dyn std::fmt::Display| Error::Transport(format!("{what} is not usable: {e}"));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.certificate_authority) {
            let certificate = certificate.map_err(|e| bad("certificate authority", &e))?;
            roots.add(certificate).map_err(|e| bad("certificate authority", &e))?;
        }
        let builder = match self.insecure_skip_tls_verify {
            true => tls::client_of_anybody(),
            false => tls::client().with_root_certificates(roots),
        };
        let mut config = match certificate {
            Some(certificate) => builder.with_client_cert_resolver(certificate),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named<ClusterEntry>>,
    #[serde(default)]
    contexts: Vec<Named<ContextEntry>>,
    #[serde(default)]
    users: Vec<Named<UserEntry>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    entry: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
}

fn find<'a, T>(entries: &'a [Named<T>], what: &str, name: &str) -> std::result::Result<&'a T, String> {
    entries
        .iter()
        .find(|e| e.name == name)
        .map(|e| &e.entry)
        .ok_or_else(|| format!("{what} {name:?} is missing"))
}

/// Inline base64 wins over a file's path, as in client-go.
fn material(inline: &Option<String>, file: &Option<String>) -> std::result::Result<Option<Vec<u8>>, String> {
    match (inline, file) {
        (Some(text), _) => {
            STANDARD.decode(text.trim()).map(Some).map_err(|e| format!("inline data is not base64: {e}"))
        }
        (None, Some(path)) => {
            std::fs::read(path).map(Some).map_err(|e| format!("{path} cannot be read: {e}"))
        }
        (None, None) => Ok(None),
    }
}

impl Kubeconfig {
    fn current(&self) -> std::result::Result<RestConfig, String> {
        let context = find(&self.contexts, "context", &self.current_context)?;
        let cluster = find(&self.clusters, "cluster", &context.cluster)?;
        let user = find(&self.users, "user", &context.user)?;
        Ok(RestConfig {
            server: cluster.server.clone(),
            certificate_authority: material(
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?
            .unwrap_or_default(),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            client_certificate: material(&user.client_certificate_data, &user.client_certificate)?,
            client_key: material(&user.client_key_data, &user.client_key)?,
            bearer_token: user.token.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "
current-context: a
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: aGk=}}]
contexts: [{name: a, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
";

    #[test]
    fn the_current_context_says_where_and_who() {
        let file: Kubeconfig = serde_saphyr::from_str(SAMPLE).expect("parses");
        let config = file.current().expect("complete");
        assert_eq!(config.server, "https://127.0.0.1:1");
        assert_eq!(config.certificate_authority, b"hi");
        assert_eq!(config.bearer_token.as_deref(), Some("t"));
    }

    #[test]
    fn a_missing_entry_is_named() {
        let file: Kubeconfig = serde_saphyr::from_str("current-context: x").expect("parses");
        assert_eq!(file.current().expect_err("no context"), "context \"x\" is missing");
    }
}
