//! Keeps the authorizer in step with the store: roles and bindings as they change, and which node needs what.

use std::collections::HashSet;
use std::sync::Arc;

use api::resource;
use apimachinery::{Value, json};
use store::{Entry, EventKind, Gone, Key, Scope, Watch, WatchItem};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;

/// What the authorizer decides from.
const FOLLOWED: [api::Resource; 8] = [
    resource::ROLES,
    resource::CLUSTER_ROLES,
    resource::ROLE_BINDINGS,
    resource::CLUSTER_ROLE_BINDINGS,
    resource::PODS,
    resource::PERSISTENT_VOLUMES,
    resource::VOLUME_ATTACHMENTS,
    resource::RESOURCE_SLICES,
];

/// One resource being followed.
struct Follower {
    core: Arc<Core>,
    resource: api::Resource,
    storage: &'static str,
    /// What the authorizer has been told is there.
    known: HashSet<Key>,
}

/// Tells the authorizer what is there, then starts to tell it what changes.
pub fn start(core: &Arc<Core>, stop: &CancellationToken) -> Result<(), Gone> {
    for resource in FOLLOWED {
        let Some(kind) = api::catalogue::by_resource(resource.group, resource.version, resource.plural)
        else {
            continue;
        };
        let mut follower =
            Follower { core: core.clone(), resource, storage: kind.storage, known: HashSet::new() };
        let watch = follower.list()?;
        let stop = stop.clone();
        tokio::spawn(async move { follower.run(watch, stop).await });
    }
    Ok(())
}

impl Follower {
    /// Takes in everything, forgets what is gone, and goes on from there.
    fn list(&mut self) -> Result<Watch, Gone> {
        let page = self.core.store.range(self.storage, None, None, None, 0, &|_| true)?;
        let found: HashSet<Key> = page.entries.iter().map(|entry| entry.key.clone()).collect();
        for key in self.known.difference(&found) {
            self.core.authorizer.remove(&self.named(key));
        }
        for entry in &page.entries {
            self.apply(entry);
        }
        self.known = found;
        self.core.store.watch(Scope::resource(self.storage), page.revision)
    }

    fn apply(&self, entry: &Entry) {
        // What no node has concerns no node: most pods are written more than once before.
        let is_bound = || entry.meta.field("spec.nodeName").is_some_and(|node| !node.is_empty());
        if self.resource == resource::PODS && !is_bound() {
            return self.core.authorizer.remove(&self.named(&entry.key));
        }
        self.core.authorizer.apply(&conversion::decode(&entry.bytes));
    }

    /// As much of an object as is needed to forget it.
    fn named(&self, key: &Key) -> Value {
        json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(),
               "metadata": {"namespace": &*key.namespace, "name": &*key.name}})
    }

    async fn run(mut self, mut watch: Watch, stop: CancellationToken) {
        loop {
            let item = tokio::select! {
                () = stop.cancelled() => return,
                item = watch.next() => item,
            };
            match item {
                Ok(WatchItem::Progress(_)) => {}
                Ok(WatchItem::Event { kind: EventKind::Deleted, entry, .. }) => {
                    self.known.remove(&entry.key);
                    self.core.authorizer.remove(&self.named(&entry.key));
                }
                Ok(WatchItem::Event { entry, .. }) => {
                    self.known.insert(entry.key.clone());
                    self.apply(&entry);
                }
                Err(gone) if gone.is_end() => return,
                Err(_) => match self.list() {
                    Ok(fresh) => watch = fresh,
                    Err(gone) => {
                        tracing::error!(%gone, resource = self.storage, "the authorizer cannot follow the store");
                        return;
                    }
                },
            }
        }
    }
}
