//! A namespace on its way out.

use api::resource::{CONFIG_MAPS, PODS, Resource};
use api::view::core::Namespace;
use apimachinery::{Value, json};

use super::reconcile::{Content, Remaining, reconcile};
use crate::discovery::Served;
use crate::plan::{Action, Plan};
use crate::testing::at;

fn namespace(phase: &str, deleted: bool) -> Namespace {
    let mut value = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes", "other"]}, "status": {"phase": phase}});
    if deleted {
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    apimachinery::from_value(value).expect("a namespace")
}

fn remaining(resource: Resource, verbs: &[&str], objects: Value) -> Remaining {
    let verbs = verbs.iter().map(|v| v.to_string()).collect();
    let objects: Vec<_> = apimachinery::from_value(objects).expect("metadata");
    Remaining { served: Served { resource, verbs }, count: objects.len(), objects }
}

fn summary(plan: &Plan) -> Vec<String> {
    let one = |action: &Action| match action {
        Action::Update { subresource, .. } => format!("update {}", subresource.expect("a subresource")),
        Action::DeleteCollection { resource, .. } => format!("empty {}", resource.plural),
        Action::Delete { resource, name, .. } => format!("delete {} {name}", resource.plural),
        other => format!("{other:?}"),
    };
    plan.steps.iter().map(|step| one(&step.action)).collect()
}

fn check(namespace: &Namespace, remaining: Vec<Remaining>, expect: &[&str]) -> Plan {
    let plan = reconcile(namespace, &Content { remaining, ..Content::default() }, at(0));
    assert_eq!(summary(&plan), expect);
    plan
}

#[test]
fn a_namespace_first_stops_taking_then_is_emptied_then_goes() {
    let all = ["list", "delete", "deletecollection"];
    check(&namespace("Active", false), Vec::new(), &[]);
    check(&namespace("Active", true), Vec::new(), &["update status"]);
    let pods = remaining(PODS, &all, json!([{"name": "p"}]));
    let maps = remaining(CONFIG_MAPS, &all, json!([{"name": "m"}]));
    check(&namespace("Terminating", true), vec![maps.clone(), pods], &["update status", "empty pods"]);
    let ending = remaining(PODS, &all, json!([{"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}]));
    let waiting = check(&namespace("Terminating", true), vec![maps.clone(), ending], &["update status"]);
    assert_eq!(waiting.requeue_at, Some(at(15)));
    check(&namespace("Terminating", true), vec![maps], &["update status", "empty configmaps"]);
    let plan = check(&namespace("Terminating", true), Vec::new(), &["update finalize"]);
    let Action::Update { object, .. } = &plan.steps[0].action else { panic!("an update") };
    assert_eq!(object["spec"]["finalizers"], json!(["other"]));
}

#[test]
fn what_cannot_be_deleted_together_is_deleted_one_by_one() {
    let maps = remaining(CONFIG_MAPS, &["list", "delete"], json!([{"name": "m"}, {"name": "n"}]));
    let expect = ["update status", "delete configmaps m", "delete configmaps n"];
    check(&namespace("Terminating", true), vec![maps], &expect);
}

#[test]
fn conditions_say_what_holds_it_up_and_settle() {
    let held = json!([{"name": "m", "finalizers": ["x/y"], "deletionTimestamp": "2026-01-01T00:00:00Z"}]);
    let content = Content {
        remaining: vec![remaining(CONFIG_MAPS, &["list", "delete"], held)],
        failure: Some("refused".into()),
        ..Content::default()
    };
    let mut namespace = namespace("Terminating", true);
    let plan = reconcile(&namespace, &content, at(0));
    let Action::Update { object, .. } = &plan.steps[0].action else { panic!("an update") };
    let messages: Vec<&str> = object["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .filter(|c| c["status"] == "True")
        .map(|c| c["message"].as_str().expect("a message"))
        .collect();
    assert_eq!(
        messages,
        [
            "Failed to delete all resource types, 1 remaining: refused",
            "Some resources are remaining: configmaps. has 1 resource instances",
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances",
        ]
    );
    namespace.status = apimachinery::from_value(object["status"].clone()).expect("a status");
    assert!(reconcile(&namespace, &content, at(9)).is_empty());
}
