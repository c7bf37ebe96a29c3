//! Requests for objects, as verbs on resources.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::resource::Resource;
use apimachinery::{Status, Value, json};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::transport::{Body, Transport};

/// How often a request is sent again when the server says when to (client-go: `maxRetries`).
const RETRIES_MAX: u32 = 10;
/// The longest pause a server may ask for that is kept; past it the failure is returned.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The three patches and apply, with their content types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub fn content_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
            PatchType::Apply => "application/apply-patch+yaml",
        }
    }
}

/// What to delete with; empty means the server's defaults.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<&'static str>,
}

impl DeleteOptions {
    fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        if let Some(policy) = self.propagation_policy {
            body["propagationPolicy"] = policy.into();
        }
        body
    }
}

/// One component's way to the API server.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    /// Also the field manager of what it writes.
    user_agent: Arc<str>,
}

impl Client {
    /// `user_agent` names the component; its first word becomes the field manager.
    pub fn new(transport: Arc<dyn Transport>, user_agent: &str) -> Self {
        Client { transport, user_agent: user_agent.into() }
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Result<T> {
        self.json(Method::GET, &resource.path(namespace, name), None).await
    }

    /// All objects of a namespace, or of all namespaces where it is empty. `query` is appended as it is.
    pub async fn list(&self, resource: Resource, namespace: &str, query: &str) -> Result<Value> {
        self.json(Method::GET, &with_query(resource.collection_path(namespace), query), None).await
    }

    pub async fn create(&self, resource: Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.json(Method::POST, &resource.collection_path(namespace), Some(object)).await
    }

    /// Posts to a subresource, for example `binding` or `token`.
    pub async fn create_subresource(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = format!("{}/{subresource}", resource.path(namespace, name));
        self.json(Method::POST, &path, Some(object)).await
    }

    /// Replaces an object; with a `subresource` such as `status`, only that part.
    pub async fn update(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        object: &Value,
    ) -> Result<Value> {
        self.json(Method::PUT, &object_path(resource, namespace, name, subresource), Some(object)).await
    }

    pub async fn patch(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        kind: PatchType,
        patch: &Value,
    ) -> Result<Value> {
        let mut path = object_path(resource, namespace, name, subresource);
        if kind == PatchType::Apply {
            // A component is the authority on what it applies.
            path = format!("{path}?fieldManager={}&force=true", escape(&self.user_agent));
        }
        let body = Some((kind.content_type(), encode(patch)));
        decode(self.send(Method::PATCH, &path, body).await?).await
    }

    pub async fn delete(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value> {
        self.json(Method::DELETE, &resource.path(namespace, name), Some(&options.body())).await
    }

    pub async fn delete_collection(
        &self,
        resource: Resource,
        namespace: &str,
        query: &str,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let path = with_query(resource.collection_path(namespace), query);
        self.json(Method::DELETE, &path, Some(&options.body())).await
    }

    /// Any request with a JSON body and a JSON answer.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T> {
        let body = body.map(|value| ("application/json", encode(value)));
        decode(self.send(method, path, body).await?).await
    }

    /// A JSON document in one of its forms, by the media type that names it.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str, accept: &str) -> Result<T> {
        decode(self.exchange(Method::GET, path, accept, None).await?).await
    }

    /// Sends and returns the response as soon as its head is there; a failure status is read and returned as error.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Body>> {
        self.exchange(method, path, "application/json", body).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Body>> {
        let mut retries = 0;
        let response = loop {
            let response = self.transport.send(self.request(&method, path, accept, body.as_ref())?).await?;
            let pause = retry_after(&response).filter(|_| retries < RETRIES_MAX);
            let Some(pause) = pause else { break response };
            retries += 1;
            tokio::time::sleep(pause).await;
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = read(response).await?;
        Err(match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) => status.into(),
            Err(_) => Status::failure(code, "Unknown", String::from_utf8_lossy(&bytes).into_owned()).into(),
        })
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        accept: &str,
        body: Option<&(&str, Bytes)>,
    ) -> Result<Request<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::USER_AGENT, &*self.user_agent)
            .header(header::ACCEPT, accept);
        if let Some((content_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        request
            .body(body.map(|(_, bytes)| bytes.clone()).unwrap_or_default())
            .map_err(|e| Error::Transport(format!("path {path:?} is not valid: {e}")))
    }
}

/// How long a server that is too busy, or failed, asks to wait (client-go: 429 and 5xx with a `Retry-After`).
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let status = response.status();
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|pause| *pause <= RETRY_AFTER_MAX)
}

fn object_path(resource: Resource, namespace: &str, name: &str, subresource: Option<&str>) -> String {
    let mut path = resource.path(namespace, name);
    if let Some(subresource) = subresource {
        write!(path, "/{subresource}").expect("writing to a String does not fail");
    }
    path
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a Value always encodes").into()
}

async fn read(response: Response<Body>) -> Result<Bytes> {
    let body = response.into_body().collect().await.map_err(|e| Error::Transport(e.to_string()))?;
    Ok(body.to_bytes())
}

async fn decode<T: DeserializeOwned>(response: Response<Body>) -> Result<T> {
    let bytes = read(response).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Malformed(e.to_string()))
}

/// A query value with everything but unreserved characters escaped.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String does not fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use parking_lot::Mutex;

    use super::*;
    use crate::transport::ResponseFuture;

    /// Answers in turn: a code, and the seconds of its `Retry-After`.
    struct Script(Mutex<Vec<(u16, Option<&'static str>)>>);

    impl Transport for Script {
        fn send(&self, _: Request<Bytes>) -> ResponseFuture<'_> {
            let (code, after) = self.0.lock().pop().expect("an answer is left");
            let mut response = Response::builder().status(code);
            if let Some(after) = after {
                response = response.header(header::RETRY_AFTER, after);
            }
            let body = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed_unsync();
            Box::pin(async { Ok(response.body(body).expect("builds")) })
        }
    }

    async fn ask(mut answers: Vec<(u16, Option<&'static str>)>) -> (Result<Value>, usize) {
        answers.reverse();
        let script = Arc::new(Script(Mutex::new(answers)));
        let answer = Client::new(script.clone(), "test").json(Method::GET, "/version", None).await;
        (answer, script.0.lock().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_again_when_the_server_says_when() {
        let (answer, left) = ask(vec![(429, Some("1")), (503, Some("2")), (200, None)]).await;
        assert!(answer.is_ok());
        assert_eq!(left, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_without_a_time_or_with_too_long_a_time_is_returned() {
        for after in [None, Some("3600"), Some("soon")] {
            let (answer, left) = ask(vec![(429, after), (200, None)]).await;
            assert!(answer.is_err(), "{after:?}");
            assert_eq!(left, 1);
        }
        let (answer, left) = ask(vec![(404, Some("1")), (200, None)]).await;
        assert!(answer.is_err());
        assert_eq!(left, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_sent_again_for_ever() {
        let (answer, left) = ask(vec![(429, Some("1")); RETRIES_MAX as usize + 2]).await;
        assert!(answer.is_err());
        assert_eq!(left, 1);
    }
}
