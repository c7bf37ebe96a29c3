//! The webhooks of all configurations, read from the store when they are needed and kept for as long as their
//! configuration stays as it is. There is nothing to keep in step, so a configuration counts from its commit on.

use std::collections::HashMap;
use std::sync::Arc;

use admission::webhook::Webhook;
use parking_lot::Mutex;
use store::{Entry, Key, Revision, Store};

use crate::conversion;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

type Kept = HashMap<Key, (Revision, Arc<Vec<Webhook>>)>;

#[derive(Default)]
pub struct Source(Mutex<Kept>);

impl Source {
    /// In the order in which they are asked: by configuration name.
    pub fn mutating(&self, store: &Store) -> Vec<Arc<Vec<Webhook>>> {
        self.of(store, MUTATING)
    }

    pub fn validating(&self, store: &Store) -> Vec<Arc<Vec<Webhook>>> {
        self.of(store, VALIDATING)
    }

    fn of(&self, store: &Store, resource: &str) -> Vec<Arc<Vec<Webhook>>> {
        let page = store.range(resource, None, None, None, 0, &|_| true);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        if entries.is_empty() {
            return Vec::new();
        }
        let mut kept = self.0.lock();
        if kept.keys().filter(|key| &*key.resource == resource).count() > entries.len() {
            // Some configuration is gone.
            kept.retain(|key, _| entries.iter().any(|entry| entry.key == *key) || &*key.resource != resource);
        }
        entries.iter().map(|entry| hooks(&mut kept, entry)).collect()
    }
}

fn hooks(kept: &mut Kept, entry: &Entry) -> Arc<Vec<Webhook>> {
    if let Some((revision, hooks)) = kept.get(&entry.key)
        && *revision == entry.revision
    {
        return hooks.clone();
    }
    let hooks = Arc::new(Webhook::of_configuration(&conversion::decode(&entry.bytes)));
    kept.insert(entry.key.clone(), (entry.revision, hooks.clone()));
    hooks
}
