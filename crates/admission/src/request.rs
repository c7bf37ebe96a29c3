//! What a plugin sees of a request and of the world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::meta::str_at;
use apimachinery::{GroupResource, Status, Value};
use auth::{Attributes, Decision, UserInfo};

use crate::podsecurity::Finding;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// Upstream's spelling in messages.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A request that has passed authorization. Its object is handed over beside it, `Null` for a deletion.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty for cluster-wide resources.
    pub namespace: &'a str,
    /// Empty when the server is to generate the name.
    pub name: &'a str,
    /// The stored object, for updates and deletions.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// Takes what is to be said about a request that goes on.
    pub notes: &'a Notes,
}

/// What plugins say beside yes and no.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Said>);

#[derive(Debug, Default)]
pub struct Said {
    /// For the client.
    pub warnings: Vec<String>,
    /// For the audit log; keys carry the plugin's domain.
    pub annotations: BTreeMap<String, String>,
    /// For the metrics.
    pub findings: Vec<Finding>,
}

impl Notes {
    pub fn warn(&self, text: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).warnings.push(text.into());
    }

    /// The first note under a key stays, as upstream's audit has it.
    pub fn annotate(&self, domain: &str, key: &str, text: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.annotations.entry(format!("{domain}/{key}")).or_insert(text);
    }

    pub fn find(&self, finding: Finding) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).findings.push(finding);
    }

    pub fn take(&self) -> Said {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Request<'_> {
    /// Whether this concerns the resource itself, not one of its subresources.
    pub fn is_for(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource.is_empty()
    }

    /// Whether this creates or changes a pod itself.
    pub fn writes_pod(&self) -> bool {
        self.is_for("", "pods") && matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// The 403 with which a plugin refuses (upstream: admission.NewForbidden). What has no name yet is called by the
    /// prefix from which one is generated.
    pub fn forbidden(&self, object: &Value, reason: impl std::fmt::Display) -> Status {
        let metadata = |field| str_at(object, &["metadata", field]);
        let names = [self.name, metadata("name"), metadata("generateName"), "Unknown"];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Status::forbidden(&GroupResource::new(self.group, self.resource), name, reason)
    }
}

/// The stored objects, read from memory, and the seams through which chance comes in.
pub trait World: Sync {
    /// `resource` is the plural with its group: `namespaces`, `priorityclasses.scheduling.k8s.io`.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource, in all namespaces when `namespace` is empty.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
    /// Five random characters as they end generated names.
    fn random_suffix(&self) -> String;
    /// Whether somebody may do something else than they ask for.
    fn authorize(&self, request: &Attributes<'_>) -> Decision;
    /// The plural of a kind, and whether its objects have a namespace.
    fn resource_of(&self, group: &str, kind: &str) -> Option<(String, bool)>;
}
