//! Tokens issued, read back, and refused.

use std::collections::HashMap;

use super::*;
use crate::authenticator::Identity;

#[derive(Default)]
struct World(HashMap<(String, String), Identity>);

impl World {
    fn with(mut self, resource: &str, name: &str, uid: &str) -> Self {
        let identity = Identity { uid: uid.to_owned(), deleted_at: None };
        self.0.insert((resource.to_owned(), name.to_owned()), identity);
        self
    }
}

impl Objects for World {
    fn identity(&self, resource: &str, _namespace: &str, name: &str) -> Option<Identity> {
        self.0.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    fn secret(&self, _namespace: &str, _name: &str) -> Option<Value> {
        None
    }
}

fn issuer() -> Issuer {
    let key =
        SigningKey::from_pem(SigningKey::generate_pem().expect("a key").as_bytes()).expect("reads back");
    Issuer::new("https://kubernetes.default.svc.cluster.local", Vec::new(), key)
}

fn spec(binding: Binding) -> TokenSpec {
    TokenSpec {
        namespace: "ns".to_owned(),
        account: Reference::new("sa", "sa-uid"),
        binding,
        ..Default::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

const NOW: i64 = 1_800_000_000;

#[test]
fn an_issued_token_gives_the_account_back() {
    let issuer = issuer();
    let world = World::default().with("serviceaccounts", "sa", "sa-uid").with("pods", "web", "pod-uid");
    let binding = Binding::Pod(Reference::new("web", "pod-uid"), Some(Reference::new("n", "node-uid")));
    let token = issuer.issue(&spec(binding), "id".to_owned(), at(NOW)).expect("issues");
    assert_eq!(token.expires_at, at(NOW + 3600));
    let (user, audiences) = issuer.read(&token.token, &[], &world, at(NOW)).expect("is valid");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:ns:sa", "sa-uid"));
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n"]);
    assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=id"]);
    assert_eq!(audiences, issuer.audiences());
    assert!(issuer.claims(&token.token));
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    let issuer = issuer();
    let account = || World::default().with("serviceaccounts", "sa", "sa-uid");
    let token = issuer
        .issue(&spec(Binding::Pod(Reference::new("web", "pod-uid"), None)), String::new(), at(NOW))
        .expect("issues")
        .token;
    let read = |world: &World| issuer.read(&token, &[], world, at(NOW)).map(|_| ());
    assert_eq!(read(&account()), Err(Error::Invalidated));
    assert_eq!(read(&account().with("pods", "web", "other")), Err(Error::Invalidated));
    assert_eq!(read(&account().with("pods", "web", "pod-uid")), Ok(()));
    let reborn = World::default().with("serviceaccounts", "sa", "new").with("pods", "web", "pod-uid");
    assert_eq!(read(&reborn), Err(Error::AccountGone("ns/sa".to_owned())));
    let mut deleted = account().with("pods", "web", "pod-uid");
    deleted.0.get_mut(&("pods".to_owned(), "web".to_owned())).expect("is there").deleted_at =
        Some(at(NOW - 61));
    assert_eq!(read(&deleted), Err(Error::Invalidated));
}

#[test]
fn a_token_holds_in_its_time_and_for_its_audience_only() {
    let issuer = issuer();
    let world = World::default().with("serviceaccounts", "sa", "sa-uid");
    let mut spec = spec(Binding::Account);
    spec.expiration_seconds = Some(1);
    spec.audiences = vec!["vault".to_owned()];
    let token = issuer.issue(&spec, String::new(), at(NOW)).expect("issues");
    assert_eq!(token.expires_at, at(NOW + EXPIRATION_SECONDS_MIN));
    let read =
        |audience: &[String], now| issuer.read(&token.token, audience, &world, at(now)).map(|(_, a)| a);
    let vault = vec!["vault".to_owned()];
    assert_eq!(read(&vault, NOW), Ok(vault.clone()));
    assert_eq!(read(&vault, NOW + 660), Ok(vault.clone()));
    assert_eq!(read(&vault, NOW + 661), Err(Error::Expired));
    assert_eq!(read(&vault, NOW - 61), Err(Error::NotYet));
    assert!(matches!(read(&[], NOW), Err(Error::Audience { .. })));
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    let world = World::default().with("serviceaccounts", "sa", "sa-uid");
    let token = issuer().issue(&spec(Binding::Account), String::new(), at(NOW)).expect("issues").token;
    let refused = issuer().read(&token, &[], &world, at(NOW));
    assert_eq!(refused, Err(Error::Token(jwt::Error::Signature)));
}

#[test]
fn discovery_tells_where_the_keys_are_and_how_they_sign() {
    let issuer = issuer();
    let configuration = issuer.openid_configuration("https://cluster/openid/v1/jwks");
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert_eq!(issuer.jwks()["keys"][0]["kty"], "EC");
}
