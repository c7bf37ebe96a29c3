//! What a controller decides: writes in order, each guarded by what it was decided on, and when to look again.

use api::resource::Resource;
use api::view::core::ObjectReference;
use apimachinery::meta::ObjectMeta;
use apimachinery::{Value, json};
use client::event::EventType;
use client::{DeleteOptions, PatchType};
use jiff::Timestamp;

/// Stands in a note for the name of the object that was written.
pub const NAME: &str = "{name}";
/// Stands in a note for the text of the error.
pub const ERROR: &str = "{error}";

/// An empty plan means: all is as it should be.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Carried out in order; after a failure the rest is left to the next reconciliation.
    pub steps: Vec<Step>,
    pub events: Vec<Event>,
    /// When the decision would differ although nothing changed.
    pub requeue_at: Option<Timestamp>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.events.is_empty()
    }

    pub fn act(&mut self, action: Action) {
        self.steps.push(Step { action, done: None, failed: None });
    }

    /// Requeues at the earliest of all times asked for.
    pub fn requeue(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// One write and what to tell of it.
#[derive(Clone, Debug)]
pub struct Step {
    pub action: Action,
    pub done: Option<Event>,
    pub failed: Option<Event>,
}

/// Something to tell people about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub regarding: ObjectReference,
    pub kind: EventType,
    pub reason: &'static str,
    /// May hold `NAME` or `ERROR` where it tells of a step.
    pub message: String,
}

impl Event {
    pub fn normal(regarding: ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Event { regarding, kind: EventType::Normal, reason, message: message.into() }
    }

    pub fn warning(regarding: ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Event { regarding, kind: EventType::Warning, reason, message: message.into() }
    }
}

/// A write. Preconditions travel inside: `metadata.resourceVersion` of an update or patch, those of the delete options.
#[derive(Clone, Debug)]
pub enum Action {
    Create {
        resource: Resource,
        namespace: String,
        object: Value,
    },
    Update {
        resource: Resource,
        namespace: String,
        name: String,
        subresource: Option<&'static str>,
        object: Value,
    },
    Patch {
        resource: Resource,
        namespace: String,
        name: String,
        subresource: Option<&'static str>,
        kind: PatchType,
        patch: Value,
    },
    Delete {
        resource: Resource,
        namespace: String,
        name: String,
        options: DeleteOptions,
    },
    DeleteCollection {
        resource: Resource,
        namespace: String,
    },
}

impl Action {
    pub fn create(resource: Resource, namespace: &str, object: Value) -> Self {
        Action::Create { resource, namespace: namespace.to_owned(), object }
    }

    /// Replaces the whole object, whose metadata holds the version it was decided on.
    pub fn update(resource: Resource, meta: &ObjectMeta, object: Value) -> Self {
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        Action::Update { resource, namespace, name, subresource: None, object }
    }

    /// Replaces the status, and of the metadata what the kind lets a status update change.
    pub fn update_status(resource: Resource, meta: &ObjectMeta, status: Value) -> Self {
        let object = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": meta, "status": status,
        });
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        Action::Update { resource, namespace, name, subresource: Some("status"), object }
    }

    /// A merge patch that only applies to the version it was decided on.
    pub fn patch(resource: Resource, meta: &ObjectMeta, mut patch: Value) -> Self {
        patch["metadata"]["uid"] = meta.uid.as_str().into();
        patch["metadata"]["resourceVersion"] = meta.resource_version.as_str().into();
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        Action::Patch { resource, namespace, name, subresource: None, kind: PatchType::Merge, patch }
    }

    /// Deletes this very object, not one that came after it under the same name.
    pub fn delete(resource: Resource, meta: &ObjectMeta) -> Self {
        Action::delete_with(resource, meta, DeleteOptions::default())
    }

    pub fn delete_with(resource: Resource, meta: &ObjectMeta, options: DeleteOptions) -> Self {
        let options = DeleteOptions { uid: Some(meta.uid.clone()), ..options };
        Action::Delete { resource, namespace: meta.namespace.clone(), name: meta.name.clone(), options }
    }

    pub fn resource(&self) -> Resource {
        match self {
            Action::Create { resource, .. }
            | Action::Update { resource, .. }
            | Action::Patch { resource, .. }
            | Action::Delete { resource, .. }
            | Action::DeleteCollection { resource, .. } => *resource,
        }
    }

    #[cfg(test)]
    pub fn namespace(&self) -> &str {
        match self {
            Action::Create { namespace, .. }
            | Action::Update { namespace, .. }
            | Action::Patch { namespace, .. }
            | Action::Delete { namespace, .. }
            | Action::DeleteCollection { namespace, .. } => namespace,
        }
    }

    /// Whether several of this sort may be under way at once.
    pub fn is_parallel(&self) -> bool {
        matches!(self, Action::Create { .. } | Action::Delete { .. } | Action::DeleteCollection { .. })
    }
}

/// How events and owners refer to an object.
pub fn reference(resource: Resource, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        kind: resource.kind.to_owned(),
        api_version: resource.api_version(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: String::new(),
    }
}
