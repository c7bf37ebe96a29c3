//! Whom a joining machine may trust: the authority that the server names, if its public key is one that was pinned.
//! Follows kubeadm's `app/discovery/token`; the pin alone vouches here, without a signature by the token.

use anyhow::{Context as _, bail};
use api::bootstraptoken::{CLUSTER_INFO, KUBECONFIG};
use api::resource::CONFIG_MAPS;
use apimachinery::Value;
use client::Client;
use client::config::RestConfig;
use client::transport::Https;
use cluster::kubeconfig;
use cluster::pki::public_key_hash;

/// The authority's certificate, PEM.
pub async fn authority(server: &str, pins: &[String]) -> anyhow::Result<String> {
    // Nothing secret is sent, and nothing that comes back is believed before it is checked.
    let config =
        RestConfig { server: server.to_owned(), insecure_skip_tls_verify: true, ..RestConfig::default() };
    let client = Client::new(Https::new(&config)?, "cox");
    let (namespace, name) = CLUSTER_INFO;
    let info: Value = match client.get(CONFIG_MAPS, namespace, name).await {
        Ok(info) => info,
        Err(error) if error.status().is_some() => bail!(
            "{server} does not tell who its authority is ({error}); run `cox token create` where it runs, which lets it, \
             and use the command that it prints"
        ),
        Err(error) => bail!(
            "{server} does not answer: {error}; is the API server running there, and may this machine reach it?"
        ),
    };
    let text = info["data"][KUBECONFIG].as_str().unwrap_or_default();
    let authority =
        kubeconfig::authority(text).with_context(|| format!("the {name} of {server} names no authority"))?;
    check(&authority, pins).with_context(|| format!("{server} is not to be trusted"))?;
    Ok(authority)
}

fn check(authority: &str, pins: &[String]) -> anyhow::Result<()> {
    let hash = public_key_hash(authority).context("what it names as its authority is no certificate")?;
    if !pins.iter().any(|pin| pin.eq_ignore_ascii_case(&hash)) {
        bail!(
            "its authority has the public key {hash}, which --discovery-token-ca-cert-hash does not name ({}): this is \
             another cluster, or somebody is between; compare with what `cox token create` prints where you want to join",
            pins.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_authority_whose_key_was_pinned_is_trusted() {
        let dir = tempfile::tempdir().expect("a folder");
        let pki = cluster::pki::Pki::open(dir.path(), "c", jiff::Timestamp::now()).expect("an authority");
        let given = kubeconfig::anonymous("https://192.0.2.1:6443", pki.ca_certificate());
        let authority = kubeconfig::authority(&kubeconfig::render(&given)).expect("names an authority");
        assert_eq!(authority, pki.ca_certificate());
        let pin = public_key_hash(&authority).expect("a certificate");
        let other = format!("sha256:{}", "0".repeat(64));
        check(&authority, &[other.clone(), pin.to_uppercase().replace("SHA256", "sha256")])
            .expect("is pinned");
        let refusal = check(&authority, std::slice::from_ref(&other)).expect_err("is not").to_string();
        assert!(refusal.contains(&pin) && refusal.contains(&other), "{refusal}");
        check(&authority, &[]).expect_err("nothing is pinned");
        check("no certificate", &[pin]).expect_err("is no certificate");
    }
}
