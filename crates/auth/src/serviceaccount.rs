//! Service account tokens: issued for a TokenRequest, bound to the life of an account and of a pod, secret or node;
//! read back as an identity. Claims are upstream's (`pkg/serviceaccount`).

use apimachinery::{Value, json};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::authenticator::Objects;
use crate::jwt::{self, SigningKey, VerifyingKey};
use crate::user::{CREDENTIAL_ID, NODE_NAME, UserInfo, service_account_user};

/// Clocks may differ by this much (upstream: jwt.DefaultLeeway).
const LEEWAY_SECONDS: i64 = 60;
/// What a token lives when the request does not say.
pub const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
/// The shortest life a request may ask for.
pub const EXPIRATION_SECONDS_MIN: i64 = 600;
/// The longest life granted; longer requests are shortened.
pub const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;

/// An object by name and by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

impl Reference {
    pub fn new(name: impl Into<String>, uid: impl Into<String>) -> Self {
        Reference { name: name.into(), uid: uid.into() }
    }
}

/// What a token's life is bound to, besides its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    #[default]
    Account,
    /// The pod, and for information the node it runs on.
    Pod(Reference, Option<Reference>),
    Secret(Reference),
    Node(Reference),
}

/// What a TokenRequest asks for.
#[derive(Clone, Debug, Default)]
pub struct TokenSpec {
    pub namespace: String,
    pub account: Reference,
    /// Empty means the issuer's own.
    pub audiences: Vec<String>,
    pub expiration_seconds: Option<i64>,
    pub binding: Binding,
}

/// A token, for whom it is and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    pub audiences: Vec<String>,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
    nbf: i64,
    sub: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
}

pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(input)? {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    })
}

/// Why a token gives no identity; the wording is upstream's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Token(#[from] jwt::Error),
    #[error("the token is from another issuer")]
    Issuer,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("service account token is issued in the future")]
    Future,
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("the token's subject is not its service account")]
    Subject,
    #[error("service account {0} has been deleted")]
    AccountGone(String),
    #[error("service account token has been invalidated")]
    Invalidated,
}

/// Signs and reads the cluster's service account tokens.
pub struct Issuer {
    name: String,
    audiences: Vec<String>,
    signing: SigningKey,
    /// The signing key's public half, and older ones still accepted.
    keys: Vec<VerifyingKey>,
}

impl Issuer {
    /// `audiences` are the API server's own; empty means the issuer's name, as upstream does.
    pub fn new(name: impl Into<String>, audiences: Vec<String>, signing: SigningKey) -> Self {
        let name = name.into();
        let audiences = if audiences.is_empty() { vec![name.clone()] } else { audiences };
        let keys = vec![signing.verifying_key().clone()];
        Issuer { name, audiences, signing, keys }
    }

    /// Accepts tokens of an older key too.
    #[must_use]
    pub fn also_accepting(mut self, key: VerifyingKey) -> Self {
        self.keys.push(key);
        self
    }

    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Signs a token; `jti` is its unique name.
    pub fn issue(&self, spec: &TokenSpec, jti: String, now: Timestamp) -> Result<Token, Error> {
        let lifetime = spec.expiration_seconds.unwrap_or(EXPIRATION_SECONDS_DEFAULT);
        let now = now.as_second();
        let exp = now + lifetime.clamp(EXPIRATION_SECONDS_MIN, EXPIRATION_SECONDS_MAX);
        let audiences = if spec.audiences.is_empty() { &self.audiences } else { &spec.audiences };
        let mut kubernetes = Kubernetes {
            namespace: spec.namespace.clone(),
            serviceaccount: spec.account.clone(),
            ..Default::default()
        };
        match &spec.binding {
            Binding::Account => {}
            Binding::Pod(pod, node) => {
                kubernetes.pod = Some(pod.clone());
                kubernetes.node = node.clone();
            }
            Binding::Secret(secret) => kubernetes.secret = Some(secret.clone()),
            Binding::Node(node) => kubernetes.node = Some(node.clone()),
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp,
            iat: now,
            iss: self.name.clone(),
            jti,
            kubernetes,
            nbf: now,
            sub: service_account_user(&spec.namespace, &spec.account.name),
        };
        let token = self.signing.sign(&claims)?;
        let expires_at = Timestamp::from_second(exp).map_err(|_| Error::Expired)?;
        Ok(Token { token, audiences: audiences.clone(), expires_at })
    }

