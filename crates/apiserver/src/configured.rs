//! Objects that configure the server, read from the store when they are needed and kept ready for as long as each
//! stays as it is. There is nothing to keep in step, so a configuration counts from its commit on.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Value;
use parking_lot::Mutex;
use store::{Entry, Key, Revision, Store};

use crate::conversion;

/// The objects of one resource, as `read` makes them ready.
pub struct Configured<T> {
    resource: &'static str,
    read: fn(&Value) -> T,
    kept: Mutex<HashMap<Key, (Revision, Arc<T>)>>,
}

impl<T> Configured<T> {
    pub fn new(resource: &'static str, read: fn(&Value) -> T) -> Configured<T> {
        Configured { resource, read, kept: Mutex::default() }
    }

    /// By name.
    pub fn all(&self, store: &Store) -> Vec<Arc<T>> {
        let page = store.range(self.resource, None, None, None, 0, &|_| true);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        if entries.is_empty() {
            return Vec::new();
        }
        let mut kept = self.kept.lock();
        if kept.len() > entries.len() {
            // Some object is gone.
            kept.retain(|key, _| entries.iter().any(|entry| entry.key == *key));
        }
        entries.iter().map(|entry| self.ready(&mut kept, entry)).collect()
    }

    fn ready(&self, kept: &mut HashMap<Key, (Revision, Arc<T>)>, entry: &Entry) -> Arc<T> {
        if let Some((revision, ready)) = kept.get(&entry.key)
            && *revision == entry.revision
        {
            return ready.clone();
        }
        let ready = Arc::new((self.read)(&conversion::decode(&entry.bytes)));
        kept.insert(entry.key.clone(), (entry.revision, ready.clone()));
        ready
    }
}
