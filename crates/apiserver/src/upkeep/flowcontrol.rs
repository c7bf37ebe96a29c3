//! The flow schemas and priority levels that every cluster has. The mandatory ones are always there and always the same;
//! the suggested ones are made once, and follow the server's version unless somebody has taken them over.
//! Follows `flowcontrol/rest.PriorityLevelStrategy` and the `ensurer` it runs.

use api::flowcontrol::bootstrap;
use api::{Resource, resource};
use apimachinery::meta::str_at;
use apimachinery::time::format_time;
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::{Change, Duty, Write, stored, stored_one};
use crate::core::Core;
use crate::flowcontrol::level_of;

/// Says `true` on objects whose spec follows the server's version.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// The condition of a FlowSchema whose level is not there.
const DANGLING: &str = "Dangling";

pub const DUTY: Duty = Duty {
    watched: &[resource::PRIORITY_LEVEL_CONFIGURATIONS, resource::FLOW_SCHEMAS],
    all: |core| {
        let made = bootstrap::objects().iter().filter_map(|wanted| settle(core, wanted));
        made.chain(stored(core, resource::FLOW_SCHEMAS).into_iter().filter_map(|s| tell(core, s))).collect()
    },
    after,
};

fn after(core: &Core, change: &Change) -> Vec<Write> {
    let object = change.object();
    let (kind, name) = (str_at(object, &["kind"]), str_at(object, &["metadata", "name"]));
    let wanted = bootstrap::mandatory(kind, name).and_then(|wanted| settle(core, wanted));
    let concerned = match (kind, &change.now) {
        ("FlowSchema", now) => now.iter().cloned().collect(),
        // A level concerns the schemas that name it when it comes and when it goes.
        (_, now) if now.is_some() != change.before.is_some() => {
            let mut schemas = stored(core, resource::FLOW_SCHEMAS);
            schemas.retain(|schema| level_of(schema) == name);
            schemas
        }
        _ => Vec::new(),
    };
    wanted.into_iter().chain(concerned.into_iter().filter_map(|schema| tell(core, schema))).collect()
}

/// Writes into a schema's status whether its level is there.
fn tell(core: &Core, schema: Value) -> Option<Write> {
    let is_there = stored_one(core, resource::PRIORITY_LEVEL_CONFIGURATIONS, "", level_of(&schema)).is_some();
    decide_condition(schema, is_there, (core.config.clock)())
}

/// Follows `syncFlowSchemaStatus`.
fn decide_condition(mut schema: Value, is_there: bool, now: Timestamp) -> Option<Write> {
    let level = level_of(&schema).to_owned();
    let (status, reason, message) = match is_there {
        true => (
            "False",
            "Found",
            format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
            ),
        ),
        false => (
            "True",
            "NotFound",
            format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"
            ),
        ),
    };
    let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (told, mut others): (Vec<Value>, Vec<Value>) =
        conditions.into_iter().partition(|condition| str_at(condition, &["type"]) == DANGLING);
    let mut since = Value::from(format_time(now));
    if let Some(told) = told.into_iter().next() {
        if told["status"] == status && told["message"] == *message {
            return None;
        }
        if told["status"] == status {
            since = told["lastTransitionTime"].clone();
        }
    }
    others.push(json!({"type": DANGLING, "status": status, "lastTransitionTime": since, "reason": reason,
        "message": message}));
    schema["status"]["conditions"] = others.into();
    Some(Write::UpdateStatus(resource::FLOW_SCHEMAS, schema))
}

fn settle(core: &Core, wanted: &Value) -> Option<Write> {
    let resource = resource_of(wanted);
    decide(resource, wanted, stored_one(core, resource, "", str_at(wanted, &["metadata", "name"])))
}

fn resource_of(object: &Value) -> Resource {
    match str_at(object, &["kind"]) {
        "FlowSchema" => resource::FLOW_SCHEMAS,
        _ => resource::PRIORITY_LEVEL_CONFIGURATIONS,
    }
}

fn decide(resource: Resource, wanted: &Value, found: Option<Value>) -> Option<Write> {
    let Some(mut found) = found else { return Some(Write::Create(resource, wanted.clone())) };
    let name = str_at(wanted, &["metadata", "name"]);
    let mandatory = bootstrap::mandatory(str_at(wanted, &["kind"]), name).is_some();
    let follows = str_at(&found, &["metadata", "annotations", AUTO_UPDATE]) == "true";
    if !(mandatory || follows) || found["spec"] == wanted["spec"] {
        return None;
    }
    found["spec"] = wanted["spec"].clone();
    Some(Write::Update(resource, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str) -> Value {
        let of_name = |obj: &&Value| {
            str_at(obj, &["kind"]) == "PriorityLevelConfiguration"
                && str_at(obj, &["metadata", "name"]) == name
        };
        bootstrap::objects().iter().find(of_name).expect("there is one").clone()
    }

    fn check(name: &str, change: impl FnOnce(&mut Value), is_written: bool) {
        let wanted = level(name);
        let mut found = wanted.clone();
        change(&mut found);
        let write = decide(resource::PRIORITY_LEVEL_CONFIGURATIONS, &wanted, Some(found));
        assert_eq!(write.is_some(), is_written, "{name}");
    }

    #[test]
    fn a_schema_says_since_when_its_level_is_missing_or_there() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}},
            "status": {"conditions": [{"type": "Other", "status": "True"}]}});
        let Some(Write::UpdateStatus(_, dangling)) = decide_condition(schema, false, at(1)) else {
            panic!("is told")
        };
        let condition = &dangling["status"]["conditions"][1];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("NotFound")));
        assert_eq!(decide_condition(dangling.clone(), false, at(2)), None);
        let Some(Write::UpdateStatus(_, found)) = decide_condition(dangling, true, at(3)) else {
            panic!("is told")
        };
        let condition = &found["status"]["conditions"][1];
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:03Z");
        assert_eq!(condition["reason"], "Found");
    }

    #[test]
    fn an_object_that_somebody_has_taken_over_is_left_alone() {
        let shares = |obj: &mut Value| obj["spec"]["limited"]["nominalConcurrencyShares"] = json!(7);
        check("workload-low", |_| {}, false);
        check("workload-low", shares, true);
        let taken_over = |obj: &mut Value| {
            shares(obj);
            obj["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        };
        check("workload-low", taken_over, false);
    }
}
