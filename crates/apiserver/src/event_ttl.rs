//! Events live for an hour after they were last written (upstream: `--event-ttl`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use store::{Entry, EventKind, Expected, Gone, Key, Op, Revision, Scope, Watch, WatchItem};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;
use crate::draft::draft;

/// Also for a store that removes them itself.
pub const TTL: Duration = Duration::from_secs(3600);

/// An event as it was written, and when that is too long ago. All live equally long, so the order of writing is the order
/// of dying.
struct Waiting {
    due: Instant,
    key: Key,
    revision: Revision,
}

impl Waiting {
    fn new(entry: &Entry) -> Waiting {
        Waiting { due: Instant::now() + TTL, key: entry.key.clone(), revision: entry.revision }
    }
}

/// Removes events as they grow old, until `stop`. Those found at the start live for another hour.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let resource = api::resource::EVENTS;
    let Some(kind) = api::catalogue::by_resource(resource.group, resource.version, resource.plural) else {
        return;
    };
    let mut waiting = VecDeque::new();
    let Ok(mut watch) = list(&core, kind, &mut waiting) else { return };
    loop {
        let next = waiting.front().map_or_else(|| Instant::now() + TTL, |first| first.due);
        tokio::select! {
            () = stop.cancelled() => return,
            item = watch.next() => match item {
                Ok(WatchItem::Event { kind: EventKind::Added | EventKind::Modified, entry, .. }) => {
                    waiting.push_back(Waiting::new(&entry));
                }
                Ok(_) => {}
                Err(gone) if gone.is_end() => return,
                Err(_) => match list(&core, kind, &mut waiting) {
                    Ok(fresh) => watch = fresh,
                    Err(gone) => {
                        tracing::error!(%gone, "events are no longer removed");
                        return;
                    }
                },
            },
            () = sleep_until(next) => {
                if let Some(old) = waiting.pop_front_if(|first| first.due <= Instant::now()) {
                    remove(&core, kind, &old).await;
                }
            }
        }
    }
}

/// Lets every event that is there wait from now on, some for a second time, and goes on from there.
fn list(core: &Core, kind: &api::Kind, waiting: &mut VecDeque<Waiting>) -> Result<Watch, Gone> {
    let page = core.store.range(kind.storage, None, None, None, 0, &|_| true)?;
    waiting.extend(page.entries.iter().map(|entry| Waiting::new(entry)));
    core.store.watch(Scope::resource(kind.storage), page.revision)
}

/// Removes the event unless it was written again, for then it is waiting further back.
async fn remove(core: &Core, kind: &'static api::Kind, old: &Waiting) {
    let Some(entry) = core.store.get(&old.key).filter(|current| current.revision == old.revision) else {
        return;
    };
    let last = draft(kind, &conversion::decode(&entry.bytes));
    if let Err(error) = core.commit(&entry.key, Expected::At(entry.revision), Op::Delete(last)).await {
        tracing::debug!(%error, event = %entry.key, "an old event was not removed");
    }
}
