//! Keeps flow control in step with the store.

use std::sync::Arc;

use api::{Resource, resource};
use apimachinery::Value;
use store::{Gone, Scope, Watch, WatchItem};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;

const LEVELS: Resource = resource::PRIORITY_LEVEL_CONFIGURATIONS;
const SCHEMAS: Resource = resource::FLOW_SCHEMAS;

/// Takes in what is there, then starts to follow what changes.
pub fn start(core: &Arc<Core>, stop: &CancellationToken) -> Result<(), Gone> {
    let watches = take_in(core)?;
    let (core, stop) = (core.clone(), stop.clone());
    tokio::spawn(async move { run(&core, watches, &stop).await });
    Ok(())
}

/// Configures flow control from the store, and tells of every change since.
fn take_in(core: &Core) -> Result<[Watch; 2], Gone> {
    let (levels, level_watch) = list(core, LEVELS)?;
    let (schemas, schema_watch) = list(core, SCHEMAS)?;
    core.flow_control.configure(&levels, &schemas);
    Ok([level_watch, schema_watch])
}

fn list(core: &Core, resource: Resource) -> Result<(Vec<Value>, Watch), Gone> {
    let kind = api::catalogue::by_resource(resource.group, resource.version, resource.plural);
    let storage = kind.expect("flow control is in the catalogue").storage;
    let page = core.store.range(storage, None, None, None, 0, &|_| true)?;
    let objects = page.entries.iter().map(|entry| conversion::decode(&entry.bytes)).collect();
    Ok((objects, core.store.watch(Scope::resource(storage), page.revision)?))
}

async fn run(core: &Core, mut watches: [Watch; 2], stop: &CancellationToken) {
    loop {
        let [levels, schemas] = &mut watches;
        let item = tokio::select! {
            () = stop.cancelled() => return,
            item = levels.next() => item,
            item = schemas.next() => item,
        };
        match item {
            Ok(WatchItem::Progress(_)) => continue,
            Err(gone) if gone.is_end() => return,
            Ok(WatchItem::Event { .. }) | Err(_) => {}
        }
        match take_in(core) {
            Ok(fresh) => watches = fresh,
            Err(gone) => return tracing::error!(%gone, "flow control cannot follow the store"),
        }
    }
}
