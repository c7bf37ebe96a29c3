//! How a machine becomes a node of a cluster elsewhere: it learns whom to trust (`discovery`), has its certificate signed
//! by the word of a token, and keeps both, so that it is a member from then on. `grants` is the cluster's side of it.

mod discovery;
pub mod grants;
mod network;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api::resource::CONFIG_MAPS;
use apimachinery::Value;
use auth::bootstraptoken;
use client::Client;
use client::config::RestConfig;
use client::transport::Https;
use cluster::pki::{self, not_after};
use cluster::{Layout, files, kubeconfig};
use jiff::Timestamp;
use kubelet::certificate::{Identity, issue_client, latest_client};
use serde::{Deserialize, Serialize};

use crate::cli::JoinArgs;
use crate::progress::Progress;
pub use network::Network;

const VERSION: u32 = 1;

/// What a machine keeps of having joined, beside its kubeconfig.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    version: u32,
    pub node_name: String,
    pub network: Network,
}

/// The files of a member.
struct Files {
    membership: PathBuf,
    pub kubeconfig: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn of(layout: &Layout) -> Self {
        Files {
            membership: layout.data().join("membership.json"),
            kubeconfig: layout.component_kubeconfig("kubelet"),
            authority: authority_file(layout),
        }
    }

    fn read(&self) -> anyhow::Result<Option<Membership>> {
        if !self.membership.exists() {
            return Ok(None);
        }
        let wrong = || {
            format!(
                "{} cannot be used; `cox down --purge` lets this machine join anew",
                self.membership.display()
            )
        };
        let text = std::fs::read(&self.membership).with_context(wrong)?;
        let membership: Membership = serde_json::from_slice(&text).with_context(wrong)?;
        if membership.version > VERSION {
            bail!("{} was written by a newer cox; use that one", self.membership.display());
        }
        Ok(Some(membership))
    }