    /// What `/openid/v1/jwks` serves: the keys that others may check tokens with.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(VerifyingKey::to_jwk).collect::<Vec<_>>()})
    }

    /// What `/.well-known/openid-configuration` serves; `jwks_uri` is where [`Issuer::jwks`] is found.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        let jwks = self.jwks();
        let mut algorithms: Vec<&Value> =
            jwks["keys"].as_array().into_iter().flatten().map(|k| &k["alg"]).collect();
        algorithms.dedup();
        json!({
            "issuer": self.name,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms
        })
    }

    /// Whether the token claims to be from here; its signature is not looked at.
    pub fn claims(&self, token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        jwt::unverified::<Issued>(token).is_some_and(|claims| claims.iss == self.name)
    }

    /// The identity in a token, and for which of the wanted audiences it holds. No wanted ones means the API server's.
    pub fn read(
        &self,
        token: &str,
        wanted: &[String],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), Error> {
        let claims: Claims = jwt::verify(token, &self.keys, jwt::OWN)?;
        if claims.iss != self.name {
            return Err(Error::Issuer);
        }
        claims.check_times(now.as_second())?;
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let audiences: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(Error::Audience { found: claims.aud, wanted: wanted.to_vec() });
        }
        claims.kubernetes.check_bound(objects, now)?;
        Ok((claims.user()?, audiences))
    }
}

impl Claims {
    fn check_times(&self, now: i64) -> Result<(), Error> {
        if now > self.exp.saturating_add(LEEWAY_SECONDS) {
            Err(Error::Expired)
        } else if now.saturating_add(LEEWAY_SECONDS) < self.nbf {
            Err(Error::NotYet)
        } else if now.saturating_add(LEEWAY_SECONDS) < self.iat {
            Err(Error::Future)
        } else {
            Ok(())
        }
    }

    fn user(self) -> Result<UserInfo, Error> {
        let Kubernetes { namespace, serviceaccount, pod, node, .. } = self.kubernetes;
        let mut user = UserInfo::service_account(&namespace, &serviceaccount.name, &serviceaccount.uid);
        if user.name != self.sub {
            return Err(Error::Subject);
        }
        let mut put = |key: &str, value: String| user.extra.insert(key.to_owned(), vec![value]);
        if !self.jti.is_empty() {
            put(CREDENTIAL_ID, format!("JTI={}", self.jti));
        }
        if let Some(pod) = pod {
            put("authentication.kubernetes.io/pod-name", pod.name);
            put("authentication.kubernetes.io/pod-uid", pod.uid);
        }
        if let Some(node) = node {
            put(NODE_NAME, node.name);
            put("authentication.kubernetes.io/node-uid", node.uid);
        }
        Ok(user)
    }
}

impl Kubernetes {
    /// The account must live, and so must what the token is bound to.
    fn check_bound(&self, objects: &dyn Objects, now: Timestamp) -> Result<(), Error> {
        let lives = |resource: &str, namespace: &str, reference: &Reference| {
            objects.identity(resource, namespace, &reference.name).is_some_and(|found| {
                let deleted =
                    found.deleted_at.is_some_and(|at| at.as_second() < now.as_second() - LEEWAY_SECONDS);
                found.uid == reference.uid && !deleted
            })
        };
        let namespace = self.namespace.as_str();
        if !lives("serviceaccounts", namespace, &self.serviceaccount) {
            return Err(Error::AccountGone(format!("{namespace}/{}", self.serviceaccount.name)));
        }
        let bound = match (&self.pod, &self.secret, &self.node) {
            (Some(pod), _, _) => lives("pods", namespace, pod),
            (None, Some(secret), _) => lives("secrets", namespace, secret),
            (None, None, Some(node)) => lives("nodes", "", node),
            (None, None, None) => true,
        };
        if bound { Ok(()) } else { Err(Error::Invalidated) }
    }
}

#[cfg(test)]
mod tests;
