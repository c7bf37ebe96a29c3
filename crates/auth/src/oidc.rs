//! Tokens of other issuers (OpenID Connect): checked with the keys their issuer publishes, and made into users as an
//! AuthenticationConfiguration says. Follows `plugin/pkg/authenticator/token/oidc`; fetching the keys is others' work.

pub mod config;
mod expression;
mod mapping;
mod validation;

use apimachinery::{Map, Value};
use jiff::Timestamp;
use serde::Deserialize;

use crate::jwt::{self, Algorithm, VerifyingKey};
use crate::user::{CREDENTIAL_ID, UserInfo};
pub use config::AuthenticationConfiguration;
use config::Issuer;
use expression::{Expression, Rule};
use mapping::Mapping;

/// Clocks may differ by this much where a token says from when on it is good (go-oidc).
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;

/// Google's tokens may name their issuer without scheme.
const GOOGLE: (&str, &str) = ("accounts.google.com", "https://accounts.google.com");

/// Why a token gives no identity, in upstream's words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("oidc: authenticator not initialized")]
    NotInitialized,
    #[error("oidc: verify token: {0}")]
    Token(#[from] jwt::Error),
    #[error("oidc: verify token: oidc: token is expired")]
    Expired,
    #[error("oidc: verify token: oidc: current time before the nbf (not before) time")]
    NotYet,
    #[error("oidc: verify token: oidc: expected audience in {wanted:?} got {found:?}")]
    Audience { wanted: Vec<String>, found: Vec<String> },
    #[error("oidc: parse {what} {claim:?}: {why}")]
    Claim { what: &'static str, claim: String, why: &'static str },
    #[error("oidc: email not verified")]
    EmailNotVerified,
    #[error("oidc: error evaluating {what} claim expression: {why}")]
    Expression { what: &'static str, why: String },
    #[error("oidc: empty username via CEL expression is not allowed")]
    EmptyUsername,
    #[error("oidc: required claim {0} not present in ID token")]
    MissingClaim(String),
    #[error("oidc: required claim {claim} value does not match. Got = {found}, want = {wanted}")]
    WrongClaim { claim: String, found: String, wanted: String },
    #[error("oidc: error evaluating {what}: {why}")]
    Rule { what: &'static str, why: String },
}

/// Reads the tokens of one issuer.
pub struct Authenticator {
    pub issuer: Issuer,
    algorithms: Vec<Algorithm>,
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
    extra: Vec<(String, Expression)>,
    /// Claims that must have these values.
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Registered {
    iss: String,
    #[serde(deserialize_with = "crate::serviceaccount::one_or_many")]
    aud: Vec<String>,
    /// Seconds, perhaps with a fraction.
    exp: f64,
    nbf: f64,
}

impl Authenticator {
    /// Whether the token claims to be from this issuer; its signature is not looked at.
    pub fn issued(&self, token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        jwt::unverified::<Issued>(token).is_some_and(|claims| same_issuer(&claims.iss, &self.issuer.url))
    }

    /// Whether one of the keys has signed the token. If none has, the issuer may have newer ones.
    pub fn is_signed(&self, token: &str, keys: &[VerifyingKey]) -> bool {
        jwt::verify::<Value>(token, keys, &self.algorithms).is_ok()
    }

    /// The user whom the token names.
    pub fn user(&self, token: &str, keys: &[VerifyingKey], now: Timestamp) -> Result<UserInfo, Error> {
        let claims: Value = jwt::verify(token, keys, &self.algorithms)?;
        self.check_registered(&claims, now)?;
        let empty = Map::new();
        let fields = claims.as_object().unwrap_or(&empty);
        let name = self.username.username(&claims)?;
        let groups = self.groups.as_ref().map(|groups| groups.groups(&claims)).transpose()?;
        let mut user = UserInfo { name, groups: groups.unwrap_or_default(), ..UserInfo::default() };
        if let Some(uid) = &self.uid {
            user.uid = uid.uid(&claims)?;
        }
        if let Some(jti) = fields.get("jti").and_then(Value::as_str).filter(|jti| !jti.is_empty()) {
            user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={jti}")]);
        }
        for (key, expression) in &self.extra {
            let values = expression.strings("extra", "claims", &claims)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_required(fields)?;
        Rule::check(&self.claim_rules, "claim validation expression", "claims", &claims)?;
        Rule::check(&self.user_rules, "user info validation rule", "user", &described(&user))?;
        Ok(UserInfo { uid: user.uid, extra: user.extra, ..UserInfo::new(user.name, user.groups) })
    }

    fn check_registered(&self, claims: &Value, now: Timestamp) -> Result<(), Error> {
        let registered = Registered::deserialize(claims).map_err(|_| jwt::Error::Malformed)?;
        if !same_issuer(&registered.iss, &self.issuer.url) {
            return Err(jwt::Error::Signature.into());
        }
        let now = now.as_second() as f64;
        if registered.exp < now {
            return Err(Error::Expired);
        }
        if registered.nbf > now + NOT_BEFORE_LEEWAY_SECONDS {
            return Err(Error::NotYet);
        }
        if registered.aud.iter().any(|audience| self.issuer.audiences.contains(audience)) {
            return Ok(());
        }
        Err(Error::Audience { wanted: self.issuer.audiences.clone(), found: registered.aud })
    }

    fn check_required(&self, claims: &Map) -> Result<(), Error> {
        for (claim, wanted) in &self.required {
            let found = claims.get(claim).ok_or_else(|| Error::MissingClaim(claim.clone()))?;
            let found = found.as_str().ok_or_else(|| Error::Claim {
                what: "claim",
                claim: claim.clone(),
                why: "is not a string",
            })?;
            if found != wanted {
                let (claim, found, wanted) = (claim.clone(), found.to_owned(), wanted.clone());
                return Err(Error::WrongClaim { claim, found, wanted });
            }
        }
        Ok(())
    }
}

fn same_issuer(found: &str, wanted: &str) -> bool {
    found == wanted || (found, wanted) == GOOGLE
}

/// The user as rules see them: every field is there.
fn described(user: &UserInfo) -> Value {
    apimachinery::json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra})
}

#[cfg(test)]
mod tests;
