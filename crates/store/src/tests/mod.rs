//! Tests of the store as a whole.

mod compaction;
mod crash;
mod disk;
mod encryption;
mod faults;
mod model;
mod reading;
mod watching;

use std::sync::Arc;

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

/// Lets the other tasks of this single-threaded runtime run until they wait.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}
