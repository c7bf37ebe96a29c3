//! Objects that the server itself answers for: made when it starts, and made again when somebody removes or changes
//! them. What must be written is decided from what is stored; the loop here carries it out.

mod apiservice;
pub mod clusterauthenticationtrust;
mod flowcontrol;
mod ipaddress;
mod legacytokentracking;
mod servicecidr;

use std::sync::Arc;

use api::{Kind, Resource};
use apimachinery::meta::str_at;
use apimachinery::{GroupVersion, Status, Value};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use store::{EventKind, Gone, Key, Scope, Watch, WatchItem};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;
use crate::loopback;
pub use ipaddress::wanted as ip_address;

/// Enough to fill a batch of the store's log.
const WRITES_AT_ONCE: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    #[error("write {resource} {name:?}")]
    Write {
        resource: &'static str,
        name: String,
        #[source]
        source: Status,
    },
    #[error("follow {resource}")]
    Follow {
        resource: &'static str,
        #[source]
        source: Gone,
    },
}

/// What brings one object into the state it should have.
#[derive(Debug, PartialEq)]
enum Write {
    Create(Resource, Value),
    Update(Resource, Value),
    UpdateStatus(Resource, Value),
    Delete(Resource, Value),
}

/// A stored object that has changed.
struct Change {
    /// None when it is gone.
    now: Option<Value>,
    /// None when it is new.
    before: Option<Value>,
}

impl Change {
    /// The object in its latest state, be that its last.
    fn object(&self) -> &Value {
        self.now.as_ref().or(self.before.as_ref()).unwrap_or(&Value::Null)
    }

    fn is_of(&self, namespace: &str, name: &str) -> bool {
        let metadata = &self.object()["metadata"];
        metadata["name"] == name && metadata["namespace"] == namespace
    }
}

/// Some objects to answer for.
struct Duty {
    /// A change of any of these may call for writes.
    watched: &'static [Resource],
    /// Everything that must be written, judged anew.
    all: fn(&Core) -> Vec<Write>,
    /// What must be written because of one change.
    after: fn(&Core, &Change) -> Vec<Write>,
}

const DUTIES: [Duty; 6] = [
    flowcontrol::DUTY,
    servicecidr::DUTY,
    apiservice::DUTY,
    ipaddress::DUTY,
    clusterauthenticationtrust::DUTY,
    legacytokentracking::DUTY,
];

/// Makes what is missing, then keeps it until `stop`.
pub async fn start(core: &Arc<Core>, stop: &CancellationToken) -> Result<(), UpkeepError> {
    for duty in &DUTIES {
        let mut watches = Vec::new();
        // Watched from before everything was judged, so that no change goes unseen.
        for resource in duty.watched {
            watches.push((*resource, watch(core, *resource)?));
        }
        carry_out(core, (duty.all)(core)).await?;
        for (resource, watch) in watches {
            tokio::spawn(keep(core.clone(), duty, resource, watch, stop.clone()));
        }
    }
    Ok(())
}

/// Makes the APIService of one group version what it should be.
pub async fn api_service(core: &Arc<Core>, version: &GroupVersion) -> Result<(), UpkeepError> {
    carry_out(core, apiservice::settle(core, version).into_iter().collect()).await
}

fn watch(core: &Core, resource: Resource) -> Result<Watch, UpkeepError> {
    let failed = |source| UpkeepError::Follow { resource: resource.plural, source };
    core.store.watch(Scope::resource(storage(resource)), core.store.revision()).map_err(failed)
}

pub fn row(resource: Resource) -> &'static Kind {
    let kind = api::catalogue::by_resource(resource.group, resource.version, resource.plural);
    kind.expect("what is kept is in the catalogue")
}

pub fn storage(resource: Resource) -> &'static str {
    row(resource).storage
}

/// Every stored object of a kind.
fn stored(core: &Core, resource: Resource) -> Vec<Value> {
    let page = core.store.range(storage(resource), None, None, None, 0, &|_| true);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries.iter().map(|entry| conversion::decode(&entry.bytes)).collect()
}

fn stored_one(core: &Core, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
    let entry = core.store.get(&Key::new(storage(resource), namespace, name))?;
    Some(conversion::decode(&entry.bytes))
}

async fn keep(
    core: Arc<Core>,
    duty: &'static Duty,
    resource: Resource,
    mut changes: Watch,
    stop: CancellationToken,
) {
    loop {
        let item = tokio::select! {
            () = stop.cancelled() => return,
            item = changes.next() => item,
        };
        let writes = match item {
            Ok(WatchItem::Progress(_)) => continue,
            Ok(WatchItem::Event { kind, entry, previous }) => {
                let entry = conversion::decode(&entry.bytes);
                let before = previous.map(|previous| conversion::decode(&previous.bytes));
                let change = match kind {
                    EventKind::Deleted => Change { now: None, before: Some(entry) },
                    _ => Change { now: Some(entry), before },
                };
                (duty.after)(&core, &change)
            }
            Err(gone) if gone.is_end() => return,
            Err(_) => match watch(&core, resource) {
                Ok(fresh) => {
                    changes = fresh;
                    (duty.all)(&core)
                }
                Err(error) => return tracing::error!(%error, "the server's own objects are no longer kept"),
            },
        };
        if let Err(error) = carry_out(&core, writes).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an object of the server's own is not as it should be"
            );
        }
    }
}

async fn carry_out(core: &Arc<Core>, writes: Vec<Write>) -> Result<(), UpkeepError> {
    let writes = stream::iter(writes).map(|write| carry_out_one(core, write));
    writes.buffer_unordered(WRITES_AT_ONCE).try_collect().await
}

/// Somebody else may have done it first, or changed the object again, of which another event tells.
async fn carry_out_one(core: &Arc<Core>, write: Write) -> Result<(), UpkeepError> {
    let (resource, object) = match &write {
        Write::Create(resource, object)
        | Write::Update(resource, object)
        | Write::UpdateStatus(resource, object)
        | Write::Delete(resource, object) => (*resource, object),
    };
    let done = match &write {
        Write::Create(..) => loopback::create(core, resource, object).await,
        Write::Update(..) => loopback::update(core, resource, object).await,
        Write::UpdateStatus(..) => loopback::update_status(core, resource, object).await,
        Write::Delete(..) => loopback::delete(core, resource, object).await,
    };
    match done {
        Err(status) if !(status.code == 409 || status.code == 404) => Err(UpkeepError::Write {
            resource: resource.singular,
            name: str_at(object, &["metadata", "name"]).to_owned(),
            source: status,
        }),
        _ => Ok(()),
    }
}
