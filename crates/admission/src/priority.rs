//! Priority: a pod's priority comes from its PriorityClass, or from the default one.

use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const PREEMPT_LOWER_PRIORITY: &str = "PreemptLowerPriority";
/// The classes that are there before anybody creates them.
const BUILT_IN: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub struct Priority;

/// What a class gives to a pod.
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        if !request.writes_pod() || !object["spec"].is_object() {
            return Ok(());
        }
        match (request.operation, request.old) {
            (Operation::Update, Some(old)) => keep(object, old),
            _ => return resolve(request, object, world),
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes
            || !request.is_for("scheduling.k8s.io", "priorityclasses")
            || object["globalDefault"] != true
        {
            return Ok(());
        }
        match default_class(world) {
            Some(other) if Some(other.name.as_str()) != object["metadata"]["name"].as_str() => {
                let reason = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.name
                );
                Err(request.forbidden(object, reason))
            }
            _ => Ok(()),
        }
    }
}

/// An update that leaves the computed fields out means to keep them.
fn keep(object: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if object["spec"][field].is_null() && !old["spec"][field].is_null() {
            object["spec"][field] = old["spec"][field].clone();
        }
    }
}

fn resolve(request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
    let name = object["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let class = if name.is_empty() {
        default_class(world).unwrap_or_else(|| Class {
            name: String::new(),
            value: 0,
            preemption_policy: PREEMPT_LOWER_PRIORITY.to_owned(),
        })
    } else {
        find(name, world).ok_or_else(|| {
            request.forbidden(object, format!("no PriorityClass with name {name} was found"))
        })?
    };
    let Class { name, value, preemption_policy } = class;
    if let Some(given) = object["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let reason = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(request.forbidden(object, reason));
    }
    let given = object["spec"]["preemptionPolicy"].as_str().filter(|given| *given != preemption_policy);
    if let Some(given) = given {
        let reason = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {preemption_policy} from the given PriorityClass name"
        );
        return Err(request.forbidden(object, reason));
    }
    let spec = &mut object["spec"];
    if !name.is_empty() {
        spec["priorityClassName"] = name.into();
    }
    spec["priority"] = value.into();
    spec["preemptionPolicy"] = preemption_policy.into();
    Ok(())
}

fn class(object: &Value) -> Class {
    Class {
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        value: object["value"].as_i64().unwrap_or_default(),
        preemption_policy: object["preemptionPolicy"].as_str().unwrap_or(PREEMPT_LOWER_PRIORITY).to_owned(),
    }
}

fn find(name: &str, world: &dyn World) -> Option<Class> {
    if let Some(object) = world.get(PRIORITY_CLASSES, "", name) {
        return Some(class(&object));
    }
    BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(name, value)| Class {
        name: (*name).to_owned(),
        value: *value,
        preemption_policy: PREEMPT_LOWER_PRIORITY.to_owned(),
    })
}

/// The class marked as default; should there be several, the one of the lowest value.
fn default_class(world: &dyn World) -> Option<Class> {
    let classes = world.list(PRIORITY_CLASSES, "");
    let defaults = classes.iter().filter(|object| object["globalDefault"] == true);
    defaults.map(|object| class(object)).min_by_key(|class| class.value)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn world() -> Objects {
        let high = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
        Objects::default().with(PRIORITY_CLASSES, high)
    }

    fn check(world: &Objects, spec: Value, expect: Result<Value, &str>) {
        let user = UserInfo::anonymous();
        let found = run(&Priority, &request(&user, Operation::Create, "pods", ""), pod(spec), world);
        assert_eq!(found.map(|pod| pod["spec"].clone()), expect.map_err(str::to_owned));
    }

    #[test]
    fn the_class_decides_the_priority() {
        check(&world(), json!({}), Ok(json!({"priority": 0, "preemptionPolicy": PREEMPT_LOWER_PRIORITY})));
        check(
            &world(),
            json!({"priorityClassName": "high"}),
            Ok(json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})),
        );
        check(
            &world(),
            json!({"priorityClassName": "system-node-critical"}),
            Ok(json!({"priorityClassName": "system-node-critical", "priority": 2_000_001_000,
                "preemptionPolicy": PREEMPT_LOWER_PRIORITY})),
        );
        check(
            &world(),
            json!({"priorityClassName": "none"}),
            Err("pods \"p\" is forbidden: no PriorityClass with name none was found"),
        );
        check(
            &world(),
            json!({"priority": 5}),
            Err(
                "pods \"p\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
            ),
        );
    }

    #[test]
    fn a_default_class_is_for_pods_without_one_and_there_is_only_one() {
        let usual = json!({"metadata": {"name": "usual"}, "value": 10, "globalDefault": true});
        let world = world().with(PRIORITY_CLASSES, usual.clone());
        check(
            &world,
            json!({}),
            Ok(
                json!({"priorityClassName": "usual", "priority": 10, "preemptionPolicy": PREEMPT_LOWER_PRIORITY}),
            ),
        );
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, PRIORITY_CLASSES, "other");
        let other = json!({"metadata": {"name": "other"}, "globalDefault": true});
        assert_eq!(
            run(&Priority, &create, other, &world),
            Err("priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist".to_owned())
        );
        let update = request(&user, Operation::Update, PRIORITY_CLASSES, "usual");
        assert_eq!(run(&Priority, &update, usual.clone(), &world), Ok(usual));
    }

    #[test]
    fn an_update_keeps_what_was_computed() {
        let user = UserInfo::anonymous();
        let old = pod(json!({"priority": 7, "preemptionPolicy": "Never"}));
        let update = Request { old: Some(&old), ..request(&user, Operation::Update, "pods", "p") };
        assert_eq!(run(&Priority, &update, pod(json!({})), &world()), Ok(old.clone()));
    }
}
