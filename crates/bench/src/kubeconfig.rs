//! From a kubeconfig to an address and the means to be let in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

const HTTPS_PORT: u16 = 443;

/// `~/.kube/config`.
pub fn default_path() -> PathBuf {
    Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".kube/config")
}

/// One API server, and who we are to it.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub name: ServerName<'static>,
    pub token: Option<String>,
    pub tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    current_context: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Debug, Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: UserEntry,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl Target {
    /// Reads the file and picks a context, by default the current one.
    pub fn load(path: &Path, context: Option<&str>) -> Result<Target> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        Target::parse(&text, context, dir).with_context(|| format!("in the kubeconfig {}", path.display()))
    }

    /// As `load`; relative file names in the text are relative to `dir`.
    pub fn parse(text: &str, context: Option<&str>, dir: &Path) -> Result<Target> {
        let config: Config = serde_saphyr::from_str(text)?;
        let context = context.unwrap_or(&config.current_context);
        let found = config.contexts.iter().find(|named| named.name == context);
        let context = &found.ok_or_else(|| anyhow!("there is no context {context:?}"))?.context;
        let found = config.clusters.iter().find(|named| named.name == context.cluster);
        let cluster = &found.ok_or_else(|| anyhow!("there is no cluster {:?}", context.cluster))?.cluster;
        let found = config.users.iter().find(|named| named.name == context.user);
        let user = &found.ok_or_else(|| anyhow!("there is no user {:?}", context.user))?.user;

        let uri: Uri = cluster.server.parse().context("the server's address is not a URL")?;
        if uri.scheme_str() != Some("https") {
            bail!("the server's address {uri} is not https");
        }
        let host = uri.host().context("the server's address has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = cluster.tls_server_name.clone().unwrap_or_else(|| host.clone());
        Ok(Target {
            port: uri.port_u16().unwrap_or(HTTPS_PORT),
            name: ServerName::try_from(name)?,
            token: token(user, dir)?,
            tls: Arc::new(tls(cluster, user, dir)?),
            host,
        })
    }
}

fn token(user: &UserEntry, dir: &Path) -> Result<Option<String>> {
    match (&user.token, &user.token_file) {
        (Some(token), _) => Ok(Some(token.clone())),
        (None, Some(file)) => Ok(Some(std::fs::read_to_string(dir.join(file))?.trim().to_owned())),
        (None, None) => Ok(None),
    }
}

fn tls(cluster: &ClusterEntry, user: &UserEntry, dir: &Path) -> Result<rustls::ClientConfig> {
    let ca = pem(&cluster.certificate_authority_data, &cluster.certificate_authority, dir)?;
    let ca = ca.context("the cluster names no certificate authority")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&ca) {
        roots.add(certificate?)?;
    }
    let builder = tls::client().with_root_certificates(roots);
    let certificate = pem(&user.client_certificate_data, &user.client_certificate, dir)?;
    let key = pem(&user.client_key_data, &user.client_key, dir)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
            Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => bail!("the user has a client certificate or a key, but not both"),
    }
}

/// Inline data goes before a file, as in client-go.
fn pem(data: &Option<String>, file: &Option<PathBuf>, dir: &Path) -> Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => Ok(Some(base64::engine::general_purpose::STANDARD.decode(data.trim())?)),
        (None, Some(file)) => {
            let file = dir.join(file);
            let read = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Some(read))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, context: &str) -> String {
        let text = format!(
            "current-context: one\n\
             contexts: [{{name: one, context: {{cluster: c, user: u}}}}, {{name: two, context: {{cluster: x, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority-data: ''}}}}]\n\
             users: [{{name: u, user: {{token: secret}}}}]\n"
        );
        match Target::parse(&text, (!context.is_empty()).then_some(context), Path::new("/")) {
            Ok(target) => format!("{} {} {:?}", target.host, target.port, target.token.as_deref()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_context_leads_to_a_server_and_a_user() {
        assert_eq!(check("https://192.0.2.1:6443", ""), "192.0.2.1 6443 Some(\"secret\")");
        assert_eq!(check("https://[2001:db8::1]", "one"), "2001:db8::1 443 Some(\"secret\")");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(check("https://192.0.2.1", "two"), "there is no cluster \"x\"");
        assert_eq!(check("https://192.0.2.1", "three"), "there is no context \"three\"");
        assert_eq!(check("http://192.0.2.1", ""), "the server's address http://192.0.2.1/ is not https");
    }
}
