//! What the plugins' tests share: a world of a few objects, and requests in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json};
use auth::UserInfo;

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

/// Objects by resource, namespace and name.
#[derive(Default)]
pub struct Objects(BTreeMap<(String, String, String), Arc<Value>>);

impl Objects {
    #[must_use]
    pub fn with(mut self, resource: &str, object: Value) -> Self {
        let text = |field| str_at(&object, &["metadata", field]).to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        self.0.insert(key, Arc::new(object));
        self
    }
}

impl World for Objects {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let wanted = |(key, _): &(&(String, String, String), &Arc<Value>)| {
            key.0 == resource && (namespace.is_empty() || key.1 == namespace)
        };
        self.0.iter().filter(wanted).map(|(_, object)| object.clone()).collect()
    }

    fn random_suffix(&self) -> String {
        "abcde".to_owned()
    }
}

/// `resource[.group][/subresource]` in namespace `ns`, by an ordinary user.
pub fn request<'a>(
    user: &'a UserInfo,
    operation: Operation,
    resource: &'a str,
    name: &'a str,
) -> Request<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let namespace = if matches!(resource, "nodes" | "namespaces") { "" } else { "ns" };
    Request { user, operation, group, resource, subresource, namespace, name, old: None }
}

/// The object as the plugin lets it pass, or why not.
pub fn run(
    plugin: &dyn Plugin,
    request: &Request<'_>,
    mut object: Value,
    world: &Objects,
) -> Result<Value, String> {
    let message = |status: Status| status.message;
    plugin.admit(request, &mut object, world).map_err(message)?;
    plugin.validate(request, &object, world).map_err(message)?;
    Ok(object)
}

pub fn pod(spec: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
}
