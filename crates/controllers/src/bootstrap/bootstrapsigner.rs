//! Signs `cluster-info` with each bootstrap token that is meant for it, so that who has the token can tell whether what
//! it reads there, before it trusts anybody, is the cluster's (follows `Signer`).

use std::collections::BTreeMap;

use api::bootstraptoken::{
    CLUSTER_INFO, KUBECONFIG, SECRET_PREFIX, SIGNATURE_PREFIX, TOKEN_ID, TOKEN_SECRET, USAGE_SIGNING, is_id,
};
use api::resource::{CONFIG_MAPS, SECRETS};
use api::view::core::ConfigMap;
use apimachinery::json;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use ring::hmac;

use super::{Expiration, Token, selector};
use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

/// Its only key is the ConfigMap.
struct BootstrapSigner {
    tokens: Informer<Token>,
    config_maps: Informer<ConfigMap>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let (namespace, name) = CLUSTER_INFO;
    let info = format!("metadata.name={name},metadata.namespace={namespace}");
    Box::new(BootstrapSigner {
        tokens: informers.get_selected(SECRETS, &selector()),
        config_maps: informers.get_selected(CONFIG_MAPS, &info),
    })
}

#[async_trait]
impl Controller for BootstrapSigner {
    fn watch(&self, watches: &mut Watches) {
        watches.on(SECRETS, &self.tokens, |_| vec![Key::new(CLUSTER_INFO.0, CLUSTER_INFO.1)]);
        watches.on(CONFIG_MAPS, &self.config_maps, |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            _ => itself(delta),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(info) = self.config_maps.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let tokens = self.tokens.list();
        Ok(reconcile(&info, tokens.iter().map(|token| &**token), now))
    }
}

fn reconcile<'a>(info: &ConfigMap, tokens: impl Iterator<Item = &'a Token>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(content) = info.data.get(KUBECONFIG) else { return plan };
    let mut data: BTreeMap<String, String> = info
        .data
        .iter()
        .filter(|(key, _)| !key.starts_with(SIGNATURE_PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for (id, secret) in tokens.filter_map(|token| signing(token, now)) {
        data.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(content, &id, &secret));
    }
    if data != info.data {
        let meta = &info.metadata;
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data});
        plan.act(Action::update(CONFIG_MAPS, meta, object));
    }
    plan
}

/// Id and secret of a token that is to sign (follows `validateSecretForSigning`).
fn signing(token: &Token, now: Timestamp) -> Option<(String, String)> {
    let (id, secret) = (token.text(TOKEN_ID)?, token.text(TOKEN_SECRET)?);
    let is_named_so = is_id(&id) && token.metadata.name.strip_prefix(SECRET_PREFIX) == Some(&id);
    let signs = token.text(USAGE_SIGNING).as_deref() == Some("true");
    let lasts = match token.expiration() {
        Expiration::Never => true,
        Expiration::At(end) => end > now,
        Expiration::Unreadable => false,
    };
    (is_named_so && signs && lasts).then_some((id, secret))
}

/// A JSON Web Signature of content that is not in it (RFC 7515, appendix F), by HMAC with SHA-256.
fn signature(content: &str, id: &str, secret: &str) -> String {
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = base64(json!({"alg": "HS256", "kid": id}).to_string().as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = hmac::sign(&key, format!("{header}.{}", base64(content.as_bytes())).as_bytes());
    format!("{header}..{}", base64(signed.as_ref()))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::testing::at;

    fn token(id: &str, more: &[(&str, &str)]) -> Token {
        let mut token = Token::default();
        token.metadata.name = format!("{SECRET_PREFIX}{id}");
        let own = [(TOKEN_ID, id), (TOKEN_SECRET, "tokenSecret"), (USAGE_SIGNING, "true")];
        for (key, text) in own.iter().chain(more) {
            token.data.insert((*key).to_owned(), STANDARD.encode(text));
        }
        token
    }

    fn info(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        ConfigMap { data, ..ConfigMap::default() }
    }

    /// The keys of what is written; none when nothing is.
    fn written(info: &ConfigMap, tokens: &[Token]) -> Vec<String> {
        let plan = reconcile(info, tokens.iter(), at(0));
        match plan.steps.first().map(|step| &step.action) {
            Some(Action::Update { object, .. }) => {
                object["data"].as_object().expect("data").keys().map(|key| key.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_signature_is_what_kubeadm_expects() {
        // The example of upstream's own test.
        assert_eq!(
            signature(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[test]
    fn tokens_meant_for_it_sign_and_signatures_of_others_go() {
        let content = (KUBECONFIG, "payload");
        let tokens = [
            token("abcdef", &[]),
            token("ended0", &[("expiration", "1960-01-01T00:00:00Z")]),
            token("unread", &[("expiration", "soon")]),
            token("login0", &[("usage-bootstrap-signing", "false")]),
        ];
        let stale = info(&[content, ("jws-kubeconfig-gone00", "x")]);
        assert_eq!(written(&stale, &tokens), ["jws-kubeconfig-abcdef", "kubeconfig"]);
        assert_eq!(written(&info(&[("other", "x")]), &tokens), [""; 0]);
        let signed = signature("payload", "abcdef", "tokenSecret");
        assert_eq!(written(&info(&[content, ("jws-kubeconfig-abcdef", &signed)]), &tokens), [""; 0]);
        let mut strange = token("abcdef", &[]);
        strange.metadata.name = "elsewhere".to_owned();
        assert_eq!(written(&info(&[content]), &[strange]), [""; 0]);
    }
}
