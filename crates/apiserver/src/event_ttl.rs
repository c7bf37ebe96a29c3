//! Events live for an hour after they were last written (upstream: `--event-ttl`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use store::{Entry, EventKind, Expected, Op, Scope, WatchItem};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;
use crate::draft::draft;

const TTL: Duration = Duration::from_secs(3600);

/// Removes events as they grow old, until `stop`. Those found at the start live for another hour.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let resource = api::resource::EVENTS;
    let Some(kind) = api::catalogue::by_resource(resource.group, resource.version, resource.plural) else {
        return;
    };
    let Ok(page) = core.store.range(kind.storage, None, None, None, 0, &|_| true) else { return };
    let Ok(mut watch) = core.store.watch(Scope::resource(kind.storage), page.revision) else { return };
    // All live equally long, so the order of writing is the order of dying.
    let mut waiting: VecDeque<(Instant, Arc<Entry>)> = VecDeque::new();
    waiting.extend(page.entries.into_iter().map(|entry| (Instant::now() + TTL, entry)));
    loop {
        let next = waiting.front().map_or_else(|| Instant::now() + TTL, |(due, _)| *due);
        tokio::select! {
            () = stop.cancelled() => return,
            item = watch.next() => match item {
                Ok(WatchItem::Event { kind: EventKind::Added | EventKind::Modified, entry, .. }) => {
                    waiting.push_back((Instant::now() + TTL, entry));
                }
                Ok(_) => {}
                Err(gone) => {
                    tracing::warn!(%gone, "events are no longer removed");
                    return;
                }
            },
            () = sleep_until(next) => {
                let due = waiting.pop_front_if(|(due, _)| *due <= Instant::now());
                if let Some((_, entry)) = due {
                    remove(&core, kind, &entry).await;
                }
            }
        }
    }
}

/// Removes the event unless it was written again, for then it is waiting further back.
async fn remove(core: &Core, kind: &'static api::Kind, entry: &Entry) {
    if core.store.get(&entry.key).is_none_or(|current| current.revision != entry.revision) {
        return;
    }
    let last = draft(kind, &conversion::decode(&entry.bytes));
    if let Err(error) = core.store.commit(&entry.key, Expected::At(entry.revision), Op::Delete(last)).await {
        tracing::debug!(%error, event = %entry.key, "an old event was not removed");
    }
}
