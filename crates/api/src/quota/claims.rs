//! How claims for volumes are counted. Follows `pvcEvaluator`.

use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};
use apimachinery::quantity::Quantity;

use super::evaluator::one;
use super::{ResourceList, Scope, amounts};

const CLAIMS: &str = "persistentvolumeclaims";
const REQUESTS_STORAGE: &str = "requests.storage";
const PER_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Before storage classes were a field.
const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

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
