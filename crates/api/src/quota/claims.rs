//! How claims are counted: for volumes and for devices. Follows `pvcEvaluator` and `claimEvaluator`.

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};
use apimachinery::quantity::{Format, Quantity};

use super::evaluator::one;
use super::{ResourceList, Scope, amounts};
use crate::columns::items;

const CLAIMS: &str = "persistentvolumeclaims";
const REQUESTS_STORAGE: &str = "requests.storage";
const PER_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
pub(super) const DEVICES_PER_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Before storage classes were a field.
const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// As many devices as one claim can be given (upstream: AllocationResultsMaxSize).
const DEVICES_MAX: i64 = 32;

pub(super) fn counts_volume_claims_as(name: &str) -> bool {
    let base = name.split_once(PER_STORAGE_CLASS).map_or(name, |(_, base)| base);
    base == CLAIMS || base == REQUESTS_STORAGE
}

/// The class a claim for a volume names, empty for none (follows `GetPersistentVolumeClaimClass`).
pub fn storage_class(claim: &Value) -> &str {
    match value_at(claim, &["metadata", "annotations", BETA_STORAGE_CLASS]).and_then(Value::as_str) {
        Some(class) => class,
        None => str_at(claim, &["spec", "storageClassName"]),
    }
}

pub(super) fn volume_claim(claim: &Value) -> ResourceList {
    let mut usage = ResourceList::from([(CLAIMS.to_owned(), one())]);
    if let Some(storage) = storage(claim) {
        usage.insert(REQUESTS_STORAGE.to_owned(), storage);
    }
    let class = storage_class(claim);
    if !class.is_empty() {
        let by_class = |(name, amount): (&String, &_)| (format!("{class}{PER_STORAGE_CLASS}{name}"), *amount);
        let scoped: ResourceList = usage.iter().map(by_class).collect();
        usage.extend(scoped);
    }
    usage
}

/// What was asked for, or was allocated already if that is more; in whole bytes.
fn storage(claim: &Value) -> Option<Quantity> {
    let resources = claim.get("spec").and_then(|spec| spec.get("resources"));
    let asked = *amounts(resources, "requests").get("storage")?;
    let allocated = amounts(claim.get("status"), "allocatedResources").get("storage").copied();
    let most = allocated.filter(|allocated| *allocated > asked).unwrap_or(asked);
    let whole = Quantity::new(most.value(), most.format());
    Some(if whole == most { most } else { whole })
}

pub(super) fn matches_scope(scope: &Scope, claim: &Value) -> bool {
    if scope.name != "VolumeAttributesClass" {
        return false;
    }
    let named = [
        str_at(claim, &["spec", "volumeAttributesClassName"]),
        str_at(claim, &["status", "currentVolumeAttributesClassName"]),
        str_at(claim, &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ];
    let mut named = named.into_iter().filter(|name| !name.is_empty()).peekable();
    if named.peek().is_none() {
        return !scope.is_mere_existence() && scope.selects(None);
    }
    named.any(|name| scope.selects(Some(name)))
}

pub(super) fn resource_claim(claim: &Value) -> ResourceList {
    let mut usage = ResourceList::new();
    for request in items(claim, &["spec", "devices", "requests"]) {
        let alternatives = items(request, &["firstAvailable"]);
        let wanted: BTreeMap<&str, i64> = if alternatives.is_empty() {
            request.get("exactly").into_iter().map(devices).collect()
        } else {
            worst_case(alternatives)
        };
        for (class, count) in wanted {
            let devices = Quantity::new(count, Format::DecimalSi);
            usage.entry(format!("{class}{DEVICES_PER_CLASS}")).or_default().add(&devices);
        }
    }
    usage
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
        "All" => DEVICES_MAX,
        _ => 0,
    };
    (str_at(request, &["deviceClassName"]), count)
}
