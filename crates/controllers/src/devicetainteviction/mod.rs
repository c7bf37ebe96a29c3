//! Evicts pods whose devices have NoExecute taints that their claims do not tolerate, at once or when their patience ends
//! (follows upstream's `pkg/controller/devicetainteviction`).

use std::sync::Arc;

use api::resource::{PODS, RESOURCE_CLAIMS, RESOURCE_SLICES};
use api::view::core::Pod;
use api::view::dynamicresource::{
    AllocationResult, DeviceRequestAllocationResult, DeviceTaint, ResourceClaim, ResourceSlice,
};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::resourceclaim::{claims_of, index_by_claim, users_of};
use crate::taint::NO_EXECUTE;
use crate::tainteviction::{Words, evict};

const WORDS: Words = Words {
    event: "DeviceTaintManagerEviction",
    reason: "DeletionByDeviceTaintManager",
    text: "Device Taint manager: deleting due to NoExecute taint",
};
const MESSAGE: &str = "Marking for deletion";

/// The index of slices by driver and pool.
const BY_POOL: &str = "pool";

struct DeviceTaintEviction {
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let (pods, slices) = (informers.get::<Pod>(), informers.get::<ResourceSlice>());
    index_by_claim(&pods);
    slices.add_index(BY_POOL, |slice| vec![pool(&slice.spec.driver, &slice.spec.pool.name)]);
    Box::new(DeviceTaintEviction { pods, claims: informers.get(), slices })
}

#[async_trait]
impl Controller for DeviceTaintEviction {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PODS, &self.pods, |delta| match claims_of(delta.object()).is_empty() {
            true => Vec::new(),
            false => itself(delta),
        });
        let pods = self.pods.clone();
        watches.on(RESOURCE_CLAIMS, &self.claims, move |delta| users(&pods, delta.object()));
        let (pods, claims) = (self.pods.clone(), self.claims.clone());
        watches.on(RESOURCE_SLICES, &self.slices, move |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            Delta::Added(slice) | Delta::Updated { new: slice, .. } if !is_tainted(slice) => Vec::new(),
            Delta::Added(slice) | Delta::Updated { new: slice, .. } => {
                let concerned = claims.list().into_iter().filter(|claim| has_devices_of(claim, slice));
                concerned.flat_map(|claim| users(&pods, &claim)).collect()
            }
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let claim = |name: &str| self.claims.get(&key.namespace, name);
        let taints = |result: &DeviceRequestAllocationResult| self.taints(result);
        Ok(reconcile(&pod, claim, taints, now))
    }
}

impl DeviceTaintEviction {
    /// As the newest generation of the device's pool has them.
    fn taints(&self, result: &DeviceRequestAllocationResult) -> Vec<DeviceTaint> {
        let slices = self.slices.by_index(BY_POOL, &pool(&result.driver, &result.pool));
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let current = slices.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
        let mut devices = current.flat_map(|slice| &slice.spec.devices);
        devices.find(|device| device.name == result.device).map(|d| d.taints.clone()).unwrap_or_default()
    }
}

fn pool(driver: &str, name: &str) -> String {
    format!("{driver}/{name}")
}

fn users(pods: &Informer<Pod>, claim: &ResourceClaim) -> Vec<Key> {
    users_of(pods, &claim.metadata).iter().map(|pod| pod.metadata.namespaced_name()).collect()
}

fn is_tainted(slice: &ResourceSlice) -> bool {
    let mut taints = slice.spec.devices.iter().flat_map(|device| &device.taints);
    taints.any(|taint| taint.effect == NO_EXECUTE)
}

fn has_devices_of(claim: &ResourceClaim, slice: &ResourceSlice) -> bool {
    let (driver, pool) = (&slice.spec.driver, &slice.spec.pool.name);
    let results = claim.status.allocation.iter().flat_map(|allocation| &allocation.devices.results);
    results.into_iter().any(|result| (&result.driver, &result.pool) == (driver, pool))
}

