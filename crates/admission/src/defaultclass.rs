//! DefaultStorageClass and DefaultIngressClass: what names no class gets the newest that is marked as default.
//! Follow `plugin/pkg/admission/storage/storageclass/setdefault` and `network/defaultingressclass`.

use std::cmp::Reverse;
use std::sync::Arc;

use apimachinery::meta::{str_at, value_at};
use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_STORAGE_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
const BETA_CLAIM_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const BETA_INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn admit(&self, request: &Request<'_>, claim: &mut Value, world: &dyn World) -> Result<(), Status> {
        let creates = request.operation == Operation::Create;
        if creates && request.is_for("", "persistentvolumeclaims") {
            const MARKS: [&str; 2] = [STORAGE_CLASS, BETA_STORAGE_CLASS];
            set(claim, "storageClassName", BETA_CLAIM_CLASS, || {
                newest(world.list("storageclasses.storage.k8s.io", ""), &MARKS)
            });
        }
        Ok(())
    }
}

pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit(&self, request: &Request<'_>, ingress: &mut Value, world: &dyn World) -> Result<(), Status> {
        let creates = request.operation == Operation::Create;
        if creates && request.is_for("networking.k8s.io", "ingresses") {
            set(ingress, "ingressClassName", BETA_INGRESS_CLASS, || {
                newest(world.list("ingressclasses.networking.k8s.io", ""), &[INGRESS_CLASS])
            });
        }
        Ok(())
    }
}

/// Fills in the class, unless the object has one by field or by annotation.
fn set(object: &mut Value, field: &str, annotation: &str, class: impl FnOnce() -> Option<String>) {
    let has_field = value_at(object, &["spec", field]).is_some_and(|class| !class.is_null());
    let has_annotation = value_at(object, &["metadata", "annotations", annotation]).is_some();
    if has_field || has_annotation || !object["spec"].is_object() {
        return;
    }
    if let Some(class) = class() {
        object["spec"][field] = class.into();
    }
}

fn newest(classes: Vec<Arc<Value>>, marks: &[&str]) -> Option<String> {
    let is_default = |class: &&Arc<Value>| {
        marks.iter().any(|mark| str_at(class, &["metadata", "annotations", mark]) == "true")
    };
    let text = |class: &Value, field: &str| str_at(class, &["metadata", field]).to_owned();
    classes
        .iter()
        .filter(is_default)
        .min_by_key(|class| (Reverse(text(class, "creationTimestamp")), text(class, "name")))
        .map(|class| text(class, "name"))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    fn class(name: &str, created: &str, mark: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: "true"}}})
    }

    #[test]
    fn the_newest_default_is_taken_by_those_who_name_none() {
        let user = UserInfo::anonymous();
        let resource = "storageclasses.storage.k8s.io";
        let world = Objects::default()
            .with(resource, class("old", "2025-01-01T00:00:00Z", STORAGE_CLASS))
            .with(resource, class("b", "2026-01-01T00:00:00Z", STORAGE_CLASS))
            .with(resource, class("a", "2026-01-01T00:00:00Z", BETA_STORAGE_CLASS))
            .with(resource, class("plain", "2026-02-01T00:00:00Z", "other"));
        let create = request(&user, Operation::Create, "persistentvolumeclaims", "c");
        let table = [
            (json!({"spec": {}}), json!("a")),
            (json!({"spec": {"storageClassName": ""}}), json!("")),
            (json!({"spec": {}, "metadata": {"annotations": {BETA_CLAIM_CLASS: "x"}}}), Value::Null),
        ];
        for (claim, expect) in table {
            let found = run(&DefaultStorageClass, &create, claim.clone(), &world).expect("is allowed");
            assert_eq!(found["spec"].get("storageClassName").unwrap_or(&Value::Null), &expect, "{claim}");
        }
    }

    #[test]
    fn ingresses_take_theirs() {
        let user = UserInfo::anonymous();
        let world = Objects::default()
            .with("ingressclasses.networking.k8s.io", class("web", "2026-01-01T00:00:00Z", INGRESS_CLASS));
        let create = request(&user, Operation::Create, "ingresses.networking.k8s.io", "i");
        let found = run(&DefaultIngressClass, &create, json!({"spec": {}}), &world).expect("is allowed");
        assert_eq!(found["spec"]["ingressClassName"], "web");
    }
}