    fn keep(&self, path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
        files::write(path, text.as_bytes(), mode)
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Where a member has the authority of the cluster.
pub fn authority_file(layout: &Layout) -> PathBuf {
    layout.pki().join("ca.crt")
}

/// Makes this machine a member under this name, unless it is one.
pub async fn join(args: &JoinArgs, node_name: Option<&str>, layout: &Layout) -> anyhow::Result<Membership> {
    let files = Files::of(layout);
    let known = files.read()?;
    if let (Some(known), Some(wanted)) = (&known, node_name)
        && known.node_name != wanted
    {
        bail!(
            "this machine has joined as node {}; to join as {wanted}, run `cox down --purge` first",
            known.node_name
        );
    }
    if let Some(known) = known.filter(|_| is_valid(&files, layout, Timestamp::now())) {
        return Ok(known);
    }
    let (server, token, pins) = wishes(args)?;
    let node_name = node_name.map_or_else(cluster::address::hostname, str::to_owned);
    let authority = discovery::authority(server, pins).await?;
    let trusting = RestConfig {
        server: server.to_owned(),
        certificate_authority: authority.clone().into_bytes(),
        ..RestConfig::default()
    };
    let identity = certified(&trusting, token, &node_name).await?;
    let network = network_of(&trusting, &identity).await?;
    let identity = pki::Identity { certificate: identity.certificate, key: identity.key };
    let config = kubeconfig::new(&layout.context(), server, &authority, &identity);
    files.keep(&files.authority, &authority, 0o644)?;
    files.keep(&files.kubeconfig, &kubeconfig::render(&config), 0o600)?;
    let membership = Membership { version: VERSION, node_name, network };
    // Last: with it the rest is known to be whole.
    files.keep(&files.membership, &serde_json::to_string_pretty(&membership)?, 0o644)?;
    Progress::on_terminal().step(&format!("joined {server} as node {}", membership.node_name));
    Ok(membership)
}

/// What joining needs, if all of it is given.
fn wishes(args: &JoinArgs) -> anyhow::Result<(&str, &str, &[String])> {
    const HOW: &str =
        "run `cox token create` on the machine of the API server and use the command that it prints";
    let (Some(server), Some(token)) = (&args.server, &args.token) else {
        bail!(
            "this machine is no node of a cluster, or its certificate has ended: {HOW}, or give --kubeconfig"
        );
    };
    if !server.starts_with("https://") {
        bail!("--server {server} does not begin with https://");
    }
    if bootstraptoken::parse(token).is_none() {
        bail!("--token is not of the form abcdef.0123456789abcdef: {HOW}");
    }
    if args.discovery_token_ca_cert_hash.is_empty() {
        bail!(
            "--discovery-token-ca-cert-hash is missing, without which anybody could pose as {server}: {HOW}"
        );
    }
    Ok((server, token, &args.discovery_token_ca_cert_hash))
}

/// Whether the certificate of an earlier joining, or what it was renewed to, still holds.
fn is_valid(files: &Files, layout: &Layout, now: Timestamp) -> bool {
    let Ok(config) = RestConfig::from_kubeconfig(&files.kubeconfig) else { return false };
    let text = |pem: Option<Vec<u8>>| pem.and_then(|pem| String::from_utf8(pem).ok());
    let (Some(certificate), Some(key)) = (text(config.client_certificate), text(config.client_key)) else {
        return false;
    };
    let latest = latest_client(&layout.kubelet(), Identity { certificate, key }, now);
    not_after(&latest.certificate).is_some_and(|end| end > now)
}

async fn certified(trusting: &RestConfig, token: &str, node_name: &str) -> anyhow::Result<Identity> {
    let server = &trusting.server;
    let config = RestConfig { bearer_token: Some(token.to_owned()), ..trusting.clone() };
    let client = Client::new(Https::new(&config)?, "kubelet");
    let unauthorized = |error: &kubelet::certificate::RequestError| error.code() == Some(401);
    issue_client(&client, node_name).await.map_err(|error| match unauthorized(&error) {
        true => anyhow::anyhow!(
            "{server} does not know the token, or its time is over: run `cox token create` there for another"
        ),
        false => anyhow::Error::new(error).context(format!("{server} gives this machine no certificate")),
    })
}

async fn network_of(trusting: &RestConfig, identity: &Identity) -> anyhow::Result<Network> {
    let config = RestConfig {
        client_certificate: Some(identity.certificate.clone().into_bytes()),
        client_key: Some(identity.key.clone().into_bytes()),
        ..trusting.clone()
    };
    let client = Client::new(Https::new(&config)?, "kubelet");
    let (namespace, name) = grants::NETWORK;
    let object: Value = client.get(CONFIG_MAPS, namespace, name).await.context(
        "how the cluster's network is laid out cannot be read; `cox token create` lets nodes read it",
    )?;
    Network::read(object["data"][network::KEY].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: Option<&str>, token: Option<&str>, pins: &[&str], expect: &str) {
        let args = JoinArgs {
            server: server.map(str::to_owned),
            token: token.map(str::to_owned),
            discovery_token_ca_cert_hash: pins.iter().map(|pin| (*pin).to_owned()).collect(),
        };
        match wishes(&args) {
            Ok(_) => assert_eq!(expect, ""),
            Err(error) => assert!(!expect.is_empty() && error.to_string().contains(expect), "{error}"),
        }
    }

    #[test]
    fn what_is_missing_to_join_is_named() {
        let (server, token) = (Some("https://192.0.2.1:6443"), Some("abcdef.0123456789abcdef"));
        check(server, token, &["sha256:aa"], "");
        check(None, None, &[], "cox token create");
        check(server, None, &["sha256:aa"], "cox token create");
        check(Some("192.0.2.1:6443"), token, &["sha256:aa"], "https://");
        check(server, Some("abc"), &["sha256:aa"], "abcdef.0123456789abcdef");
        check(server, token, &[], "--discovery-token-ca-cert-hash is missing");
    }
}
