//! Requests as a service account, with tokens that are asked for and renewed
//! (follows the controller manager's `--use-service-account-credentials`).

use std::sync::Arc;

use api::resource::SERVICE_ACCOUNTS;
use apimachinery::meta::str_at;
use apimachinery::{Value, json, time};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::request::Client;
use crate::transport::{ResponseFuture, Transport};

/// What a token lives.
const TOKEN_SECONDS: i64 = 3600;

struct Token {
    authorization: HeaderValue,
    /// Four fifths of its life are over.
    renew_at: Timestamp,
}

/// A way to the API server under a service account's identity.
pub struct ServiceAccount {
    /// May make service accounts and their tokens.
    issuer: Client,
    /// Carries requests without an identity of its own.
    anonymous: Arc<dyn Transport>,
    namespace: String,
    name: String,
    token: Mutex<Option<Token>>,
}

impl ServiceAccount {
    pub fn new(issuer: Client, anonymous: Arc<dyn Transport>, namespace: &str, name: &str) -> Arc<Self> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Arc::new(ServiceAccount { issuer, anonymous, namespace, name, token: Mutex::new(None) })
    }

    async fn authorization(&self, now: Timestamp) -> Result<HeaderValue> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.renew_at > now) {
            return Ok(token.authorization.clone());
        }
        let answer = match self.request_token().await {
            Err(error) if error.is_not_found() => {
                self.make_account().await?;
                self.request_token().await?
            }
            other => other?,
        };
        let new = read_token(&answer, now)?;
        Ok(token.insert(new).authorization.clone())
    }

    /// Forgets a token that was refused, for its account may have been made anew, unless there is another by now
    /// (follows client-go's `ResetTokenOlderThan`).
    async fn give_up(&self, refused: &HeaderValue) {
        let mut token = self.token.lock().await;
        token.take_if(|token| token.authorization == *refused);
    }

    async fn request_token(&self) -> Result<Value> {
        let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"expirationSeconds": TOKEN_SECONDS}});
        self.issuer.create_subresource(SERVICE_ACCOUNTS, &self.namespace, &self.name, "token", &request).await
    }

    async fn make_account(&self) -> Result<()> {
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": self.name}});
        match self.issuer.create(SERVICE_ACCOUNTS, &self.namespace, &account).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

fn read_token(answer: &Value, now: Timestamp) -> Result<Token> {
    let malformed = |what: &str| Error::Malformed(format!("token request: {what}"));
    let expires_at = time::parse_time(str_at(answer, &["status", "expirationTimestamp"]))
        .ok_or_else(|| malformed("no expiration time"))?;
    let fresh = SignedDuration::from_secs(expires_at.duration_since(now).as_secs() * 4 / 5);
    let authorization = format!("Bearer {}", str_at(answer, &["status", "token"]));
    let authorization = authorization.parse().map_err(|_| malformed("the token is not one"))?;
    Ok(Token { authorization, renew_at: now + fresh })
}

impl Transport for ServiceAccount {
    fn send(&self, mut request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let authorization = self.authorization(Timestamp::now()).await?;
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            let response = self.anonymous.send(request).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                self.give_up(&authorization).await;
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Response};
    use http_body_util::{BodyExt, Full};

    use super::*;

    /// Issues numbered tokens, and refuses the first.
    #[derive(Default)]
    struct Server {
        issued: AtomicUsize,
    }

    impl Transport for Server {
        fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
            let first =
                request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer t1");
            let (code, body) = if request.method() == Method::POST {
                let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
                let expires = time::format_time(Timestamp::now() + SignedDuration::from_hours(1));
                (201, json!({"status": {"token": format!("t{number}"), "expirationTimestamp": expires}}))
            } else {
                (if first { 401 } else { 200 }, json!({}))
            };
            Box::pin(async move {
                let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
                Ok(Response::builder().status(code).body(body).expect("a response"))
            })
        }
    }

    #[tokio::test]
    async fn a_token_that_is_refused_is_not_shown_again() {
        let server = Arc::new(Server::default());
        let issuer = Client::new(server.clone(), "test");
        let account = ServiceAccount::new(issuer, server.clone(), "kube-system", "a");
        let send = || account.send(Request::get("/api").body(Bytes::new()).expect("a request"));
        let mut codes = Vec::new();
        for _ in 0..3 {
            codes.push(send().await.expect("answers").status().as_u16());
        }
        assert_eq!(codes, [401, 200, 200]);
        assert_eq!(server.issued.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = Timestamp::UNIX_EPOCH;
        let answer = json!({"status": {"token": "t", "expirationTimestamp": "1970-01-01T01:00:00Z"}});
        let token = read_token(&answer, now).expect("a token");
        assert_eq!((token.authorization.as_bytes(), token.renew_at.as_second()), (&b"Bearer t"[..], 2880));
        assert!(read_token(&json!({"status": {}}), now).is_err());
    }
}
