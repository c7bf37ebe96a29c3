//! From a quota and the objects it counts to its status (follows `syncResourceQuota`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quota::{Counting, ResourceList, amounts, calculate_usage, mask, to_value};
use api::resource::RESOURCE_QUOTAS;
use api::view::core::ResourceQuota;
use apimachinery::meta::str_at;
use apimachinery::time::parse_time;
use apimachinery::{Value, json};
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Plan};

#[derive(Clone, Debug, Default)]
pub struct World {
    /// By the names that quotas use, the objects of the quota's namespace.
    pub objects: BTreeMap<String, Vec<Arc<Value>>>,
    /// Where claims for devices are counted.
    pub device_classes: Vec<Arc<Value>>,
}

pub fn hard_limits(quota: &ResourceQuota) -> ResourceList {
    amounts(Some(&quota.spec), "hard")
}

pub fn reconcile(quota: &ResourceQuota, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let hard = hard_limits(quota);
    let list = |name: &str| world.objects.get(name).cloned().unwrap_or_default();
    let whole = json!({"metadata": quota.metadata, "spec": quota.spec, "status": quota.status});
    let mut used = amounts(Some(&quota.status), "used");
    let counting = Counting { now, list: &list, device_classes: &|| world.device_classes.clone() };
    used.extend(calculate_usage(&whole, &counting));
    let used = mask(&used, hard.keys().map(String::as_str));
    let is_counted = quota.status.get("hard").is_some() && quota.status.get("used").is_some();
    let is_same =
        hard == amounts(Some(&quota.status), "hard") && used == amounts(Some(&quota.status), "used");
    if !(is_counted && is_same) {
        let status = json!({"hard": to_value(&hard), "used": to_value(&used)});
        plan.act(Action::update_status(RESOURCE_QUOTAS, &quota.metadata, status));
    }
    for pod in list("pods") {
        if let Some(at) = given_up_at(&pod).filter(|at| *at > now) {
            plan.requeue(at);
        }
    }
    plan
}

/// When a pod that is to end, and does not, counts no longer.
fn given_up_at(pod: &Value) -> Option<Timestamp> {
    let deleted = parse_time(str_at(pod, &["metadata", "deletionTimestamp"]))?;
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
    // A moment later, as the comparison is strict.
    deleted.checked_add(SignedDuration::from_secs(grace) + SignedDuration::from_millis(1)).ok()
}
