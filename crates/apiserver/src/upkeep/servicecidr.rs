//! The ServiceCIDR `kubernetes`, which stands for the ranges the server was started with.
//! Follows `pkg/controlplane/controller/defaultservicecidr`.

use api::networking::servicecidr::DEFAULT_NAME as NAME;
use api::resource;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::{Change, Duty, Write, stored_one};
use crate::core::Core;

pub const DUTY: Duty = Duty {
    watched: &[resource::SERVICE_CIDRS],
    all: settle,
    after: |core, change: &Change| match str_at(change.object(), &["metadata", "name"]) {
        NAME => settle(core),
        _ => Vec::new(),
    },
};

fn settle(core: &Core) -> Vec<Write> {
    let cidrs: Vec<String> = core.config.service_cidrs().iter().map(ToString::to_string).collect();
    let found = stored_one(core, resource::SERVICE_CIDRS, "", NAME);
    let now = (core.config.clock)();
    let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    decide(&cidrs, found, &now.to_string()).into_iter().collect()
}

fn decide(cidrs: &[String], found: Option<Value>, now: &str) -> Option<Write> {
    let Some(mut found) = found else {
        let new = json!({"metadata": {"name": NAME}, "spec": {"cidrs": cidrs}});
        return Some(Write::Create(resource::SERVICE_CIDRS, new));
    };
    if found["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    if found["spec"]["cidrs"] != json!(cidrs) {
        // A second family may be added to the first; other ranges are the administrator's to settle.
        let first_only = found["spec"]["cidrs"] == json!([cidrs.first()?]);
        found["spec"]["cidrs"] = json!(cidrs);
        return first_only.then_some(Write::Update(resource::SERVICE_CIDRS, found));
    }
    let conditions = found["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.iter().any(|c| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) != "Unknown") {
        return None;
    }
    found["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now}]);
    Some(Write::UpdateStatus(resource::SERVICE_CIDRS, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_range_is_made_made_ready_and_then_left_alone() {
        let cidrs = ["10.96.0.0/16".to_owned()];
        let now = "2026-01-01T00:00:00Z";
        let Some(Write::Create(_, made)) = decide(&cidrs, None, now) else { panic!("is made") };
        let Some(Write::UpdateStatus(_, ready)) = decide(&cidrs, Some(made), now) else {
            panic!("is made ready")
        };
        assert_eq!(decide(&cidrs, Some(ready.clone()), now), None);
        let both = ["10.96.0.0/16".to_owned(), "fd00::/112".to_owned()];
        let Some(Write::Update(_, dual)) = decide(&both, Some(ready), now) else { panic!("becomes dual") };
        assert_eq!(decide(&cidrs, Some(dual), now), None);
    }
}
