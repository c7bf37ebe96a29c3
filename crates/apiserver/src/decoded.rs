//! Objects that request after request asks about - its namespace, its service account - decoded once.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Value;
use parking_lot::Mutex;
use store::{Entry, Key, Revision};

use crate::conversion;

/// More objects than this are not asked about at one time; each takes some ten times its encoding.
const OBJECTS_MAX: usize = 256;

/// The latest asked-for state of each object. A state that the store no longer holds is never given out, since it is
/// found by the entry that the store holds now.
#[derive(Default)]
pub struct Decoded(Mutex<HashMap<Key, (Revision, Arc<Value>)>>);

impl Decoded {
    pub fn get(&self, entry: &Entry) -> Arc<Value> {
        if let Some((revision, object)) = self.0.lock().get(&entry.key)
            && *revision == entry.revision
        {
            return object.clone();
        }
        let object = Arc::new(conversion::decode(&entry.bytes));
        let mut objects = self.0.lock();
        if objects.len() >= OBJECTS_MAX {
            objects.clear();
        }
        objects.insert(entry.key.clone(), (entry.revision, object.clone()));
        object
    }
}

#[cfg(test)]
mod tests {
    use store::{Beside, Meta};

    use super::*;

    fn entry(name: &str, revision: u64, json: &'static str) -> Entry {
        Entry {
            key: Key::cluster("namespaces", name),
            revision: Revision(revision),
            created: Revision(1),
            bytes: json.into(),
            meta: Meta::default(),
            beside: Beside::default(),
        }
    }

    #[test]
    fn an_object_is_decoded_again_only_when_it_has_changed() {
        let decoded = Decoded::default();
        let first = decoded.get(&entry("a", 1, "{\"n\":1}"));
        assert!(Arc::ptr_eq(&first, &decoded.get(&entry("a", 1, "{\"n\":1}"))));
        assert_eq!(decoded.get(&entry("a", 2, "{\"n\":2}"))["n"], 2);
    }

    #[test]
    fn the_number_of_objects_is_bounded() {
        let decoded = Decoded::default();
        for n in 0..=OBJECTS_MAX {
            decoded.get(&entry(&n.to_string(), 1, "{}"));
        }
        assert!(decoded.0.lock().len() <= OBJECTS_MAX);
    }
}
