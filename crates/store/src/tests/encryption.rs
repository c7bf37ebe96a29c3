//! What lies on disk when objects are encrypted on their way there.

use std::sync::atomic::{AtomicU8, Ordering};

use super::disk::TestDisk;
use super::*;

/// Turns each byte by a key, which it says first; reads what was turned by those keys that it knows. Not a cipher, but
/// what it writes cannot be mistaken for what it was given.
#[derive(Debug)]
struct Turning {
    writes: AtomicU8,
    reads: Vec<u8>,
}

impl Turning {
    fn new(reads: &[u8]) -> Arc<Turning> {
        Arc::new(Turning { writes: AtomicU8::new(reads[0]), reads: reads.to_vec() })
    }
}

impl Transformer for Turning {
    fn is_for(&self, resource: &str) -> bool {
        resource == "pods"
    }

    fn seal(&self, _: &str, place: &[u8], data: &[u8]) -> Result<Vec<u8>, TransformError> {
        let key = self.writes.load(Ordering::Relaxed);
        let turned = data.iter().map(|byte| byte ^ key);
        Ok([key, place.len() as u8].into_iter().chain(turned).collect())
    }

    fn open(&self, _: &str, place: &[u8], data: &[u8]) -> Result<(Vec<u8>, Freshness), TransformError> {
        let key = data[0];
        if !self.reads.contains(&key) || data[1] != place.len() as u8 {
            return Err(TransformError("no matching key".to_owned()));
        }
        let is_fresh = key == self.writes.load(Ordering::Relaxed);
        let opened = data[2..].iter().map(|byte| byte ^ key).collect();
        Ok((opened, if is_fresh { Freshness::Fresh } else { Freshness::Stale }))
    }
}

fn with(transformer: Arc<dyn Transformer>) -> Config {
    Config { transformer, ..config() }
}

fn shows(disk: &TestDisk, text: &[u8]) -> bool {
    let files = disk.contents();
    files.iter().any(|file| file.windows(text.len()).any(|part| part == text))
}

