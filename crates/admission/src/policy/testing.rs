//! What the tests of both kinds of policies share: Deployments that are created in a world of a few objects.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::{Status, Value, json};

use super::{Binding, Check, Kinds, Meter, Review, Scope};
use crate::request::{Notes, Operation};
use crate::rules::Attributes;
use crate::rules::tests::attributes;
use crate::testing::Objects;

/// Objects are the same in all versions, and a configuration replaces the fields that it names.
pub struct Plain;

impl Kinds for Plain {
    fn params_of(&self, kind: &GroupVersionKind) -> Option<Scope> {
        (kind.kind == "ConfigMap").then(|| Scope { resource: "configmaps".to_owned(), namespaced: true })
    }

    fn param(&self, _: &GroupVersionKind, object: Arc<Value>) -> Arc<Value> {
        object
    }

    fn shown(&self, _: &GroupVersionKind, object: &Value) -> Result<Value, Status> {
        Ok(object.clone())
    }

    fn taken(&self, _: &GroupVersionKind, changed: Value, _: &Value) -> Result<Value, Status> {
        Ok(changed)
    }

    fn merged(&self, _: &GroupVersionKind, object: &Value, configuration: &Value) -> Result<Value, String> {
        let mut merged = object.clone();
        apimachinery::patch::merge_patch(&mut merged, configuration.clone());
        Ok(merged)
    }
}

/// Keeps what it is told, as policy, binding, error and action; each look at the clock takes a second.
#[derive(Default)]
pub struct Checks {
    looks: Cell<u64>,
    pub told: RefCell<Vec<String>>,
}

impl Meter for Checks {
    fn elapsed(&self) -> Duration {
        self.looks.set(self.looks.get() + 1);
        Duration::from_secs(self.looks.get())
    }

    fn checked(&self, check: &Check<'_>) {
        let Check { policy, binding, error_type, action, took } = check;
        let action = action.unwrap_or("-");
        self.told.borrow_mut().push(format!("{policy} {binding} {error_type} {action} {took:?}"));
    }
}

/// A Deployment is created in a namespace with parameters.
pub struct Scene {
    request: Attributes,
    world: Objects,
    pub notes: Notes,
    pub checks: Checks,
}

impl Scene {
    pub fn new() -> Scene {
        let map = |name: &str, max: i64| json!({"metadata": {"name": name, "namespace": "ns", "labels": {"of": "limits"}}, "data": {"max": max}});
        Scene {
            request: attributes(Operation::Create, "deployments", "ns"),
            world: Objects::default()
                .with(
                    "namespaces",
                    json!({"metadata": {"name": "ns", "labels": {"env": "test"}, "managedFields": []}}),
                )
                .with("configmaps", map("low", 1))
                .with("configmaps", map("high", 9)),
            notes: Notes::default(),
            checks: Checks::default(),
        }
    }

    pub fn review(&self) -> Review<'_> {
        Review {
            request: &self.request,
            old: None,
            world: &self.world,
            kinds: &Plain,
            notes: &self.notes,
            meter: &self.checks,
        }
    }
}

/// Of `spec`, with the rules that Deployments meet.
pub fn policy(spec: Value) -> Value {
    let mut whole = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
        "apiVersions": ["v1"], "resources": ["deployments"]}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": {"name": "p"}, "spec": whole})
}

pub fn binding(spec: Value) -> Arc<Binding> {
    let mut whole = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    Arc::new(Binding::read(&json!({"metadata": {"name": "b"}, "spec": whole})))
}
