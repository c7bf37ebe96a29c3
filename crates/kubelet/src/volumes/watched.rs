//! Watches the objects that pods of this node refer to, one watch per object however many pods share it
//! (follows upstream's `WatchBasedManager`). It tells that an object changed; whoever hears it reads the object, so no
//! secret is kept in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use api::resource::{CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, Resource, SECRETS};
use api::view::Object;
use api::view::core::{Node, Pod};
use apimachinery::meta::ObjectMeta;
use client::{CancellationToken, Client, Delta, Informer};
use serde::Deserialize;
use tokio::sync::watch;

/// An object's plural and name; its namespace is the pod's.
type Reference = (&'static str, String);

/// As much of an object as its watch must know.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Changed {
    metadata: ObjectMeta,
    /// It cannot change any more: the watch ends (upstream: `objectCacheItem.setImmutable`).
    immutable: Option<bool>,
}

impl Object for Changed {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The watch of one object; ends with its last user.
struct Watch {
    /// Counts the changes.
    changes: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

type Key = (&'static str, String, String);

/// All watches of the node.
pub struct Watched {
    client: Client,
    made: Mutex<HashMap<Key, Weak<Watch>>>,
    /// Counts the times that the volumes attached to the node changed.
    attached: watch::Sender<u64>,
}

impl Watched {
    pub fn new(client: Client) -> Self {
        Watched { client, made: Mutex::default(), attached: watch::Sender::new(0) }
    }

    /// What the pod refers to, from now on.
    pub fn of(&self, pod: &Pod) -> Subscription {
        let namespace = &pod.metadata.namespace;
        let watches = references(pod)
            .into_iter()
            .map(|(plural, name)| self.watch((plural, namespace.clone(), name)))
            .map(|watch| (watch.changes.subscribe(), watch))
            .collect();
        let uses_claims = pod.spec.volumes.iter().any(|v| v.claim_name(&pod.metadata.name).is_some());
        Subscription { watches, attached: uses_claims.then(|| self.attached.subscribe()) }
    }

    /// Tells pods with claims of volumes that come to the node, for ever.
    pub async fn follow_attachments(&self, nodes: Informer<Node>) {
        let mut deltas = nodes.subscribe();
        drop(nodes);
        while let Some(delta) = deltas.recv().await {
            let is_change = match &delta {
                Delta::Updated { old, new } => old.status.volumes_attached != new.status.volumes_attached,
                Delta::Added(_) | Delta::Deleted(_) => false,
            };
            if is_change {
                self.attached.send_modify(|count| *count += 1);
            }
        }
    }

    fn watch(&self, key: Key) -> Arc<Watch> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = made.get(&key).and_then(Weak::upgrade) {
            return watch;
        }
        made.retain(|_, watch| watch.strong_count() > 0);
        let resource = resource(key.0);
        let stop = CancellationToken::new();
        let informer = Informer::of_one(self.client.clone(), resource, &key.1, &key.2, stop.child_token());
        let watch = Arc::new(Watch { changes: watch::Sender::new(0), stop });
        tokio::spawn(follow(informer, Arc::downgrade(&watch)));
        made.insert(key, Arc::downgrade(&watch));
        watch
    }
}

fn resource(plural: &str) -> Resource {
    [CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS]
        .into_iter()
        .find(|resource| resource.plural == plural)
        .expect("references name these only")
}

async fn follow(informer: Informer<Changed>, watch: Weak<Watch>) {
    let mut deltas = informer.subscribe();
    // The cache, whose end closes the channel, must live no longer than the watch that feeds it.
    drop(informer);
    while let Some(delta) = deltas.recv().await {
        let Some(watch) = watch.upgrade() else { return };
        watch.changes.send_modify(|count| *count += 1);
        if delta.object().immutable == Some(true) {
            watch.stop.cancel();
            return;
        }
    }
}

/// A pod's watches, kept as long as this is.
pub struct Subscription {
    watches: Vec<(watch::Receiver<u64>, Arc<Watch>)>,
    /// Of the node's volumes; its sender lives as long as the node's kubelet.
    attached: Option<watch::Receiver<u64>>,
}

impl Subscription {
    /// Waits for the next change of any of the objects.
    pub async fn changed(&mut self) {
        let objects = self.watches.iter_mut().map(|(changes, _)| changes);
        let changes: Vec<_> =
            objects.chain(&mut self.attached).map(|changes| Box::pin(changes.changed())).collect();
        if changes.is_empty() {
            return std::future::pending().await;
        }
        // The senders are kept beside their receivers: none of these can fail.
        drop(futures_util::future::select_all(changes).await);
    }
}

/// The objects whose change concerns the pod's volumes, or lets a container start that waits for one.
fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let mut put = |resource: Resource, name: &str| {
        if !name.is_empty() {
            found.insert((resource.plural, name.to_owned()));
        }
    };
    for volume in &pod.spec.volumes {
        if let Some(source) = &volume.config_map {
            put(CONFIG_MAPS, &source.name);
        }
        if let Some(source) = &volume.secret {
            put(SECRETS, &source.secret_name);
        }
        for projection in volume.projected.iter().flat_map(|source| &source.sources) {
            if let Some(source) = &projection.config_map {
                put(CONFIG_MAPS, &source.name);
            }
            if let Some(source) = &projection.secret {
                put(SECRETS, &source.name);
            }
        }
        if let Some(claim) = volume.claim_name(&pod.metadata.name) {
            put(PERSISTENT_VOLUME_CLAIMS, &claim);
        }
    }
    for (container, _) in crate::pod::all_containers(pod) {
        let (config_maps, secrets) = crate::env::referenced(container);
        config_maps.iter().for_each(|name| put(CONFIG_MAPS, name));
        secrets.iter().for_each(|name| put(SECRETS, name));
    }
    found
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn every_object_that_a_pod_names_is_watched_once() {
        let pod: Pod = apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {
            "volumes": [{"name": "a", "configMap": {"name": "c"}}, {"name": "b", "secret": {"secretName": "s"}},
                {"name": "e", "ephemeral": {}}, {"name": "v", "persistentVolumeClaim": {"claimName": "own"}},
                {"name": "x", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "t"}}]}}],
            "containers": [{"name": "m", "envFrom": [{"configMapRef": {"name": "f"}}]}]}}))
        .expect("a pod");
        let expect = [
            ("configmaps", "c"),
            ("configmaps", "f"),
            ("persistentvolumeclaims", "own"),
            ("persistentvolumeclaims", "p-e"),
            ("secrets", "s"),
            ("secrets", "t"),
        ];
        assert_eq!(references(&pod), expect.map(|(plural, name)| (plural, name.to_owned())).into());
    }
}
