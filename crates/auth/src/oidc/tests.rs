//! From configurations and tokens to users, and why not.

use apimachinery::{Value, json};
use jiff::Timestamp;
use proptest::prelude::*;

use super::config::OidcFlags;
use super::*;
use crate::configfile::Error as ConfigError;
use crate::jwt::SigningKey;

const URL: &str = "https://issuer.example.com";
const NOW: i64 = 1_800_000_000;

fn configuration(authenticator: &Value) -> Result<Vec<Authenticator>, ConfigError> {
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [authenticator]});
    AuthenticationConfiguration::parse(&file.to_string())?
        .compile(&Algorithm::ALL, "https://kubernetes.default.svc")
}

/// An authenticator with these mappings and, besides, `more`.
fn with(mappings: Value, more: Value) -> Value {
    let mut out = json!({"issuer": {"url": URL, "audiences": ["kube"]}, "claimMappings": mappings});
    out.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    out
}

fn key() -> SigningKey {
    SigningKey::from_pem(SigningKey::generate_pem().expect("a key").as_bytes()).expect("reads back")
}

/// What a token with good registered claims, and `more`, is read as.
fn read(authenticator: &Authenticator, more: Value) -> Result<UserInfo, Error> {
    let mut claims = json!({"iss": URL, "aud": "kube", "exp": NOW + 60, "sub": "jane"});
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let key = key();
    let token = key.sign(&claims).expect("signs");
    let keys = [key.verifying_key().clone()];
    assert!(authenticator.is_signed(&token, &keys));
    authenticator.user(&token, &keys, Timestamp::from_second(NOW).expect("a time"))
}

fn compiled(mappings: Value, more: Value) -> Authenticator {
    let mut all = configuration(&with(mappings, more)).expect("is usable");
    all.remove(0)
}

#[test]
fn claims_make_a_user() {
    let authenticator = compiled(
        json!({"username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "roles", "prefix": "g:"},
            "uid": {"claim": "id"}}),
        json!({}),
    );
    let user = read(&authenticator, json!({"roles": ["a", "b"], "id": "7", "jti": "x"})).expect("a user");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("oidc:jane", "7"));
    assert_eq!(user.groups, ["g:a", "g:b", "system:authenticated"]);
    assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=x"]);
    let one = read(&authenticator, json!({"roles": "a", "id": "7"})).expect("a user");
    assert_eq!(one.groups, ["g:a", "system:authenticated"]);
    assert!(read(&authenticator, json!({"roles": 3, "id": "7"})).is_err());
    assert!(read(&authenticator, json!({})).is_err(), "a uid that is mapped must be there");
}

