//! What the plugins' tests share: a world of a few objects, and requests in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json};
use auth::{Attributes, Decision, UserInfo};

use crate::chain::Plugin;
use crate::request::{Notes, Operation, Request, World};

/// Objects by resource, namespace and name, and what everybody may do.
#[derive(Default)]
pub struct Objects {
    stored: BTreeMap<(String, String, String), Arc<Value>>,
    /// Verbs and the names they are for, empty for any.
    allowed: Vec<(&'static str, &'static str)>,
}

impl Objects {
    #[must_use]
    pub fn with(mut self, resource: &str, object: Value) -> Self {
        let text = |field| str_at(&object, &["metadata", field]).to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        self.stored.insert(key, Arc::new(object));
        self
    }
}

impl Objects {
    #[must_use]
    pub fn allowing(mut self, verb: &'static str, name: &'static str) -> Self {
        self.allowed.push((verb, name));
        self
    }
}

impl World for Objects {
    fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let fits =
            |(verb, name): &(&str, &str)| *verb == request.verb && (name.is_empty() || *name == request.name);
        if self.allowed.iter().any(fits) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }

    fn resource_of(&self, _group: &str, kind: &str) -> Option<(String, bool)> {
        (kind == "ReplicaSet").then(|| ("replicasets".to_owned(), true))
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.stored.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let wanted = |(key, _): &(&(String, String, String), &Arc<Value>)| {
            key.0 == resource && (namespace.is_empty() || key.1 == namespace)
        };
        self.stored.iter().filter(wanted).map(|(_, object)| object.clone()).collect()
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
    // A few bytes for each request of a test.
    let notes: &'static Notes = Box::leak(Box::default());
    Request {
        user,
        operation,
        group,
        resource,
        subresource,
        namespace,
        name,
        old: None,
        dry_run: false,
        notes,
    }
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