/// Lets the log's thread go on until it has removed what was there first.
fn await_rewriting(disk: &TestDisk, first: &[String]) {
    while disk.files().iter().any(|file| first.contains(file)) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_is_encrypted_does_not_show_on_disk_and_reads_back() {
    let disk = TestDisk::default();
    let store = open_with(&disk, with(Turning::new(&[1]))).expect("opens");
    put(&store, "a", "secret").await.expect("is written");
    drop(store);
    assert!(!shows(&disk, b"secret") && shows(&disk, b"pods"));
    let store = open_with(&disk, with(Turning::new(&[1]))).expect("opens");
    assert_eq!(text(&store.get(&pod("a")).expect("is there")), json("a", "secret", 1));
}

#[tokio::test]
async fn what_no_key_reads_is_an_error_unless_something_newer_has_come() {
    let disk = TestDisk::default();
    let store = open_with(&disk, with(Turning::new(&[1]))).expect("opens");
    put(&store, "a", "old").await.expect("is written");
    drop(store);
    let refused = open_with(&disk, with(Turning::new(&[2]))).expect_err("no key");
    assert!(matches!(refused, OpenError::Unreadable { .. }), "{refused}");
    let store = open_with(&disk, with(Turning::new(&[2, 1]))).expect("opens");
    put(&store, "a", "new").await.expect("is written");
    drop(store);
    let store = open_with(&disk, with(Turning::new(&[2]))).expect("what the old key wrote is outdated");
    assert_eq!(text(&store.get(&pod("a")).expect("is there")), json("a", "new", 2));
}

#[tokio::test]
async fn what_lies_there_in_another_form_is_written_anew() {
    let disk = TestDisk::default();
    let store = open(&disk);
    put(&store, "a", "secret").await.expect("is written");
    drop(store);
    assert!(shows(&disk, b"secret"));
    let first = disk.files();
    let plain_too = Arc::new(PlainToo(Turning::new(&[1])));
    let store = open_with(&disk, with(plain_too)).expect("opens");
    await_rewriting(&disk, &first);
    drop(store);
    assert!(!shows(&disk, b"secret"), "the plain copy is gone");
    open_with(&disk, with(Turning::new(&[1]))).expect("nothing plain is left");
}

#[tokio::test]
async fn keys_are_rotated_while_the_store_is_open() {
    let disk = TestDisk::default();
    let keys = Turning::new(&[1, 2]);
    let store = open_with(&disk, with(keys.clone())).expect("opens");
    put(&store, "a", "secret").await.expect("is written");
    keys.writes.store(2, Ordering::Relaxed);
    let first = disk.files();
    store.rewrite();
    await_rewriting(&disk, &first);
    drop(store);
    let store = open_with(&disk, with(Turning::new(&[2]))).expect("the first key is not needed any more");
    assert_eq!(text(&store.get(&pod("a")).expect("is there")), json("a", "secret", 1));
}

/// Reads what is plain besides.
#[derive(Debug)]
struct PlainToo(Arc<Turning>);

impl Transformer for PlainToo {
    fn is_for(&self, resource: &str) -> bool {
        self.0.is_for(resource)
    }

    fn seal(&self, resource: &str, place: &[u8], data: &[u8]) -> Result<Vec<u8>, TransformError> {
        self.0.seal(resource, place, data)
    }

    fn open(
        &self,
        resource: &str,
        place: &[u8],
        data: &[u8],
    ) -> Result<(Vec<u8>, Freshness), TransformError> {
        let opened = self.0.open(resource, place, data);
        opened.or_else(|_| Ok((data.to_vec(), Freshness::Stale)))
    }
}

async fn open_etcd_with(cluster: &Cluster, transformer: Arc<dyn Transformer>) -> Result<Store, OpenError> {
    let config = EtcdConfig::new(cluster.config(), Arc::new(PlainCodec));
    Store::open_etcd(EtcdConfig { transformer, ..config }).await
}

/// What etcd has for pod `a`.
async fn in_etcd(cluster: &Cluster) -> Vec<u8> {
    let key = "/registry/pods/default/a".into();
    let found = cluster.client().range(etcd::proto::RangeRequest { key, ..Default::default() }).await;
    found.expect("answers").kvs.first().map(|kv| kv.value.to_vec()).unwrap_or_default()
}

#[tokio::test]
async fn etcd_has_what_the_transformer_made() {
    let cluster = Cluster::start(1).await;
    let store = open_etcd_with(&cluster, Turning::new(&[1])).await.expect("opens");
    let written = put(&store, "a", "secret").await.expect("is written");
    assert_eq!(text(&written), json("a", "secret", written.revision.0));
    let sealed = in_etcd(&cluster).await;
    assert!(!sealed.windows(6).any(|part| part == b"secret"));
    assert_eq!(sealed[1] as usize, "/registry/pods/default/a".len(), "the place is the whole key");
    let again = open_etcd_with(&cluster, Turning::new(&[1])).await.expect("opens");
    assert_eq!(again.get(&pod("a")), Some(written));
    let refused = open_etcd_with(&cluster, Turning::new(&[2])).await.expect_err("nothing reads it");
    assert!(matches!(refused, OpenError::Unreadable { .. }), "{refused}");
}

#[tokio::test]
async fn keys_are_rotated_in_etcd_too() {
    let cluster = Cluster::start(1).await;
    let keys = Turning::new(&[1, 2]);
    let store = open_etcd_with(&cluster, keys.clone()).await.expect("opens");
    let written = put(&store, "a", "secret").await.expect("is written");
    let mut watch = store.watch(Scope::resource("pods"), written.revision).expect("is there");
    keys.writes.store(2, Ordering::Relaxed);
    store.rewrite();
    while !matches!(watch.next().await.expect("goes on"), WatchItem::Event { .. }) {}
    assert_eq!(in_etcd(&cluster).await[0], 2);
    let store =
        open_etcd_with(&cluster, Turning::new(&[2])).await.expect("the first key is not needed any more");
    let found = store.get(&pod("a")).expect("is there");
    assert_eq!(text(&found), json("a", "secret", found.revision.0));
}

#[tokio::test]
async fn what_another_server_writes_unreadably_is_not_shown_as_it_was() {
    let cluster = Cluster::start(1).await;
    let keys = Turning::new(&[1, 2]);
    let (one, other) =
        tokio::join!(open_etcd_with(&cluster, keys.clone()), open_etcd_with(&cluster, Turning::new(&[1])));
    let (one, other) = (one.expect("opens"), other.expect("opens"));
    put(&one, "a", "first").await.expect("is written");
    other.caught_up().await.expect("catches up");
    assert!(other.get(&pod("a")).is_some());
    keys.writes.store(2, Ordering::Relaxed);
    put(&one, "a", "second").await.expect("is written");
    other.caught_up().await.expect("catches up");
    assert_eq!(other.get(&pod("a")), None);
}
