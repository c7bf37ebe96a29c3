//! Tests of the store as a whole.

mod compaction;
mod crash;
mod disk;
mod encryption;
mod faults;
mod model;
mod over_etcd;
mod reading;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::testing::Cluster;

use crate::*;
use disk::TestDisk;

/// An object whose JSON says its name, a payload and its revision.
fn draft(name: &str, payload: &str) -> Draft {
    let head = format!(r#"{{"name":"{name}","payload":"{payload}","resourceVersion":""#);
    let meta = Meta { labels: vec![("payload".into(), payload.into())], ..Meta::default() };
    Draft { revision_at: head.len(), json: format!("{head}\"}}").into_bytes(), meta }
}

/// What a GET of the object of `draft` must return.
fn json(name: &str, payload: &str, revision: u64) -> String {
    format!(r#"{{"name":"{name}","payload":"{payload}","resourceVersion":"{revision}"}}"#)
}

fn pod(name: &str) -> Key {
    Key::new("pods", "default", name)
}

fn config() -> Config {
    Config { segment_bytes: 2048, slack_bytes: 4096, ..Config::new("unused") }
}

fn open(disk: &TestDisk) -> Store {
    open_with(disk, config()).expect("the disk is readable")
}

fn open_with(disk: &TestDisk, config: Config) -> Result<Store, OpenError> {
    Store::open_on(Arc::new(disk.clone()), &config)
}

async fn put(store: &Store, name: &str, payload: &str) -> Result<Arc<Entry>, CommitError> {
    store.commit(&pod(name), Expected::Any, Op::Put(draft(name, payload))).await
}

async fn delete(store: &Store, name: &str) -> Result<Arc<Entry>, CommitError> {
    store.commit(&pod(name), Expected::Any, Op::Delete(draft(name, "gone"))).await
}

fn text(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.bytes).expect("JSON is UTF-8")
}

/// Does the same with an empty store of either kind, and the revision it begins at.
async fn on_each_engine(test: impl AsyncFn(Store, u64)) {
    test(open(&TestDisk::default()), 0).await;
    let cluster = Cluster::start(1).await;
    let store = open_etcd(cluster.config(), "/registry").await;
    let begin = store.revision().0;
    test(store, begin).await;
}

async fn open_etcd(servers: etcd::Config, prefix: &str) -> Store {
    let config = EtcdConfig { prefix: prefix.to_owned(), ..EtcdConfig::new(servers, Arc::new(PlainCodec)) };
    Store::open_etcd(config).await.expect("etcd is there")
}

/// Keys are paths, values the JSON behind the place of its revision.
struct PlainCodec;

/// Objects of this resource go by themselves after a second, the least that etcd counts.
const SHORT_LIVED: &str = "events";

impl Codec for PlainCodec {
    fn path(&self, key: &Key) -> String {
        format!("{}/{}/{}", key.resource, key.namespace, key.name)
    }

    fn key(&self, path: &str) -> Option<Key> {
        let mut parts = path.splitn(3, '/');
        Some(Key::new(parts.next()?, parts.next()?, parts.next()?))
    }

    fn encode(&self, _key: &Key, draft: &Draft) -> Result<Bytes, CodecError> {
        let mut value = format!("{} ", draft.revision_at).into_bytes();
        value.extend_from_slice(&draft.json);
        Ok(value.into())
    }

    fn decode(&self, _key: &Key, value: &[u8]) -> Result<Draft, CodecError> {
        let text = std::str::from_utf8(value).map_err(|error| CodecError(error.to_string()))?;
        let (at, json) = text.split_once(' ').ok_or_else(|| CodecError("no revision".to_owned()))?;
        let revision_at = at.parse().map_err(|_| CodecError("no number".to_owned()))?;
        Ok(Draft { json: json.into(), revision_at, meta: Meta::default() })
    }

    fn ttl(&self, key: &Key) -> Option<Duration> {
        (&*key.resource == SHORT_LIVED).then_some(Duration::from_secs(1))
    }
}

/// Lets the other tasks of this single-threaded runtime run until they wait.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}
