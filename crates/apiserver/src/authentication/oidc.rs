//! The keys of another issuer: found through its discovery document, fetched over TLS, and fetched again when a token is
//! signed by none of them. Follows go-oidc's `Provider` and `RemoteKeySet`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::meta::str_at;
use arc_swap::ArcSwapOption;
use auth::UserInfo;
use auth::jwt::VerifyingKey;
use auth::oidc::{Authenticator, Error};
use bytes::Bytes;
use client::Transport;
use client::config::RestConfig;
use client::transport::Https;
use http::header::ACCEPT;
use http::{Request, Uri};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::body;
use crate::webhook::client::system_authorities;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// An issuer that cannot be asked is asked again after this.
const RETRY: Duration = Duration::from_secs(10);
/// An issuer answers within this time.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// However many tokens come that nobody has signed, keys are fetched no more often than this.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// A longer answer is neither keys nor a description of an issuer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// More keys than this are not kept.
const KEYS_MAX: usize = 256;

/// What an issuer publishes.
struct Published {
    jwks_uri: String,
    keys: Vec<VerifyingKey>,
}

/// An issuer and what is known of its keys.
pub struct Source {
    authenticator: Authenticator,
    /// None until the issuer has said where its keys are.
    published: ArcSwapOption<Published>,
    /// When keys were last fetched; held while they are, so that those who wait share one answer.
    fetched: Mutex<Option<Instant>>,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0:?} is no URL of HTTPS")]
    Url(String),
    #[error("the system's authorities cannot be read: {0}")]
    Authorities(String),
    #[error("{0}")]
    Transport(#[from] client::Error),
    #[error("no answer in {FETCH_TIMEOUT:?}")]
    Deadline,
    #[error("{0}")]
    Answer(String),
    #[error("oidc: issuer did not match the issuer returned by provider, expected {wanted:?} got {found:?}")]
    Issuer { wanted: String, found: String },
    #[error("provider did not return JWKS URL")]
    NoKeys,
}

impl Source {
    pub fn new(authenticator: Authenticator) -> Source {
        Source { authenticator, published: ArcSwapOption::empty(), fetched: Mutex::new(None) }
    }

    /// Asks until the issuer has said where its keys are.
    pub async fn discover(&self) {
        let issuer = &self.authenticator.issuer.url;
        while let Err(error) = self.try_discover().await {
            tracing::warn!(%error, issuer, "oidc authenticator: an issuer has not told its keys yet");
            sleep(RETRY).await;
        }
    }

    async fn try_discover(&self) -> Result<(), FetchError> {
        let issuer = &self.authenticator.issuer;
        let url = match issuer.discovery_url.as_str() {
            "" => format!("{}{WELL_KNOWN}", issuer.url.trim_end_matches('/')),
            given => given.to_owned(),
        };
        let document = self.fetch(&url).await?;
        let (found, jwks_uri) = (str_at(&document, &["issuer"]), str_at(&document, &["jwks_uri"]));
        if found != issuer.url {
            return Err(FetchError::Issuer { wanted: issuer.url.clone(), found: found.to_owned() });
        }
        if jwks_uri.is_empty() {
            return Err(FetchError::NoKeys);
        }
        self.fetch_keys(jwks_uri).await
    }

    async fn fetch_keys(&self, jwks_uri: &str) -> Result<(), FetchError> {
        let document = self.fetch(jwks_uri).await?;
        let keys = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let keys = keys.iter().filter_map(VerifyingKey::from_jwk).take(KEYS_MAX).collect();
        self.published.store(Some(Arc::new(Published { jwks_uri: jwks_uri.to_owned(), keys })));
        Ok(())
    }

    async fn fetch(&self, url: &str) -> Result<Value, FetchError> {
        let no_url = || FetchError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(no_url)?;
        let certificate_authority = match self.authenticator.issuer.certificate_authority.as_str() {
            "" => system_authorities().await.map_err(FetchError::Authorities)?,
            given => given.as_bytes().to_vec(),
        };
        let server = format!("https://{authority}");
        let config = RestConfig { server, certificate_authority, ..RestConfig::default() };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let answered = timeout(FETCH_TIMEOUT, get(&config, path)).await;
        answered.unwrap_or(Err(FetchError::Deadline))
    }

    /// None when the token is not from this issuer.
    pub async fn user(&self, token: &str, now: Timestamp) -> Option<Result<UserInfo, Error>> {
        if !self.authenticator.issued(token) {
            return None;
        }
        let Some(mut published) = self.published.load_full() else { return Some(Err(Error::NotInitialized)) };
        if !self.authenticator.is_signed(token, &published.keys) {
            published = self.newer(published).await;
        }
        Some(self.authenticator.user(token, &published.keys, now))
    }

    /// The keys as they are now; those seen, if there are no others.
    async fn newer(&self, seen: Arc<Published>) -> Arc<Published> {
        let mut fetched = self.fetched.lock().await;
        let current = self.published.load_full().unwrap_or_else(|| seen.clone());
        let is_recent = fetched.is_some_and(|at| at.elapsed() < REFRESH_PAUSE);
        if is_recent || !Arc::ptr_eq(&current, &seen) {
            return current;
        }
        if let Err(error) = self.fetch_keys(&seen.jwks_uri).await {
            let issuer = &self.authenticator.issuer.url;
            tracing::warn!(%error, issuer, "oidc authenticator: keys cannot be fetched");
        }
        *fetched = Some(Instant::now());
        self.published.load_full().unwrap_or(seen)
    }
}

async fn get(config: &RestConfig, path: &str) -> Result<Value, FetchError> {
    let failed = |why: &dyn std::fmt::Display| FetchError::Answer(why.to_string());
    let request = Request::get(path).header(ACCEPT, "application/json").body(Bytes::new());
    let response = Https::new(config)?.send(request.map_err(|error| failed(&error))?).await?;
    if !response.status().is_success() {
        return Err(failed(&response.status()));
    }
    let bytes = body::read_at_most(response.into_body(), ANSWER_BYTES_MAX).await;
    let bytes = bytes.map_err(|status| failed(&status.message))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}
