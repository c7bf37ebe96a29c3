//! Keeps a cache equal to the server: list, then watch from there, and again when history has gone.

use std::sync::Arc;
use std::time::Duration;

use api::resource::Resource;
use api::view::{Object, PartialObject};
use apimachinery::{Status, Value};
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cache::Cache;
use crate::error::{Error, Result};
use crate::request::{Client, escape};
use crate::watch::{Frame, WatchStream};

/// Objects asked for at once, so that neither side holds a whole large list.
const PAGE_SIZE: usize = 500;
/// The pause after the first failure; it doubles up to the maximum (client-go's reflector: 0.8 s to 30 s).
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch that ended sooner than this without any event counts as a failure (client-go: "very short watch").
const WATCH_MIN: Duration = Duration::from_secs(1);

pub struct Reflector<V> {
    client: Client,
    resource: Resource,
    /// Empty for all.
    namespace: String,
    field_selector: String,
    cache: Arc<Cache<V>>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    /// Absent or null when there is nothing.
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

impl<V: Object> Reflector<V> {
    pub fn new(client: Client, resource: Resource, field_selector: &str, cache: Arc<Cache<V>>) -> Self {
        let field_selector = if field_selector.is_empty() {
            String::new()
        } else {
            format!("&fieldSelector={}", escape(field_selector))
        };
        Reflector { client, resource, namespace: String::new(), field_selector, cache }
    }

    /// Only what is in this namespace.
    pub fn within(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    pub async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.list_and_watch(&mut backoff).await {
                Ok(()) => {}
                Err(error) if error.is_expired() => {
                    tracing::debug!(resource = self.resource.plural, "history expired, listing again");
                }
                Err(error) => {
                    tracing::warn!(resource = self.resource.plural, %error, "list and watch failed, will retry");
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn list_and_watch(&self, backoff: &mut Duration) -> Result<()> {
        let mut version = self.list().await?;
        *backoff = BACKOFF_MIN;
        loop {
            self.watch(&mut version).await?;
        }
    }

    async fn list(&self) -> Result<String> {
        let mut objects = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = format!("limit={PAGE_SIZE}{}", self.field_selector);
            if !token.is_empty() {
                query = format!("{query}&continue={}", escape(&token));
            }
            let path = format!("{}?{query}", self.resource.collection_path(&self.namespace));
            let page: List = self.client.json(Method::GET, &path, None).await?;
            for item in page.items.unwrap_or_default() {
                objects.extend(self.decode(&item));
            }
            token = page.metadata.continue_token;
            if token.is_empty() {
                self.cache.replace(objects);
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Follows one watch until the server ends it; `version` is always where the next one starts.
    async fn watch(&self, version: &mut String) -> Result<()> {
        let query =
            format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}{}", self.field_selector);
        let path = format!("{}?{query}", self.resource.collection_path(&self.namespace));
        let began = tokio::time::Instant::now();
        let mut stream = WatchStream::new(self.client.send(Method::GET, &path, None).await?);
        let mut silent = true;
        while let Some(frame) = stream.next().await? {
            self.take(frame, version)?;
            silent = false;
        }
        if silent && began.elapsed() < WATCH_MIN {
            return Err(Error::Transport("the server ended the watch at once".to_owned()));
        }
        Ok(())
    }

    /// An object that the view cannot hold is passed over: it must not keep the others from being seen.
    fn decode(&self, raw: &RawValue) -> Option<V> {
        match parse(raw).or_else(|_| parse_without_nulls(raw)) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::warn!(resource = self.resource.plural, %error, object = raw.get(), "object cannot be read");
                None
            }
        }
    }

    fn take(&self, frame: Frame, version: &mut String) -> Result<()> {
        if frame.kind == "ERROR" {
            let status: Status = parse(&frame.object)?;
            return Err(status.into());
        }
        if frame.kind == "BOOKMARK" {
            *version = parse::<Bookmark>(&frame.object)?.metadata.resource_version;
            return Ok(());
        }
        let Some(object) = self.decode(&frame.object) else {
            return self.take_undecodable(&frame, version);
        };
        version.clone_from(&object.meta().resource_version);
        if frame.kind == "DELETED" {
            self.cache.remove(object)
        } else {
            self.cache.apply(object)
        }
        Ok(())
    }

    /// What the view cannot hold is not shown, and neither is what stood there before.
    fn take_undecodable(&self, frame: &Frame, version: &mut String) -> Result<()> {
        let object: PartialObject = parse(&frame.object)?;
        self.cache.forget(&object.metadata.namespaced_name());
        *version = object.metadata.resource_version;
        Ok(())
    }
}

fn parse<T: serde::de::DeserializeOwned>(raw: &RawValue) -> Result<T> {
    serde_json::from_str(raw.get()).map_err(|e| Error::Malformed(e.to_string()))
}

/// Upstream's Go types write some absent lists and maps as null; views know them as absent only.
fn parse_without_nulls<T: serde::de::DeserializeOwned>(raw: &RawValue) -> Result<T> {
    let mut value: Value = parse(raw)?;
    remove_nulls(&mut value);
    apimachinery::from_value(value).map_err(|e| Error::Malformed(e.to_string()))
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use api::view::View;
    use api::view::core::Pod;
    use apimachinery::json;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};

    use super::*;
    use crate::transport::{ResponseFuture, Transport};

    /// Ends every request with an empty success.
    struct Silent;

    impl Transport for Silent {
        fn send(&self, _: Request<bytes::Bytes>) -> ResponseFuture<'_> {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            Box::pin(async { Ok(Response::new(body)) })
        }
    }

    fn reflector() -> Reflector<Pod> {
        let client = Client::new(Arc::new(Silent), "test");
        Reflector::new(client, Pod::RESOURCE, "", Arc::new(Cache::new()))
    }

    fn frame(kind: &str, object: Value) -> Frame {
        Frame { kind: kind.to_owned(), object: serde_json::value::to_raw_value(&object).expect("encodes") }
    }

    #[tokio::test]
    async fn a_watch_that_ends_at_once_is_a_failure() {
        let ended = reflector().watch(&mut "1".to_owned()).await;
        assert!(matches!(ended, Err(Error::Transport(_))));
    }

    #[test]
    fn an_object_that_became_unreadable_is_no_longer_shown() {
        let reflector = reflector();
        let mut version = String::new();
        let pod = |version: &str, spec: Value| json!({"metadata": {"namespace": "a", "name": "x", "uid": "1", "resourceVersion": version}, "spec": spec});
        reflector.take(frame("ADDED", pod("1", json!({}))), &mut version).expect("taken");
        assert!(reflector.cache.get("a", "x").is_some());
        reflector.take(frame("MODIFIED", pod("2", json!("nonsense"))), &mut version).expect("taken");
        assert!(reflector.cache.get("a", "x").is_none());
        assert_eq!(version, "2");
    }

    #[test]
    fn null_is_read_as_absent() {
        let raw = serde_json::value::to_raw_value(
            &json!({"spec": {"volumes": null, "containers": [{"name": "a", "env": null}]}}),
        );
        let pod: Pod = parse_without_nulls(&raw.expect("encodes")).expect("reads");
        assert_eq!(pod.spec.containers[0].name, "a");
    }
}
