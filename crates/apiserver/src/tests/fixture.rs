//! A server to send requests to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apimachinery::{Value, json};
use auth::UserInfo;
use auth::jwt::SigningKey;
use auth::serviceaccount::Issuer;
use auth::user::MASTERS;
use bytes::Bytes;
use client::Transport;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use store::{Config as StoreConfig, EtcdConfig, Expected, Key, Op, Store};

use crate::draft::draft;
use crate::{ApiServer, Config};

pub struct Fixture {
    pub server: ApiServer,
    admin: Arc<dyn Transport>,
    store: Store,
    /// Of a store with a log of its own.
    dir: Option<PathBuf>,
}

/// A server over this store, and an administrator's way to it.
async fn start(store: Store, configure: impl FnOnce(&mut Config)) -> (ApiServer, Arc<dyn Transport>) {
    let key = SigningKey::generate_pem().expect("a key");
    let key = SigningKey::from_pem(key.as_bytes()).expect("reads back");
    let issuer = Issuer::new("https://kubernetes.default.svc", Vec::new(), key);
    let mut config =
        Config::new("192.0.2.9:6443".parse().expect("an address"), "10.96.0.0/16".parse().expect("a range"));
    configure(&mut config);
    let server = ApiServer::start(config, issuer, store).await.expect("starts");
    let admin = server.in_process(UserInfo::new("admin", [MASTERS]));
    (server, admin)
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            std::fs::remove_dir_all(dir).expect("the store's directory can be removed");
        }
    }
}

impl Fixture {
    pub async fn new() -> Fixture {
        Fixture::with(|_| {}).await
    }

    /// A server configured otherwise.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Fixture {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("apiserver-test-{}-{number}", std::process::id()));
        let store = Store::open(StoreConfig::new(&dir)).await.expect("opens");
        let (server, admin) = start(store.clone(), configure).await;
        let fixture = Fixture { server, admin, store, dir: Some(dir) };
        fixture
            .check(
                "POST /api/v1/namespaces/default/serviceaccounts",
                json!({"metadata": {"name": "default"}}),
                201,
                json!({}),
            )
            .await;
        fixture
    }

    /// A server over an etcd that others may use, at an address of its own.
    pub async fn over(servers: etcd::Config, address: &str) -> Fixture {
        let config = EtcdConfig::new(servers, Arc::new(crate::EtcdCodec));
        let store = Store::open_etcd(config).await.expect("etcd is there");
        let advertise = address.parse().expect("an address");
        let (server, admin) = start(store.clone(), |config| config.advertise = advertise).await;
        Fixture { server, admin, store, dir: None }
    }

    /// Another server over the same store, in place of this one.
    pub async fn restart(mut self) -> Fixture {
        (self.server, self.admin) = start(self.store.clone(), |_| {}).await;
        self
    }

    /// Puts an object into the store past all that would refuse it.
    pub async fn store(&self, resource: api::Resource, object: &Value) {
        let kind = api::catalogue::by_resource(resource.group, resource.version, resource.plural);
        let kind = kind.expect("is in the catalogue");
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(kind.storage, text("namespace"), text("name"));
        self.store.commit(&key, Expected::Absent, Op::Put(draft(kind, object))).await.expect("commits");
    }

    /// `request` is method and path; extra headers follow as `Name: value` lines.
    pub async fn send(&self, request: &str, body: impl Into<Bytes>) -> Answer {
        self.send_by(&*self.admin, request, body).await
    }

    pub async fn send_by(&self, who: &dyn Transport, request: &str, body: impl Into<Bytes>) -> Answer {
        let response = self.open(who, request, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// Waits until he may do this: rules are heard of a moment after they are written.
    pub async fn until_allowed(&self, who: UserInfo, request: &str) {
        let who = self.server.in_process(who);
        while self.send_by(&*who, request, "").await.code == 403 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn open(
        &self,
        who: &dyn Transport,
        request: &str,
        body: impl Into<Bytes>,
    ) -> http::Response<client::Body> {
        let mut lines = request.lines();
        let (method, path) = lines.next().and_then(|l| l.trim().split_once(' ')).expect("METHOD path");
        let mut builder = Request::builder().method(method.parse::<Method>().expect("a method")).uri(path);
        for line in lines {
            let (name, value) = line.trim().split_once(": ").expect("Name: value");
            builder = builder.header(name, value.as_bytes());
        }
        who.send(builder.body(body.into()).expect("a request")).await.expect("answers")
    }

    pub async fn open_as_admin(&self, request: &str) -> http::Response<client::Body> {
        self.open(&*self.admin, request, "").await
    }

    pub async fn stream(&self, request: &str) -> client::Body {
        let response = self.open_as_admin(request).await;
        assert_eq!(response.status(), 200, "{request}");
        response.into_body()
    }

    /// Sends JSON and expects a code and an answer that contains at least `expect`.
    pub async fn check(&self, request: &str, body: Value, code: u16, expect: Value) -> Value {
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let answer = self.send(request, bytes).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.code, code, "{request}: {text}");
        let found = answer.json();
        assert!(contains(&found, &expect), "{request}: {found:#} lacks {expect:#}");
        found
    }
}

/// Whether all that `part` names is in `whole` with the same value.
pub fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).map_or(value.is_null(), |found| contains(found, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| contains(w, p))
        }
        _ => whole == part,
    }
}

pub fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": name}},
           "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}
