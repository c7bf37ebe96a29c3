//! How claims for devices are counted: by their class, and by the extended resource that devices of the class are. Follows
//! `claimEvaluator`.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Value;
use apimachinery::meta::{ObjectMeta, OwnerReference, str_at};
use apimachinery::quantity::{Format, Quantity};
use serde::Deserialize;

use super::pods::{self, REQUESTS};
use super::{Counting, ResourceList};
use crate::columns::items;
use crate::resource::PODS;
use crate::view::dynamicresource::{
    ALLOCATION_RESULTS_MAX, DEVICE_CLASS_RESOURCES, extended_resources_owner,
};

pub(super) const CLAIMS: &str = "resourceclaims.resource.k8s.io";
const PER_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

/// By the name alone: which extended resources are devices, [`are_devices`] tells.
pub(super) fn may_count(name: &str) -> bool {
    name.ends_with(PER_CLASS) || pods::extended_resource(name).is_some()
}

/// Whether what the limit names is devices as long as the classes are what they are.
pub(super) fn are_devices(name: &str, counting: &Counting) -> bool {
    let Some(resource) = pods::extended_resource(name) else { return true };
    let classes = (counting.device_classes)();
    match resource.strip_prefix(DEVICE_CLASS_RESOURCES) {
        Some(class) => classes.iter().any(|found| name_of(found) == class),
        None => classes.iter().any(|found| extended_resource_of(found) == resource),
    }
}

fn extended_resource_of(class: &Value) -> &str {
    str_at(class, &["spec", "extendedResourceName"])
}

pub(super) fn usage(claim: &Value, counting: &Counting) -> ResourceList {
    let per_class = per_class(claim);
    let mut usage = extended_resources(&per_class, counting);
    let charged = charged_with_pod(claim, counting);
    for (name, amount) in &mut usage {
        if let Some(charged) = charged.get(name) {
            amount.sub(charged);
        }
    }
    usage.retain(|_, amount| amount.sign() > 0);
    usage.extend(per_class.into_iter().map(|(class, amount)| (format!("{class}{PER_CLASS}"), amount)));
    usage
}

/// The same devices under the names by which pods ask for them.
fn extended_resources(per_class: &BTreeMap<&str, Quantity>, counting: &Counting) -> ResourceList {
    let mut found = ResourceList::new();
    if per_class.is_empty() {
        return found;
    }
    let classes = (counting.device_classes)();
    for (class, amount) in per_class {
        found.entry(format!("{REQUESTS}{DEVICE_CLASS_RESOURCES}{class}")).or_default().add(amount);
        let stored = classes.iter().find(|found| name_of(found) == *class);
        if let Some(resource) =
            stored.map(|class| extended_resource_of(class)).filter(|name| !name.is_empty())
        {
            found.entry(format!("{REQUESTS}{resource}")).or_default().add(amount);
        }
    }
    found
}

/// What is paid for already: of a claim that was made for a pod's extended resources, that pod is charged. A claim that
/// only says so is not believed.
fn charged_with_pod(claim: &Value, counting: &Counting) -> ResourceList {
    let Some(owner) = pod_of(claim) else { return ResourceList::new() };
    let is_owner =
        |pod: &Arc<Value>| (name_of(pod), str_at(pod, &["metadata", "uid"])) == (&owner.name, &owner.uid);
    let Some(pod) = (counting.list)("pods").into_iter().find(is_owner) else { return ResourceList::new() };
    let its_claim = str_at(&pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]);
    let is_its_claim =
        if its_claim.is_empty() { is_first(claim, &owner, counting) } else { its_claim == name_of(claim) };
    if is_its_claim { pods::usage(&pod, counting.now) } else { ResourceList::new() }
}

/// The pod for whose extended resources the claim says it was made.
fn pod_of(claim: &Value) -> Option<OwnerReference> {
    let metadata = ObjectMeta::deserialize(&claim["metadata"]).ok()?;
    let owner = extended_resources_owner(&metadata)?;
    (owner.kind == PODS.kind && owner.api_version == PODS.api_version()).then(|| owner.clone())
}

/// Whether no other claim says that it was made for this pod, and is older.
fn is_first(claim: &Value, owner: &OwnerReference, counting: &Counting) -> bool {
    let age = |claim: &Value| {
        (str_at(claim, &["metadata", "creationTimestamp"]).to_owned(), name_of(claim).to_owned())
    };
    let own = age(claim);
    let all = (counting.list)(CLAIMS);
    let mut of_pod = all.iter().filter(|other| pod_of(other).is_some_and(|other| other.uid == owner.uid));
    of_pod.all(|other| age(other) >= own)
}

fn name_of(object: &Value) -> &str {
    str_at(object, &["metadata", "name"])
}

fn per_class(claim: &Value) -> BTreeMap<&str, Quantity> {
    let mut found = BTreeMap::<_, Quantity>::new();
    for request in items(claim, &["spec", "devices", "requests"]) {
        let alternatives = items(request, &["firstAvailable"]);
        let wanted: BTreeMap<&str, i64> = if alternatives.is_empty() {
            request.get("exactly").into_iter().map(devices).collect()
        } else {
            worst_case(alternatives)
        };
        for (class, count) in wanted {
            found.entry(class).or_default().add(&Quantity::new(count, Format::DecimalSi));
        }
    }
    found
}

/// Any of the alternatives may come to be: each class counts as often as the largest of them.
fn worst_case(alternatives: &[Value]) -> BTreeMap<&str, i64> {
    let mut most = BTreeMap::new();
    for (class, count) in alternatives.iter().map(devices) {
        let largest = most.entry(class).or_insert(0);
        *largest = count.max(*largest);
    }
    most
}

fn devices(request: &Value) -> (&str, i64) {
    let count = match str_at(request, &["allocationMode"]) {
        "ExactCount" => request.get("count").and_then(Value::as_i64).unwrap_or_default(),
        "All" => i64::try_from(ALLOCATION_RESULTS_MAX).unwrap_or(i64::MAX),
        _ => 0,
    };
    (str_at(request, &["deviceClassName"]), count)
}