#[test]
fn expressions_make_a_user() {
    let authenticator = compiled(
        json!({"username": {"expression": "claims.sub + '@' + claims.org"},
            "groups": {"expression": "claims.roles.split(',')"},
            "uid": {"expression": "claims.?id.orValue('none')"},
            "extra": [{"key": "example.com/org", "valueExpression": "claims.org"},
                {"key": "example.com/none", "valueExpression": "''"}]}),
        json!({"claimValidationRules": [{"expression": "claims.org == 'acme'", "message": "strangers stay out"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')"},
                {"expression": "user.groups.all(g, g != 'system:masters')", "message": "no masters"}]}),
    );
    let user = read(&authenticator, json!({"org": "acme", "roles": "a,b"})).expect("a user");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane@acme", "none"));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra, [("example.com/org".to_owned(), vec!["acme".to_owned()])].into());
    let refused = |claims: Value| read(&authenticator, claims).expect_err("is refused").to_string();
    assert_eq!(
        refused(json!({"org": "other", "roles": ""})),
        "oidc: error evaluating claim validation expression: validation expression 'claims.org == 'acme'' failed: strangers stay out"
    );
    assert!(refused(json!({"org": "acme", "roles": "system:masters"})).ends_with("failed: no masters"));
    assert!(refused(json!({"org": "acme", "roles": "", "sub": "system:x"})).contains("startsWith"));
    assert!(refused(json!({"org": 3, "roles": ""})).contains("username claim expression"));
}

#[test]
fn a_token_is_good_for_its_audience_and_its_time() {
    let authenticator = compiled(json!({"username": {"claim": "sub", "prefix": ""}}), json!({}));
    assert!(read(&authenticator, json!({"aud": ["other", "kube"]})).is_ok());
    assert!(matches!(read(&authenticator, json!({"aud": "other"})), Err(Error::Audience { .. })));
    assert_eq!(read(&authenticator, json!({"exp": NOW - 1})), Err(Error::Expired));
    assert_eq!(read(&authenticator, json!({"exp": null})), Err(jwt::Error::Malformed.into()));
    assert!(read(&authenticator, json!({"nbf": NOW + 299})).is_ok());
    assert_eq!(read(&authenticator, json!({"nbf": NOW + 301})), Err(Error::NotYet));
    assert!(read(&authenticator, json!({"iss": "https://other.example.com"})).is_err());
    let token = key().sign(&json!({"iss": URL})).expect("signs");
    assert!(authenticator.issued(&token));
    let stranger = [key().verifying_key().clone()];
    assert!(!authenticator.is_signed(&token, &stranger));
    assert!(authenticator.user(&token, &stranger, Timestamp::UNIX_EPOCH).is_err());
}

#[test]
fn the_flags_say_the_same_in_fewer_words() {
    let flags = |claim: &str, prefix: Option<&str>| OidcFlags {
        issuer_url: URL.to_owned(),
        client_id: "kube".to_owned(),
        username_claim: claim.to_owned(),
        username_prefix: prefix.map(str::to_owned),
        groups_claim: Some("groups".to_owned()),
        groups_prefix: "oidc:".to_owned(),
        required_claims: vec![("hd".to_owned(), "acme".to_owned())],
        ..OidcFlags::default()
    };
    let name = |claim: &str, prefix: Option<&str>| {
        let configuration = AuthenticationConfiguration::from(flags(claim, prefix));
        let authenticator = configuration.compile(&[Algorithm::ES256], "own").expect("is usable").remove(0);
        read(&authenticator, json!({"email": "j@e.com", "hd": "acme", "groups": "x"})).expect("a user").name
    };
    assert_eq!(name("sub", None), format!("{URL}#jane"));
    assert_eq!(name("email", None), "j@e.com");
    assert_eq!(name("sub", Some("-")), "jane");
    assert_eq!(name("sub", Some("o:")), "o:jane");
    let configuration = AuthenticationConfiguration::from(flags("email", None));
    let authenticator = configuration.compile(&[Algorithm::ES256], "own").expect("is usable").remove(0);
    let missing = read(&authenticator, json!({"email": "j@e.com"}));
    assert_eq!(missing, Err(Error::MissingClaim("hd".to_owned())));
    let unverified = read(&authenticator, json!({"email": "j@e.com", "hd": "acme", "email_verified": false}));
    assert_eq!(unverified, Err(Error::EmailNotVerified));
    let configuration = AuthenticationConfiguration::from(flags("sub", None));
    let authenticator = configuration.compile(&[Algorithm::RS256], "own").expect("is usable").remove(0);
    let key = key();
    let token = key.sign(&json!({"iss": URL})).expect("signs");
    let keys = [key.verifying_key().clone()];
    assert!(!authenticator.is_signed(&token, &keys), "only algorithms that are allowed count");
}

fn refusals(authenticator: &Value) -> String {
    configuration(authenticator).err().expect("is refused").to_string()
}

#[test]
fn what_is_wrong_with_a_configuration_is_named() {
    let good = json!({"username": {"claim": "sub", "prefix": ""}});
    let check = |mappings: Value, more: Value, expect: &str| {
        let found = refusals(&with(mappings, more));
        assert!(found.contains(expect), "{found}");
    };
    let issuer = |url: &str| json!({"issuer": {"url": url, "audiences": ["kube"]}});
    check(
        good.clone(),
        issuer("http://e.com"),
        "jwt[0].issuer.url: Invalid value: \"http://e.com\": URL scheme must be https",
    );
    check(good.clone(), issuer("https://u@e.com?q#f"), "URL must not contain a fragment");
    check(good.clone(), issuer("https://kubernetes.default.svc"), "must not overlap with disallowed issuers");
    check(good.clone(), json!({"issuer": {"url": URL}}), "jwt[0].issuer.audiences: Required value");
    let two = json!({"issuer": {"url": URL, "audiences": ["a", "b"]}});
    check(good.clone(), two, "audienceMatchPolicy must be MatchAny for multiple audiences");
    check(
        json!({}),
        json!({}),
        "jwt[0].claimMappings.username: Required value: claim or expression is required",
    );
    check(
        json!({"username": {"claim": "sub"}}),
        json!({}),
        "jwt[0].claimMappings.username.prefix: Required value",
    );
    check(json!({"username": {"expression": "claims."}}), json!({}), "compilation failed: ");
    check(
        json!({"username": {"expression": "claims.email"}}),
        json!({}),
        "claims.email_verified must be used",
    );
    let extra = |key: &str| json!({"username": {"claim": "sub", "prefix": ""}, "extra": [{"key": key, "valueExpression": "'a'"}]});
    check(extra("a.k8s.io/x"), json!({}), "are reserved for Kubernetes use");
    check(extra("x"), json!({}), "must be a domain-prefixed path");
    check(extra("e.com/X"), json!({}), "must be lowercase");
    check(
        good.clone(),
        json!({"userValidationRules": [{"expression": "user.username"}]}),
        "must evaluate to bool",
    );
    check(
        good.clone(),
        json!({"claimValidationRules": [{"claim": "a", "expression": "b"}]}),
        "can't both be set",
    );
    check(good, json!({"unknown": 1}), "strict decoding error");
    let text = "apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration\n";
    assert!(matches!(AuthenticationConfiguration::parse(text), Err(ConfigError::Kind { .. })));
}

#[test]
fn an_email_may_name_who_has_shown_it_to_be_theirs() {
    let expression = "claims.email_verified ? claims.email : claims.sub";
    assert!(configuration(&with(json!({"username": {"expression": expression}}), json!({}))).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        prop_assert!(AuthenticationConfiguration::parse(&text).is_err());
        let authenticator = compiled(json!({"username": {"claim": "sub", "prefix": ""}}), json!({}));
        prop_assert!(authenticator.user(&text, &[], Timestamp::UNIX_EPOCH).is_err());
    }
}
