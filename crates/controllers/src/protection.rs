//! Finalizers that keep an object while it is in use (follows upstream's `protectionutil`).

use api::resource::Resource;
use apimachinery::meta::{ObjectMeta, str_at};
use apimachinery::{Value, json};
use client::Client;

use crate::controller::Key;
use crate::plan::{Action, Plan};

/// Whether the finalizer is all that is to be decided about: held by what is being deleted, or missing elsewhere.
pub fn is_due(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.is_being_deleted() == meta.finalizers.iter().any(|held| held == finalizer)
}

/// The object as the server has it now; it is to be written back whole.
pub async fn read(client: &Client, resource: Resource, key: &Key) -> client::error::Result<Option<Value>> {
    match client.get(resource, &key.namespace, &key.name).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn is_being_deleted(object: &Value) -> bool {
    !str_at(object, &["metadata", "deletionTimestamp"]).is_empty()
}

/// Takes the finalizer from an object that is being deleted and no longer used; gives it to one that lacks it.
pub fn reconcile(resource: Resource, object: &Value, finalizer: &str, is_used: bool) -> Plan {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let is_held = finalizers.iter().any(|held| held == finalizer);
    match (is_being_deleted(object), is_held) {
        (true, true) if !is_used => finalizers.retain(|held| held != finalizer),
        (false, false) => finalizers.push(finalizer.into()),
        _ => return Plan::default(),
    }
    let mut object = object.clone();
    object["metadata"]["finalizers"] = json!(finalizers);
    let mut plan = Plan::default();
    plan.act(Action::Update {
        resource,
        namespace: str_at(&object, &["metadata", "namespace"]).to_owned(),
        name: str_at(&object, &["metadata", "name"]).to_owned(),
        subresource: None,
        object,
    });
    plan
}

#[cfg(test)]
mod tests {
    use api::resource::PERSISTENT_VOLUMES;

    use super::*;

    const FINALIZER: &str = "a/b";

    fn object(finalizers: &[&str], is_ending: bool) -> Value {
        let mut object = json!({"metadata": {"name": "v", "resourceVersion": "7", "finalizers": finalizers},
            "spec": {"unknown": 1}});
        if is_ending {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        object
    }

    /// The object that the plan writes.
    fn written(object: &Value, is_used: bool) -> Option<Value> {
        let plan = reconcile(PERSISTENT_VOLUMES, object, FINALIZER, is_used);
        let meta: ObjectMeta = apimachinery::from_value(object["metadata"].clone()).expect("metadata");
        assert!(plan.is_empty() || is_due(&meta, FINALIZER));
        plan.steps.into_iter().next().map(|step| match step.action {
            Action::Update { object, .. } => object,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn only_the_own_finalizer_goes_and_only_when_nothing_uses_the_object() {
        let ending = object(&["x/y", FINALIZER], true);
        assert_eq!(written(&ending, true), None);
        assert_eq!(written(&ending, false), Some(object(&["x/y"], true)));
        assert_eq!(written(&object(&["x/y"], true), false), None);
    }

    #[test]
    fn an_object_that_lacks_the_finalizer_gets_it_whether_used_or_not() {
        for is_used in [false, true] {
            let lacking = object(&["x/y"], false);
            assert_eq!(written(&lacking, is_used), Some(object(&["x/y", FINALIZER], false)));
            assert_eq!(written(&object(&[FINALIZER], false), is_used), None);
        }
    }
}
