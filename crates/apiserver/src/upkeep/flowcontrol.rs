//! The flow schemas and priority levels that every cluster has. The mandatory ones are always there and always the same;
//! the suggested ones are made once, and follow the server's version unless somebody has taken them over.
//! Follows `flowcontrol/rest.PriorityLevelStrategy` and the `ensurer` it runs.

use api::flowcontrol::bootstrap;
use api::{Resource, resource};
use apimachinery::Value;
use apimachinery::meta::str_at;

use super::{Change, Duty, Write, stored_one};
use crate::core::Core;

/// Says `true` on objects whose spec follows the server's version.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

pub const DUTY: Duty = Duty {
    watched: &[resource::PRIORITY_LEVEL_CONFIGURATIONS, resource::FLOW_SCHEMAS],
    all: |core| bootstrap::objects().iter().filter_map(|wanted| settle(core, wanted)).collect(),
    after,
};

fn after(core: &Core, change: &Change) -> Vec<Write> {
    let object = change.object();
    let wanted = bootstrap::mandatory(str_at(object, &["kind"]), str_at(object, &["metadata", "name"]));
    wanted.and_then(|wanted| settle(core, wanted)).into_iter().collect()
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
    use apimachinery::json;

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
