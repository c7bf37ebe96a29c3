//! What follows a definition's change later on: the instances of one that is deleted go before it does, and names that
//! become free are given to those who wait for them. Follows `CRDFinalizer` and `NamingConditionController`.

use std::collections::BTreeSet;
use std::sync::Arc;

use apiextensions::Definition;
use apiextensions::conditions::{self, Condition, ESTABLISHED, TERMINATING};
use apiextensions::definition::CLEANUP_FINALIZER;
use apimachinery::{Status, Value};
use auth::UserInfo;
use auth::user::MASTERS;
use http::{Method, Request};
use store::{Entry, EventKind, Expected, Gone, Key, Op, Scope, Watch, WatchItem};
use tokio_util::sync::CancellationToken;

use super::registry::DEFINITIONS;
use super::settle::settle_definition;
use crate::body;
use crate::conversion::decode;
use crate::core::Core;
use crate::draft::draft;
use crate::pipeline::{self, Peer};

/// The identity in which instances are deleted.
const USER: &str = "system:apiserver";

/// An answer longer than this is none of those expected here.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How often a write starts again because somebody else wrote in between.
const WRITE_ATTEMPTS: usize = 32;

/// Follows all definitions until `stop`.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    loop {
        let Ok(mut watch) = list(&core, &stop) else { return };
        loop {
            let item = tokio::select! {
                () = stop.cancelled() => return,
                item = watch.next() => item,
            };
            match item {
                Ok(WatchItem::Progress(_)) => {}
                Ok(WatchItem::Event { kind, entry, .. }) => changed(&core, kind, &entry, &stop).await,
                Err(gone) if gone.is_end() => return,
                Err(_) => break,
            }
        }
    }
}

/// Goes on with deletions that were under way, and watches from there.
fn list(core: &Arc<Core>, stop: &CancellationToken) -> Result<Watch, Gone> {
    let page = core.store.range(DEFINITIONS, None, None, None, 0, &|_| true)?;
    for entry in &page.entries {
        start_cleanup(core, entry, stop);
    }
    core.store.watch(Scope::resource(DEFINITIONS), page.revision)
}

async fn changed(core: &Arc<Core>, kind: EventKind, entry: &Arc<Entry>, stop: &CancellationToken) {
    let name = &entry.key.name;
    if kind == EventKind::Deleted {
        core.customresources.find(&core.store, name);
        return renamed(core, entry).await;
    }
    core.customresources.find(&core.store, name);
    start_cleanup(core, entry, stop);
    if kind == EventKind::Modified {
        renamed(core, entry).await;
    }
}

/// Names may have become free: those who wait for them in the same group get them.
async fn renamed(core: &Core, entry: &Entry) {
    let now = (core.config.clock)();
    let group = decode(&entry.bytes)["spec"]["group"].as_str().unwrap_or_default().to_owned();
    for registered in core.customresources.all(&core.store) {
        let in_group = registered.kinds.first().is_some_and(|kind| kind.kind.resource.group == group);
        if in_group && registered.entry.key != entry.key && !registered.has_its_names {
            write(core, &registered.entry.key, |object| settle_definition(core, object, now)).await;
        }
    }
}

/// Begins to delete the instances of a definition that is deleted, unless that is under way.
fn start_cleanup(core: &Arc<Core>, entry: &Arc<Entry>, stop: &CancellationToken) {
    let definition = Definition::read(&decode(&entry.bytes));
    let waits = definition.metadata.finalizers.iter().any(|name| name == CLEANUP_FINALIZER);
    if !definition.is_deleted() || !waits || !core.customresources.begin_cleanup(&definition.metadata.uid) {
        return;
    }
    let (core, stop, key) = (core.clone(), stop.clone(), entry.key.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = clean_up(&core, &key, &definition) => {}
        }
        core.customresources.end_cleanup(&definition.metadata.uid);
    });
}

