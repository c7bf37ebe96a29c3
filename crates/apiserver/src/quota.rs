//! ResourceQuota, as far as it touches the store: what a request uses is added to the quotas of its namespace before
//! the request's own object is written. Whoever comes second sees what the first has used.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use admission::{Request, World, resourcequota};
use api::catalogue::{self, Kind};
use api::quota::Counting;
use api::resource::DEVICE_CLASSES;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value};
use jiff::Timestamp;
use store::{CommitError, Entry, Expected, Op, Store};
use tokio::sync::Mutex;

use crate::conversion;
use crate::draft::draft;
use crate::write::commit_failed;

const RESOURCE: &str = "resourcequotas";

/// How often a quota is looked at again because somebody else has written it (upstream: three retries).
const ATTEMPTS: usize = 4;

/// Namespaces whose writes take turns; those that share a lock wait for each other's flush.
const LOCKS: usize = 64;

pub struct Quotas {
    locks: [Mutex<()>; LOCKS],
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas { locks: std::array::from_fn(|_| Mutex::new(())) }
    }
}

impl Quotas {
    /// Makes room for the object, or refuses the request.
    pub async fn reserve(
        &self,
        store: &Store,
        world: &dyn World,
        request: &Request<'_>,
        object: &Value,
        now: Timestamp,
    ) -> Result<(), Status> {
        if !resourcequota::concerns(request, object) || quotas(store, request.namespace).is_empty() {
            return Ok(());
        }
        let kind = catalogue::by_resource("", "v1", RESOURCE);
        let kind = kind.ok_or_else(|| Status::internal("quotas are not served"))?;
        let _turn = self.locks[lock_of(request.namespace)].lock().await;
        // All at first, then those that could not be written.
        let mut pending: Option<Vec<String>> = None;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut entries = quotas(store, request.namespace);
            if let Some(pending) = &pending {
                entries.retain(|entry| pending.iter().any(|name| **name == *entry.key.name));
            }
            let stored: Vec<Value> = entries.iter().map(|entry| conversion::decode(&entry.bytes)).collect();
            let charged = charge(world, request, object, &stored, now)?;
            if request.dry_run {
                return Ok(());
            }
            let mut failed = Vec::new();
            for quota in charged {
                let name = str_at(&quota, &["metadata", "name"]).to_owned();
                if let Err(status) = put(store, kind, &entries, &name, &quota).await? {
                    failed.push(name);
                    last = Some(status);
                }
            }
            if failed.is_empty() {
                return Ok(());
            }
            pending = Some(failed);
        }
        Err(last.unwrap_or_else(|| Status::internal("resource quota evaluation timed out")))
    }
}

fn charge(
    world: &dyn World,
    request: &Request<'_>,
    object: &Value,
    quotas: &[Value],
    now: Timestamp,
) -> Result<Vec<Value>, Status> {
    let counting = Counting {
        now,
        list: &|resource| world.list(resource, request.namespace),
        device_classes: &|| world.list(&DEVICE_CLASSES.group_resource().to_string(), ""),
    };
    resourcequota::charge(request, object, quotas, &counting)
}

/// Stores a quota as it was charged; the inner error says that somebody else came first.
async fn put(
    store: &Store,
    kind: &Kind,
    entries: &[Arc<Entry>],
    name: &str,
    quota: &Value,
) -> Result<Result<(), Status>, Status> {
    let Some(entry) = entries.iter().find(|entry| &*entry.key.name == name) else { return Ok(Ok(())) };
    match store.commit(&entry.key, Expected::At(entry.revision), Op::Put(draft(kind, quota))).await {
        Ok(_) => Ok(Ok(())),
        Err(CommitError::Conflict { .. }) => Ok(Err(Status::modified(&kind.resource.group_resource(), name))),
        Err(error) => Err(commit_failed(&error)),
    }
}

fn quotas(store: &Store, namespace: &str) -> Vec<Arc<Entry>> {
    let page = store.range(RESOURCE, Some(namespace), None, None, 0, &|_| true);
    page.map(|page| page.entries).unwrap_or_default()
}

fn lock_of(namespace: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    namespace.hash(&mut hasher);
    hasher.finish() as usize % LOCKS
}
