//! What a plugin sees of a request and of the world.

use std::sync::Arc;

use apimachinery::{GroupResource, Status, Value};
use auth::UserInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
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
}

impl Request<'_> {
    /// Whether this concerns the resource itself, not one of its subresources.
    pub fn is_for(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource.is_empty()
    }

    /// The 403 with which a plugin refuses (upstream: admission.NewForbidden).
    pub fn forbidden(&self, reason: impl std::fmt::Display) -> Status {
        let resource = GroupResource::new(self.group, self.resource);
        let name = if self.name.is_empty() { "Unknown" } else { self.name };
        let named = !(self.name.is_empty() && self.operation != Operation::Create);
        Status::forbidden(&resource, if named { name } else { "" }, reason)
    }
}

/// The stored objects, read from memory, and the seams through which chance comes in.
pub trait World {
    /// `resource` is the plural with its group: `namespaces`, `priorityclasses.scheduling.k8s.io`.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource, in all namespaces when `namespace` is empty.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
    /// Five random characters as they end generated names.
    fn random_suffix(&self) -> String;
}
