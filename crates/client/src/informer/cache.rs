//! What an informer holds: objects by name, secondary indexes, and those who listen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use api::view::Object;
use apimachinery::meta::NamespacedName;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// A change of one object.
#[derive(Debug)]
pub enum Delta<V> {
    Added(Arc<V>),
    Updated { old: Arc<V>, new: Arc<V> },
    Deleted(Arc<V>),
}

impl<V> Clone for Delta<V> {
    fn clone(&self) -> Self {
        match self {
            Delta::Added(object) => Delta::Added(object.clone()),
            Delta::Updated { old, new } => Delta::Updated { old: old.clone(), new: new.clone() },
            Delta::Deleted(object) => Delta::Deleted(object.clone()),
        }
    }
}

impl<V> Delta<V> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> &Arc<V> {
        match self {
            Delta::Added(object) | Delta::Deleted(object) => object,
            Delta::Updated { new, .. } => new,
        }
    }
}

/// The values under which an index finds an object.
pub type IndexFn<V> = fn(&V) -> Vec<String>;

struct Index<V> {
    keys: IndexFn<V>,
    found: HashMap<String, BTreeSet<NamespacedName>>,
}

impl<V> Index<V> {
    fn insert(&mut self, name: &NamespacedName, object: &V) {
        for value in (self.keys)(object) {
            self.found.entry(value).or_default().insert(name.clone());
        }
    }

    fn remove(&mut self, name: &NamespacedName, object: &V) {
        for value in (self.keys)(object) {
            if let Some(names) = self.found.get_mut(&value) {
                names.remove(name);
                if names.is_empty() {
                    self.found.remove(&value);
                }
            }
        }
    }
}

struct State<V> {
    objects: BTreeMap<NamespacedName, Arc<V>>,
    indexes: HashMap<&'static str, Index<V>>,
    /// A listener whose receiver is gone is dropped at the next change.
    listeners: Vec<mpsc::UnboundedSender<Delta<V>>>,
}

pub struct Cache<V> {
    state: Mutex<State<V>>,
    synced: watch::Sender<bool>,
}

impl<V: Object> Cache<V> {
    pub fn new() -> Self {
        Cache {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                indexes: HashMap::new(),
                listeners: Vec::new(),
            }),
            synced: watch::Sender::new(false),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.state.lock().objects.get(&NamespacedName::new(namespace, name)).cloned()
    }

    pub fn list(&self) -> Vec<Arc<V>> {
        self.state.lock().objects.values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<V>> {
        let first = NamespacedName::new(namespace, "");
        let state = self.state.lock();
        state
            .objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(name, _)| name.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn add_index(&self, name: &'static str, keys: IndexFn<V>) {
        let state = &mut *self.state.lock();
        let objects = &state.objects;
        state.indexes.entry(name).or_insert_with(|| {
            let mut index = Index { keys, found: HashMap::new() };
            for (name, object) in objects {
                index.insert(name, object);
            }
            index
        });
    }

    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<V>> {
        let state = self.state.lock();
        let index = state.indexes.get(name).expect("the index was added before it is asked");
        index
            .found
            .get(value)
            .into_iter()
            .flatten()
            .filter_map(|name| state.objects.get(name).cloned())
            .collect()
    }

    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta<V>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for object in state.objects.values() {
            sender.send(Delta::Added(object.clone())).expect("the receiver is alive: it is returned below");
        }
        state.listeners.push(sender);
        receiver
    }

    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        synced.wait_for(|synced| *synced).await.expect("the sender lives as long as the cache");
    }

    /// Takes a whole list: what is missing from it is gone.
    pub fn replace(&self, objects: Vec<V>) {
        {
            let mut state = self.state.lock();
            let names: BTreeSet<NamespacedName> =
                objects.iter().map(|o| o.meta().namespaced_name()).collect();
            let gone: Vec<NamespacedName> =
                state.objects.keys().filter(|n| !names.contains(n)).cloned().collect();
            for name in gone {
                state.remove(&name, None);
            }
            for object in objects {
                state.apply(object);
            }
        }
        self.synced.send_replace(true);
    }

    pub fn apply(&self, object: V) {
        self.state.lock().apply(object);
    }

    /// Drops an object whose last state cannot be read.
    pub fn forget(&self, name: &NamespacedName) {
        self.state.lock().remove(name, None);
    }

    /// `last` is the object's final state; it is what listeners see.
    pub fn remove(&self, last: V) {
        let name = last.meta().namespaced_name();
        self.state.lock().remove(&name, Some(last));
    }
}

