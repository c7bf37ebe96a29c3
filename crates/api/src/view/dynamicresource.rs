//! `resource.k8s.io/v1`: devices that drivers publish, and claims to them.

use std::collections::BTreeMap;

use apimachinery::meta::{Condition, ObjectMeta, OwnerReference};
use apimachinery::quantity::Quantity;
use apimachinery::{Value, time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::core::{NodeSelector, Pod, PodResourceClaim};
use crate::validation::is_extended_resource;

/// Keeps a claim until its devices are given back.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// On a claim made from a template: the pod's own name for it.
pub const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// On the one claim that is made for a pod's extended resources, with `true`.
pub const EXTENDED_RESOURCE_CLAIM: &str = "resource.kubernetes.io/extended-resource-claim";
/// Begins the names of resources that mean devices of the class whose name follows.
pub const DEVICE_CLASS_RESOURCES: &str = "deviceclass.resource.kubernetes.io/";
/// Consumers that may share one claim (upstream: `ResourceClaimReservedForMaxSize`).
pub const RESERVED_FOR_MAX: usize = 256;
/// Devices of one claim (upstream: `AllocationResultsMaxSize`).
pub const ALLOCATION_RESULTS_MAX: usize = 32;

super::view! {
    DeviceClass => DEVICE_CLASSES;
    ResourceClaim => RESOURCE_CLAIMS;
    ResourceClaimTemplate => RESOURCE_CLAIM_TEMPLATES;
    ResourceSlice => RESOURCE_SLICES;
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceClass {
    pub metadata: ObjectMeta,
    pub spec: DeviceClassSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceClassSpec {
    /// The extended resource that its devices are, for pods that ask for that.
    pub extended_resource_name: Option<String>,
    pub selectors: Vec<DeviceSelector>,
    /// For drivers, who alone know what it means.
    pub config: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceSelector {
    pub cel: Option<CelDeviceSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CelDeviceSelector {
    pub expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaimTemplate {
    pub metadata: ObjectMeta,
    pub spec: ResourceClaimTemplateSpec,
}

/// As it stands, to be copied.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceClaimTemplateSpec {
    pub metadata: Value,
    pub spec: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceClaim {
    pub metadata: ObjectMeta,
    pub spec: ResourceClaimSpec,
    pub status: ResourceClaimStatus,
}

impl ResourceClaim {
    /// The uid of the pod for whose extended resources the claim was made.
    pub fn extended_resources_of(&self) -> Option<&str> {
        extended_resources_owner(&self.metadata).map(|owner| owner.uid.as_str())
    }

    pub fn is_reserved_for(&self, pod_uid: &str) -> bool {
        self.status.reserved_for.iter().any(|consumer| consumer.is_pod() && consumer.uid == pod_uid)
    }

    /// Whether one more consumer may use it.
    pub fn can_be_reserved(&self) -> bool {
        self.status.reserved_for.len() < RESERVED_FOR_MAX
    }

    /// Why it is not the claim that was made for the pod.
    pub fn check_made_for(&self, pod: &ObjectMeta) -> Result<(), String> {
        if self.metadata.is_controlled_by(&pod.uid) {
            return Ok(());
        }
        Err(format!(
            "ResourceClaim {} was not created for Pod {} (Pod is not owner)",
            self.metadata.namespaced_name(),
            pod.namespaced_name()
        ))
    }

    /// What the driver has told of a device that was given.
    pub fn device_status(&self, result: &DeviceRequestAllocationResult) -> Option<&AllocatedDeviceStatus> {
        self.status.devices.iter().find(|status| {
            (&status.driver, &status.pool, &status.device, &status.share_id)
                == (&result.driver, &result.pool, &result.device, &result.share_id)
        })
    }
}

/// Who is named as the one for whose extended resources a claim of this metadata was made.
pub fn extended_resources_owner(claim: &ObjectMeta) -> Option<&OwnerReference> {
    let is_such = claim.annotations.get(EXTENDED_RESOURCE_CLAIM).is_some_and(|is| is == "true");
    claim.controller().filter(|_| is_such)
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceClaimSpec {
    pub devices: DeviceClaim,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceClaim {
    #[serde(deserialize_with = "super::null_is_default")]
    pub requests: Vec<DeviceRequest>,
    pub constraints: Vec<DeviceConstraint>,
    pub config: Vec<Value>,
}

/// Either `exactly` or one of `firstAvailable`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRequest {
    pub name: String,
    pub exactly: Option<ExactDeviceRequest>,
    pub first_available: Vec<DeviceSubRequest>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceSubRequest {
    pub name: String,
    #[serde(flatten)]
    pub exactly: ExactDeviceRequest,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExactDeviceRequest {
    pub device_class_name: String,
    pub selectors: Vec<DeviceSelector>,
    /// `ExactCount` or `All`.
    pub allocation_mode: String,
    pub count: i64,
    /// Devices in use may be had too, for looking after them.
    pub admin_access: Option<bool>,
    pub tolerations: Vec<DeviceToleration>,
    pub capacity: Option<CapacityRequirements>,
}

impl ExactDeviceRequest {
    pub fn has_admin_access(&self) -> bool {
        self.admin_access == Some(true)
    }

    pub fn wants_all(&self) -> bool {
        self.allocation_mode == "All"
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CapacityRequirements {
    pub requests: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceToleration {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// `Exists` or `Equal`, also when empty.
    pub operator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Empty tolerates every effect.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

impl DeviceToleration {
    /// Upstream: `ToleratesTaint`.
    pub fn tolerates(&self, taint: &DeviceTaint) -> bool {
        let same = |own: &str, theirs: &str| own.is_empty() || own == theirs;
        same(&self.effect, &taint.effect)
            && same(&self.key, &taint.key)
            && match self.operator.as_str() {
                "" | "Equal" => self.value == taint.value,
                "Exists" => true,
                _ => false,
            }
    }
}

/// What the devices of these requests, or of all, must have in common, or must not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceConstraint {
    pub requests: Vec<String>,
    pub match_attribute: Option<String>,
    pub distinct_attribute: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaimStatus {
    pub allocation: Option<AllocationResult>,
    pub reserved_for: Vec<ResourceClaimConsumerReference>,
    pub devices: Vec<AllocatedDeviceStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaimConsumerReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    pub resource: String,
    pub name: String,
    pub uid: String,
}

impl ResourceClaimConsumerReference {
    pub fn pod(meta: &ObjectMeta) -> Self {
        let (resource, name, uid) = ("pods".to_owned(), meta.name.clone(), meta.uid.clone());
        ResourceClaimConsumerReference { api_group: String::new(), resource, name, uid }
    }

    pub fn is_pod(&self) -> bool {
        self.api_group.is_empty() && self.resource == "pods"
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocatedDeviceStatus {
    pub driver: String,
    pub pool: String,
    pub device: String,
    #[serde(rename = "shareID")]
    pub share_id: Option<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocationResult {
    pub devices: DeviceAllocationResult,
    /// Where the devices can be reached; everywhere when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
    #[serde(with = "time::rfc3339", skip_serializing_if = "Option::is_none")]
    pub allocation_timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceAllocationResult {
    pub results: Vec<DeviceRequestAllocationResult>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRequestAllocationResult {
    /// `REQUEST`, or `REQUEST/SUBREQUEST`.
    pub request: String,
    pub driver: String,
    pub pool: String,
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_access: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<DeviceToleration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binding_conditions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binding_failure_conditions: Vec<String>,
    /// Tells the shares of a device apart that several claims may have.
    #[serde(rename = "shareID", skip_serializing_if = "Option::is_none")]
    pub share_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub consumed_capacity: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceSlice {
    pub metadata: ObjectMeta,
    pub spec: ResourceSliceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceSliceSpec {
    pub driver: String,
    pub pool: ResourcePool,
    #[serde(flatten)]
    pub reach: Reach,
    /// Each device says for itself where it can be reached.
    pub per_device_node_selection: Option<bool>,
    pub devices: Vec<Device>,
    pub shared_counters: Vec<CounterSet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcePool {
    pub name: String,
    /// Slices of an older one are out of date.
    pub generation: i64,
    /// How many slices of this generation there are, once all are published.
    pub resource_slice_count: i64,
}

/// From which nodes something can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reach {
    pub node_name: Option<String>,
    pub node_selector: Option<NodeSelector>,
    pub all_nodes: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    pub name: String,
    /// By name, with the domain before a `/` where it is not the driver's.
    pub attributes: BTreeMap<String, DeviceAttribute>,
    pub capacity: BTreeMap<String, DeviceCapacity>,
    pub consumes_counters: Vec<CounterSet>,
    #[serde(flatten)]
    pub reach: Reach,
    pub taints: Vec<DeviceTaint>,
    pub binds_to_node: Option<bool>,
    pub binding_conditions: Vec<String>,
    pub binding_failure_conditions: Vec<String>,
    pub allow_multiple_allocations: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceAttribute {
    Int(i64),
    Bool(bool),
    String(String),
    /// As semver.org has it.
    Version(String),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceCapacity {
    pub value: Quantity,
    pub request_policy: Option<CapacityRequestPolicy>,
}

/// Which shares of a capacity there are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CapacityRequestPolicy {
    pub default: Option<Quantity>,
    pub valid_values: Vec<Quantity>,
    pub valid_range: Option<CapacityRequestPolicyRange>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CapacityRequestPolicyRange {
    pub min: Option<Quantity>,
    pub max: Option<Quantity>,
    pub step: Option<Quantity>,
}

/// What parts of one device share; `counterSet` names it where a device says what it takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CounterSet {
    #[serde(alias = "counterSet")]
    pub name: String,
    pub counters: BTreeMap<String, Counter>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Counter {
    pub value: Quantity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceTaint {
    pub key: String,
    pub value: String,
    /// `None`, `NoSchedule` or `NoExecute`.
    pub effect: String,
    #[serde(with = "time::rfc3339")]
    pub time_added: Option<Timestamp>,
}

/// Whether devices of a class may be meant (upstream: `IsDRAExtendedResourceName`).
pub fn may_be_devices(resource: &str) -> bool {
    is_extended_resource(resource) || resource.starts_with(DEVICE_CLASS_RESOURCES)
}

/// The name of the claim that a pod means; `Ok(None)` where it was found that none is needed. Whoever finds a claim
/// made from a template has to check that it is the pod's (upstream: `resourceclaim.Name`).
pub fn claim_name<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Result<Option<&'a str>, String> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some(name));
    }
    let pod_name = pod.metadata.namespaced_name();
    if claim.resource_claim_template_name.is_none() {
        return Err(format!(
            "pod \"{pod_name}\", spec.resourceClaim {:?}: none of the supported fields are set",
            claim.name
        ));
    }
    let status = pod.status.resource_claim_statuses.iter().find(|status| status.name == claim.name);
    match status {
        Some(status) => Ok(status.resource_claim_name.as_deref()),
        None => Err(format!("pod \"{pod_name}\": ResourceClaim not created yet")),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_pod_means_the_claim_it_names_or_the_one_that_was_made_for_it() {
        let mut pod: Pod =
            apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let named: PodResourceClaim =
            apimachinery::from_value(json!({"name": "a", "resourceClaimName": "c"})).unwrap();
        let made: PodResourceClaim =
            apimachinery::from_value(json!({"name": "b", "resourceClaimTemplateName": "t"})).unwrap();
        assert_eq!(claim_name(&pod, &named), Ok(Some("c")));
        let missing = "pod \"n/p\": ResourceClaim not created yet".to_owned();
        assert_eq!(claim_name(&pod, &made), Err(missing));
        let statuses = json!([{"name": "b", "resourceClaimName": "p-b-x"}]);
        pod.status.resource_claim_statuses = apimachinery::from_value(statuses).unwrap();
        assert_eq!(claim_name(&pod, &made), Ok(Some("p-b-x")));
        pod.status.resource_claim_statuses[0].resource_claim_name = None;
        assert_eq!(claim_name(&pod, &made), Ok(None));
    }

    #[test]
    fn slices_and_claims_are_read_as_the_api_spells_them() {
        let slice: ResourceSlice = apimachinery::from_value(json!({"metadata": {"name": "s"}, "spec": {
            "driver": "d", "pool": {"name": "p", "generation": 2, "resourceSliceCount": 1}, "nodeName": "n",
            "devices": [{"name": "x", "attributes": {"a": {"int": 3}, "b": {"version": "1.0.0"}},
                "capacity": {"memory": {"value": "1Gi"}}, "allNodes": true,
                "consumesCounters": [{"counterSet": "k", "counters": {"c": {"value": "2"}}}]}],
        }}))
        .unwrap();
        assert_eq!(slice.spec.reach.node_name.as_deref(), Some("n"));
        let device = &slice.spec.devices[0];
        assert_eq!(device.attributes["a"], DeviceAttribute::Int(3));
        assert_eq!((device.consumes_counters[0].name.as_str(), device.reach.all_nodes), ("k", Some(true)));
        let claim: ResourceClaim = apimachinery::from_value(json!({"spec": {"devices": {"requests": [
            {"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c", "count": 2}]}]}}}))
        .unwrap();
        let alternative = &claim.spec.devices.requests[0].first_available[0];
        assert_eq!((alternative.name.as_str(), alternative.exactly.count), ("s", 2));
    }

    #[test]
    fn a_toleration_without_a_key_tolerates_any() {
        let check = |toleration: Value, expect: bool| {
            let toleration: DeviceToleration = apimachinery::from_value(toleration).unwrap();
            let taint = DeviceTaint {
                key: "k".into(),
                value: "v".into(),
                effect: "NoSchedule".into(),
                time_added: None,
            };
            assert_eq!(toleration.tolerates(&taint), expect, "{toleration:?}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "v"}), true);
        check(json!({"key": "k", "value": "w"}), false);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
    }
}
