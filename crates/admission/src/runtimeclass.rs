//! RuntimeClass: a pod gets the overhead and the scheduling constraints of the runtime it asks for.
//! Follows `plugin/pkg/admission/runtimeclass`.

use std::sync::Arc;

use api::core::pod::resources::amounts;
use apimachinery::meta::value_at;
use apimachinery::{Map, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};
use crate::tolerations;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit(&self, request: &Request<'_>, pod: &mut Value, world: &dyn World) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_for("", "pods") {
            return Ok(());
        }
        let Some(class) = class_of(request, pod, world)? else { return Ok(()) };
        if let Some(overhead) = overhead_of(&class) {
            if has_overhead(pod) && !same_amounts(pod, &class) {
                return Err(request.forbidden(pod, MISMATCH));
            }
            pod["spec"]["overhead"] = overhead.clone();
        }
        match value_at(&class, &["scheduling"]).filter(|scheduling| scheduling.is_object()) {
            Some(scheduling) => schedule(request, pod, scheduling),
            None => Ok(()),
        }
    }

    fn validate(&self, request: &Request<'_>, pod: &Value, world: &dyn World) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_for("", "pods") {
            return Ok(());
        }
        match class_of(request, pod, world)?.filter(|class| class["overhead"].is_object()) {
            Some(class) if !same_amounts(pod, &class) => Err(request.forbidden(pod, MISMATCH)),
            None if has_overhead(pod) => {
                let why =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(request.forbidden(pod, why))
            }
            _ => Ok(()),
        }
    }
}

fn class_of(request: &Request<'_>, pod: &Value, world: &dyn World) -> Result<Option<Arc<Value>>, Status> {
    let Some(name) = value_at(pod, &["spec", "runtimeClassName"]).and_then(Value::as_str) else {
        return Ok(None);
    };
    let class = world.get("runtimeclasses.node.k8s.io", "", name);
    match class {
        Some(class) => Ok(Some(class)),
        None => Err(request.forbidden(pod, format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn overhead_of(class: &Value) -> Option<&Value> {
    value_at(class, &["overhead", "podFixed"]).filter(|overhead| overhead.is_object())
}

fn has_overhead(pod: &Value) -> bool {
    value_at(pod, &["spec", "overhead"]).and_then(Value::as_object).is_some_and(|o| !o.is_empty())
}

fn same_amounts(pod: &Value, class: &Value) -> bool {
    amounts(pod.get("spec"), "overhead") == amounts(class.get("overhead"), "podFixed")
}

fn schedule(request: &Request<'_>, pod: &mut Value, scheduling: &Value) -> Result<(), Status> {
    let mut selector =
        value_at(pod, &["spec", "nodeSelector"]).and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    for (key, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        if let Some(own) = selector.get(key).filter(|own| *own != wanted) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (wanted, own) = (text(wanted), text(own));
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(request.forbidden(pod, why));
        }
        selector.insert(key.clone(), wanted.clone());
    }
    let list = |holder: &Value| holder["tolerations"].as_array().cloned().unwrap_or_default();
    let merged = tolerations::merge(&list(&pod["spec"]), &list(scheduling));
    if !selector.is_empty() {
        pod["spec"]["nodeSelector"] = Value::Object(selector);
    }
    if !merged.is_empty() {
        pod["spec"]["tolerations"] = merged.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn check(spec: Value, expect: Result<Value, &str>) {
        let class = json!({"metadata": {"name": "vm"}, "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let world = Objects::default()
            .with("runtimeclasses.node.k8s.io", class)
            .with("runtimeclasses.node.k8s.io", json!({"metadata": {"name": "plain"}}));
        let user = UserInfo::anonymous();
        let found = run(&RuntimeClass, &request(&user, Operation::Create, "pods", "p"), pod(spec), &world);
        assert_eq!(found.map(|pod| pod["spec"].clone()), expect.map_err(str::to_owned));
    }

    #[test]
    fn the_class_gives_overhead_and_scheduling() {
        check(
            json!({"runtimeClassName": "vm"}),
            Ok(json!({"runtimeClassName": "vm", "overhead": {"cpu": "250m"}, "nodeSelector": {"vm": "yes"},
                "tolerations": [{"key": "vm", "operator": "Exists"}]})),
        );
        check(json!({"runtimeClassName": "plain"}), Ok(json!({"runtimeClassName": "plain"})));
        check(json!({}), Ok(json!({})));
        check(
            json!({"runtimeClassName": "vm", "overhead": {"cpu": "1"}}),
            Err(
                "pods \"p\" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ),
        );
        check(
            json!({"overhead": {"cpu": "1"}}),
            Err(
                "pods \"p\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ),
        );
        check(
            json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
            Err(
                "pods \"p\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
            ),
        );
        check(
            json!({"runtimeClassName": "none"}),
            Err("pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found"),
        );
    }
}