/// Deletes all instances, waits until they are gone, and lets the definition go.
async fn clean_up(core: &Arc<Core>, key: &Key, definition: &Definition) {
    let last = if definition.has(ESTABLISHED) {
        let message = "CustomResource deletion is in progress";
        terminating(core, key, Condition::new(TERMINATING, true, "InstanceDeletionInProgress", message))
            .await;
        // Watched before they are deleted, so that none can go unseen.
        let revision = core.store.revision();
        if let Err(status) = delete_instances(core, definition).await {
            let message = format!("could not issue all deletes: {}", status.message);
            terminating(core, key, Condition::new(TERMINATING, true, "InstanceDeletionFailed", message))
                .await;
        }
        await_empty(core, &key.name, revision).await;
        Condition::new(TERMINATING, false, "InstanceDeletionCompleted", "removed all instances")
    } else {
        Condition::new(TERMINATING, false, "NeverEstablished", "resource was never established")
    };
    let now = (core.config.clock)();
    write(core, key, |object| {
        conditions::set_terminating(object, last.clone(), now);
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != CLEANUP_FINALIZER);
        }
    })
    .await;
}

async fn terminating(core: &Core, key: &Key, condition: Condition) {
    let now = (core.config.clock)();
    write(core, key, |object| conditions::set_terminating(object, condition.clone(), now)).await;
}

/// Namespaces that have instances; one of a cluster-wide kind has them in none.
fn namespaces(core: &Core, storage: &str) -> BTreeSet<String> {
    let page = core.store.range(storage, None, None, None, 0, &|_| true);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries.iter().map(|entry| entry.key.namespace.to_string()).collect()
}

/// Deletes as any client would, so that finalizers and admission have their say.
async fn delete_instances(core: &Arc<Core>, definition: &Definition) -> Result<(), Status> {
    let versions = definition.served_versions();
    let Some(version) = versions.first() else { return Ok(()) };
    let (group, plural) = (&definition.spec.group, &definition.spec.names.plural);
    for namespace in namespaces(core, &definition.metadata.name) {
        let within = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let request = Request::builder()
            .method(Method::DELETE)
            .uri(format!("/apis/{group}/{}{within}/{plural}", version.name))
            .body(body::empty())
            .map_err(Status::internal)?;
        let peer = Peer::Component(UserInfo::new(USER, [MASTERS]));
        let response = pipeline::handle(core.clone(), request, peer).await;
        if !response.status().is_success() {
            let answer = body::read_at_most(response.into_body(), ANSWER_BYTES_MAX).await?;
            return Err(serde_json::from_slice(&answer).unwrap_or_else(Status::internal));
        }
    }
    Ok(())
}

/// Returns when no instance is left.
async fn await_empty(core: &Core, storage: &str, from: store::Revision) {
    let Ok(mut watch) = core.store.watch(Scope::resource(storage), from) else { return };
    while core.store.count(storage) > 0 {
        match watch.next().await {
            Ok(_) => {}
            Err(gone) if gone.is_end() => return,
            Err(_) => match core.store.watch(Scope::resource(storage), core.store.revision()) {
                Ok(fresh) => watch = fresh,
                Err(_) => return,
            },
        }
    }
}

/// Changes a definition in the store itself: what the server says of it is nobody's wish that could be refused.
async fn write(core: &Core, key: &Key, change: impl Fn(&mut Value)) {
    let Some(kind) = api::catalogue::by_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    else {
        return;
    };
    for _ in 0..WRITE_ATTEMPTS {
        let Some(entry) = core.store.get(key) else { return };
        let old = decode(&entry.bytes);
        let mut object = old.clone();
        change(&mut object);
        if object == old {
            return;
        }
        let none_left = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let is_deleted = object["metadata"]["deletionTimestamp"].is_string();
        let next = draft(kind, &object);
        let op = if is_deleted && none_left { Op::Delete(next) } else { Op::Put(next) };
        match core.commit(key, Expected::At(entry.revision), op).await {
            Err(store::CommitError::Conflict { .. }) => {}
            Err(error) => {
                return tracing::error!(%error, definition = %key, "a definition's status was not written");
            }
            Ok(_) => return,
        }
    }
}
