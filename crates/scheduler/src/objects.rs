//! Objects of one kind by name, kept up to date from changes.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::Object;
use apimachinery::meta::NamespacedName;
use client::Delta;

pub type Objects<V> = HashMap<NamespacedName, Arc<V>>;

/// Takes a change and says whose it is.
pub fn put<V: Object>(objects: &mut Objects<V>, delta: &Delta<V>) -> NamespacedName {
    let object = delta.object();
    let key = object.meta().namespaced_name();
    match delta {
        Delta::Deleted(_) => objects.remove(&key),
        Delta::Added(_) | Delta::Updated { .. } => objects.insert(key.clone(), object.clone()),
    };
    key
}
