//! Shared informers: one list and one watch per resource and process, cached as typed views, announced as deltas.

mod cache;
mod named;
mod reflector;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use api::resource::Resource;
use api::view::{Object, View};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use cache::{Delta, IndexFn};
pub use named::NamedInformers;

use crate::request::Client;
use cache::Cache;

/// A shared, always current view of one resource's objects. Cloning shares it.
pub struct Informer<V> {
    cache: Arc<Cache<V>>,
}

impl<V> Clone for Informer<V> {
    fn clone(&self) -> Self {
        Informer { cache: self.cache.clone() }
    }
}

impl<V: Object> Informer<V> {
    /// An informer fed by hand, for tests of what listens to one.
    pub fn detached() -> (Self, Feeder<V>) {
        let cache = Arc::new(Cache::new());
        cache.replace(Vec::new());
        (Informer { cache: cache.clone() }, Feeder { cache })
    }

    /// Follows one object until `stop`; shared with nobody. A node may watch single objects that it may not list.
    pub fn of_one(
        client: Client,
        resource: Resource,
        namespace: &str,
        name: &str,
        stop: CancellationToken,
    ) -> Self {
        let cache = Arc::new(Cache::new());
        let selector = format!("metadata.name={name}");
        let reflector =
            reflector::Reflector::new(client, resource, &selector, cache.clone()).within(namespace);
        tokio::spawn(stop.run_until_cancelled_owned(reflector.run()));
        Informer { cache }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.cache.get(namespace, name)
    }

    /// Everything, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<V>> {
        self.cache.list()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<V>> {
        self.cache.list_namespace(namespace)
    }

    /// Adds an index, once per name; `keys` says under which values an object is found.
    pub fn add_index(&self, name: &'static str, keys: IndexFn<V>) {
        self.cache.add_index(name, keys);
    }

    /// What stands under `value` in an index that was added before.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<V>> {
        self.cache.by_index(name, value)
    }

    /// Everything cached now as `Added`, then every change, without gap or overlap.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta<V>> {
        self.cache.subscribe()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        self.cache.synced().await;
    }
}

/// Puts objects into a detached informer.
pub struct Feeder<V> {
    cache: Arc<Cache<V>>,
}

impl<V: Object> Feeder<V> {
    pub fn apply(&self, object: V) {
        self.cache.apply(object);
    }

    pub fn remove(&self, object: V) {
        self.cache.remove(object);
    }
}

type Key = (TypeId, Resource, String);

/// An informer's cache, whatever it holds, and what ends its reflector.
struct Made {
    cache: Arc<dyn Any + Send + Sync>,
    stop: CancellationToken,
}

/// The informers of one process, made when first asked for.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    stop: CancellationToken,
    made: Arc<Mutex<HashMap<Key, Made>>>,
}

impl Informers {
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Informers { client, stop, made: Arc::default() }
    }

    /// All objects of the view's kind.
    pub fn get<V: View>(&self) -> Informer<V> {
        self.get_selected(V::RESOURCE, "")
    }

    /// Objects of any resource, restricted by a field selector such as `spec.nodeName=n`; empty means all.
    pub fn get_selected<V: Object>(&self, resource: Resource, field_selector: &str) -> Informer<V> {
        let key = (TypeId::of::<V>(), resource, field_selector.to_owned());
        let mut made = self.made.lock();
        let made = made.entry(key).or_insert_with(|| {
            let cache = Arc::new(Cache::<V>::new());
            let stop = self.stop.child_token();
            let reflector =
                reflector::Reflector::new(self.client.clone(), resource, field_selector, cache.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(reflector.run()));
            Made { cache, stop }
        });
        let cache = made.cache.clone().downcast::<Cache<V>>().expect("the key holds the type");
        Informer { cache }
    }

    /// Ends the informers of a resource that the server no longer has. Whoever holds one keeps what it last knew.
    pub fn forget(&self, resource: Resource) {
        let gone = |(_, of, _): &Key| *of == resource;
        self.made.lock().retain(|key, made| {
            if gone(key) {
                made.stop.cancel();
            }
            !gone(key)
        });
    }
}
