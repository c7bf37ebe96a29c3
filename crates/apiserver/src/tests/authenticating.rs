//! Who a request is from, by the word of others: front proxies, other issuers of tokens, a webhook.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::{Value, json};
use auth::RequestHeader;
use auth::jwt::{Algorithm, SigningKey};
use auth::oidc::AuthenticationConfiguration;
use client::config::RestConfig;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, DnType, IsCa, Issuer, KeyPair};

use super::fixture::Fixture;
use super::serving::Wire;
use super::webhook_server::WebhookServer;
use crate::authentication::{FrontProxies, webhook};
use crate::review_client::ReviewClient;
use crate::tls::Authorities;

const TOKEN_REVIEWS: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";

/// An authority, PEM, and a certificate it gives to this name.
fn proxy(name: &str) -> (String, CertifiedKey<KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let signing_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.signed_by(&signing_key, &issuer).expect("a certificate");
    (authority, CertifiedKey { cert, signing_key })
}

/// What a server that believes proxies named `front` answers when one of this name says who it speaks for.
async fn by_proxy(name: &str, remote: &[(&'static str, &'static str)]) -> u16 {
    let (authority, certificate) = proxy(name);
    let one = |name: &str| vec![name.to_owned()];
    let headers = RequestHeader {
        allowed_names: one("front"),
        username_headers: one("X-Remote-User"),
        group_headers: one("X-Remote-Group"),
        ..RequestHeader::default()
    };
    let proxies = FrontProxies { authority: authority.clone(), headers };
    let api = Fixture::with(|config| config.authentication.request_header = Some(proxies)).await;
    let authorities = Authorities { clients: b"", front_proxies: authority.as_bytes() };
    let wire = Wire::trusting(Arc::new(api), authorities).await;
    let stream = wire.connect_with("http/1.1", Some(certificate)).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    let mut request = http::Request::get("/api/v1/nodes").header("host", "localhost");
    for (name, value) in remote {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("answers");
    let code = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    drop(sender);
    wire.stop().await;
    code
}

#[tokio::test]
async fn a_front_proxy_speaks_for_users() {
    let master = [("x-remote-user", "jane"), ("x-remote-group", "system:masters")];
    assert_eq!(by_proxy("front", &master).await, 200);
    assert_eq!(by_proxy("front", &master[..1]).await, 403);
    assert_eq!(by_proxy("front", &[]).await, 403, "without a word it is nobody in particular");
    assert_eq!(by_proxy("other", &master).await, 401);
}

fn key() -> SigningKey {
    SigningKey::from_pem(SigningKey::generate_pem().expect("a key").as_bytes()).expect("reads back")
}

/// Reviews a token, once the issuer has told its keys.
async fn review(api: &Fixture, token: &str) -> Value {
    loop {
        let review = json!({"spec": {"token": token}});
        let status = api.check(TOKEN_REVIEWS, review, 201, json!({})).await["status"].clone();
        if status["error"] != "oidc: authenticator not initialized" {
            return status;
        }
    }
}

#[tokio::test]
async fn tokens_of_another_issuer_are_read_with_the_keys_it_publishes() {
    let (first, second) = (key(), key());
    let published = Arc::new(Mutex::new((String::new(), first.verifying_key().to_jwk())));
    let shown = published.clone();
    let issuer = WebhookServer::start(move |request| {
        let (url, jwk) = &*shown.lock().expect("no panic");
        Some(match request["path"].as_str() {
            Some("/keys") => json!({"keys": [jwk]}),
            _ => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}),
        })
    })
    .await;
    let url = format!("https://{}", issuer.address);
    published.lock().expect("no panic").0 = url.clone();
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": url, "certificateAuthority": issuer.authority(), "audiences": ["kube"]},
        "claimMappings": {"username": {"expression": "'o:' + claims.sub"}, "groups": {"claim": "groups", "prefix": ""}}}]});
    let file = AuthenticationConfiguration::parse(&file.to_string()).expect("parses");
    let issuers = file.compile(&[Algorithm::ES256], "own").expect("is usable");
    let api = Fixture::with(|config| config.authentication.issuers = issuers).await;
    let token = |key: &SigningKey| {
        let claims =
            json!({"iss": url, "aud": "kube", "exp": 4_000_000_000_u64, "sub": "jane", "groups": ["dev"]});
        key.sign(&claims).expect("signs")
    };
    let status = review(&api, &token(&first)).await;
    assert_eq!(status["user"]["username"], "o:jane", "{status}");
    assert_eq!(status["user"]["groups"], json!(["dev", "system:authenticated"]));
    published.lock().expect("no panic").1 = second.verifying_key().to_jwk();
    let status = review(&api, &token(&second)).await;
    assert_eq!(status["authenticated"], true, "newer keys are fetched: {status}");
    let fetched = issuer.asked();
    let status = review(&api, &token(&key())).await;
    assert!(status["error"].as_str().expect("is refused").contains("by no known key"), "{status}");
    assert!(issuer.asked() <= fetched + 1);
}

#[tokio::test]
async fn a_webhook_is_asked_about_tokens_nobody_knows_and_its_answers_last() {
    let server = WebhookServer::start(|review| {
        let is_known = review["spec"]["token"] == "secret";
        Some(json!({"status": {"authenticated": is_known, "user": {"username": "jane", "uid": "7"}}}))
    })
    .await;
    let config = RestConfig {
        server: format!("https://{}/authenticate", server.address),
        certificate_authority: server.authority().into_bytes(),
        ..RestConfig::default()
    };
    let client = ReviewClient::new(&config).expect("is usable");
    let webhook = webhook::Config { client, version: "v1".to_owned(), cache_ttl: Duration::from_secs(60) };
    let api = Fixture::with(|config| config.authentication.webhook = Some(webhook)).await;
    for _ in 0..2 {
        let status = review(&api, "secret").await;
        assert_eq!(status["user"]["username"], "jane", "{status}");
        assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc"]));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(review(&api, "other").await["authenticated"], Value::Null);
}