impl<V: Object> State<V> {
    fn apply(&mut self, object: V) {
        let name = object.meta().namespaced_name();
        let new = Arc::new(object);
        let old = self.objects.insert(name.clone(), new.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&name, old);
            }
            index.insert(&name, &new);
        }
        match old {
            Some(old) if old.meta().resource_version == new.meta().resource_version => {}
            // Same name, other object: its deletion was missed.
            Some(old) if old.meta().uid != new.meta().uid => {
                self.announce(&Delta::Deleted(old));
                self.announce(&Delta::Added(new));
            }
            Some(old) => self.announce(&Delta::Updated { old, new }),
            None => self.announce(&Delta::Added(new)),
        }
    }

    fn remove(&mut self, name: &NamespacedName, last: Option<V>) {
        let Some(old) = self.objects.remove(name) else { return };
        for index in self.indexes.values_mut() {
            index.remove(name, &old);
        }
        self.announce(&Delta::Deleted(last.map_or(old, Arc::new)));
    }

    fn announce(&mut self, delta: &Delta<V>) {
        self.listeners.retain(|listener| listener.send(delta.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use api::view::PartialObject;
    use apimachinery::meta::ObjectMeta;

    use super::*;

    fn object(namespace: &str, name: &str, uid: &str, version: &str) -> PartialObject {
        let (name, namespace, uid) = (name.to_owned(), namespace.to_owned(), uid.to_owned());
        PartialObject {
            metadata: ObjectMeta {
                name,
                namespace,
                uid,
                resource_version: version.into(),
                ..Default::default()
            },
        }
    }

    fn seen(receiver: &mut mpsc::UnboundedReceiver<Delta<PartialObject>>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|delta| {
                let kind = match delta {
                    Delta::Added(_) => '+',
                    Delta::Updated { .. } => '~',
                    Delta::Deleted(_) => '-',
                };
                format!("{kind}{}", delta.object().metadata.namespaced_name())
            })
            .collect()
    }

    #[test]
    fn a_subscriber_sees_what_is_there_and_then_every_change() {
        let cache = Cache::new();
        cache.apply(object("a", "x", "1", "1"));
        let mut receiver = cache.subscribe();
        cache.apply(object("a", "x", "1", "1"));
        cache.apply(object("a", "x", "1", "2"));
        cache.apply(object("a", "x", "2", "3"));
        cache.remove(object("a", "x", "2", "4"));
        cache.remove(object("a", "x", "2", "4"));
        assert_eq!(seen(&mut receiver), ["+a/x", "~a/x", "-a/x", "+a/x", "-a/x"]);
    }

    #[test]
    fn a_new_list_drops_what_it_lacks() {
        let cache = Cache::new();
        cache.apply(object("a", "x", "1", "1"));
        cache.apply(object("b", "y", "2", "2"));
        let mut receiver = cache.subscribe();
        cache.replace(vec![object("b", "y", "2", "2"), object("b", "z", "3", "3")]);
        assert_eq!(seen(&mut receiver), ["+a/x", "+b/y", "-a/x", "+b/z"]);
        assert_eq!(cache.list_namespace("b").len(), 2);
        assert!(cache.list_namespace("a").is_empty());
    }

    #[test]
    fn an_index_follows_its_objects() {
        let cache = Cache::new();
        cache.apply(object("a", "x", "1", "1"));
        cache.add_index("uid", |o: &PartialObject| vec![o.metadata.uid.clone()]);
        cache.apply(object("a", "x", "2", "2"));
        assert!(cache.by_index("uid", "1").is_empty());
        assert_eq!(cache.by_index("uid", "2").len(), 1);
    }
}