fn reconcile(
    pod: &Pod,
    claim: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    taints: impl Fn(&DeviceRequestAllocationResult) -> Vec<DeviceTaint>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    if pod.spec.node_name.is_empty() || pod.metadata.is_being_deleted() || pod.is_terminal() {
        return plan;
    }
    let found = claims_of(pod).into_iter().filter_map(|name| claim(&name));
    let used = found.filter(|claim| claim.is_reserved_for(&pod.metadata.uid));
    let ends = used.filter_map(|claim| eviction_time(claim.status.allocation.as_ref()?, &taints, now));
    match ends.min() {
        None => {}
        Some(at) if at > now => plan.requeue(at),
        Some(_) => evict(pod, &WORDS, MESSAGE.to_owned(), now, &mut plan),
    }
    plan
}

/// When the claim's users have to go; `None` is never.
fn eviction_time(
    allocation: &AllocationResult,
    taints: impl Fn(&DeviceRequestAllocationResult) -> Vec<DeviceTaint>,
    now: Timestamp,
) -> Option<Timestamp> {
    let ends = allocation.devices.results.iter().flat_map(|result| {
        let of_taint = |taint: DeviceTaint| patience_ends(result, &taint, allocation, now);
        taints(result).into_iter().filter(|taint| taint.effect == NO_EXECUTE).filter_map(of_taint)
    });
    ends.min()
}

/// Patience begins with the taint, or with the allocation where the taint does not tell since when it is.
fn patience_ends(
    result: &DeviceRequestAllocationResult,
    taint: &DeviceTaint,
    allocation: &AllocationResult,
    now: Timestamp,
) -> Option<Timestamp> {
    let tolerations = result.tolerations.iter().filter(|t| t.effect == NO_EXECUTE && t.tolerates(taint));
    let patience: Vec<Option<i64>> = tolerations.map(|toleration| toleration.toleration_seconds).collect();
    if patience.contains(&None) {
        return None;
    }
    let since = taint.time_added.or(allocation.allocation_timestamp).unwrap_or(now);
    let seconds = patience.into_iter().flatten().min().unwrap_or(0).max(0);
    Some(since.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::plan::Action;
    use crate::testing::at;

    /// What happens at second 100 to a pod with a device that got this taint at second 0.
    fn check(tolerations: Value, effect: &str, expect: (usize, Option<Timestamp>)) {
        let pod: Pod =
            apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "m", "resourceClaims": [{"name": "a", "resourceClaimName": "c"}]}}))
            .expect("a pod");
        let result = json!({"driver": "d", "pool": "p", "device": "x", "tolerations": tolerations});
        let users = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        let status = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": users});
        let claim: Arc<ResourceClaim> = Arc::new(
            apimachinery::from_value(json!({"metadata": {"name": "c"}, "status": status})).expect("a claim"),
        );
        let taint = DeviceTaint {
            key: "k".into(),
            effect: effect.into(),
            time_added: Some(at(0)),
            ..Default::default()
        };
        let plan = reconcile(&pod, |_| Some(claim.clone()), |_| vec![taint.clone()], at(100));
        assert_eq!((plan.steps.len(), plan.requeue_at), expect, "{tolerations} {effect}");
        let deletes = plan.steps.iter().any(|step| matches!(step.action, Action::Delete { .. }));
        assert_eq!(deletes, !plan.steps.is_empty());
    }

    #[test]
    fn a_pod_stays_as_long_as_its_claims_tolerate_their_devices_taints() {
        let tolerate = |seconds: Value| json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        check(json!([]), "NoExecute", (2, None));
        check(json!([]), "NoSchedule", (0, None));
        check(tolerate(Value::Null), "NoExecute", (0, None));
        check(tolerate(json!(300)), "NoExecute", (0, Some(at(300))));
        check(tolerate(json!(50)), "NoExecute", (2, None));
    }
}
