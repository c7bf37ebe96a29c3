//! What a PersistentVolume may hold, and what may change (follows `ValidatePersistentVolume`,
//! `ValidatePersistentVolumeUpdate`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::sources::{self, SOURCES};
use super::{ACCESS_MODES, VOLUME_MODES};
use crate::columns::items;
use crate::core::pod::validation::affinity::node_selector;
use crate::core::pod::validation::update::difference;
use crate::objectmeta::FIELD_IMMUTABLE;
use crate::strategy::drop_field;
use crate::validation::{At, basic_quantity, dns1123_subdomain, positive_quantity, same, same_field};

/// The annotation that held mount options before the field did.
pub const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const IN_LINE: &str = "in the context of inline volumes";

/// Sources whose drivers take mount options from the annotation.
const TAKE_MOUNT_OPTIONS: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

/// Beta labels of nodes, and what they became.
const GA_LABELS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

pub fn validate(obj: &Value) -> ErrorList {
    check(obj, true)
}

fn check(obj: &Value, check_label_values: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    access_modes(&spec, &mut errors);
    capacity(&spec.get("capacity"), &mut errors);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy.text()) {
        errors.push(policy.not_supported(&RECLAIM_POLICIES));
    }
    node_affinity(&spec, check_label_values, &mut errors);
    source(&spec, str_at(obj, &["metadata", "name"]), &mut errors);
    if is_root(spec.at(&["hostPath", "path"]).text()) && policy.text() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    classes(&spec, &mut errors);
    let annotated = At::root(obj).at(&["metadata", "annotations"]).get(MOUNT_OPTIONS).is_set();
    if annotated && !TAKE_MOUNT_OPTIONS.iter().any(|source| spec.get(source).is_set()) {
        let path = Path::new("metadata").child("annotations").child(MOUNT_OPTIONS);
        errors.push(Error::forbidden(&path, "may not specify mount options for this volume type"));
    }
    errors
}

/// A volume's spec inside a VolumeAttachment.
pub fn inline_spec(spec: &At, errors: &mut ErrorList) {
    let mut forbid = |field: &str, detail: String| errors.push(spec.get(field).forbidden(detail));
    for field in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        let at = spec.get(field);
        if at.is_set() && at.value != &json!({}) && at.value != "" {
            forbid(field, format!("may not be specified {IN_LINE}"));
        }
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() && policy.text() != "Retain" {
        forbid("persistentVolumeReclaimPolicy", format!("may only be Retain {IN_LINE}"));
    }
    if spec.get("volumeMode").is_set() && spec.get("volumeMode").text() != "Filesystem" {
        forbid("volumeMode", format!("may not specify volumeMode other than Filesystem {IN_LINE}"));
    }
    if !spec.get("csi").is_set() {
        errors.push(spec.get("csi").required(format!("has to be specified {IN_LINE}")));
    }
    access_modes(spec, errors);
    source(spec, "", errors);
}

/// The access modes of a volume.
fn access_modes(spec: &At, errors: &mut ErrorList) {
    if spec.get("accessModes").is_empty() {
        errors.push(spec.get("accessModes").required(""));
    }
    check_access_modes(spec, errors);
}

/// Known modes, and the one that stands alone; of volumes and claims.
pub fn check_access_modes(spec: &At, errors: &mut ErrorList) {
    let at = spec.get("accessModes");
    let modes = at.texts();
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.push(Error::not_supported(&at.path, *mode, &ACCESS_MODES));
    }
    let shared = |mode: &&str| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode);
    if modes.contains(&"ReadWriteOncePod") && modes.iter().any(shared) {
        errors.push(at.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

fn capacity(capacity: &At, errors: &mut ErrorList) {
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    if !capacity.get("storage").is_set() || capacity.len() > 1 {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, quantity) in capacity.entries() {
        basic_quantity(&quantity, errors);
        positive_quantity(&quantity, errors);
    }
}

fn node_affinity(spec: &At, check_label_values: bool, errors: &mut ErrorList) {
    let Some(affinity) = spec.field("nodeAffinity") else { return };
    match affinity.field("required") {
        Some(selector) => node_selector(&selector, check_label_values, errors),
        None => errors.push(affinity.get("required").required("must specify required node constraints")),
    }
}

fn source(spec: &At, name: &str, errors: &mut ErrorList) {
    let mut found = false;
    for (field, shown, check) in SOURCES {
        let Some(at) = spec.field(field) else { continue };
        // Upstream checks a flexVolume whatever else there is.
        if found && field != "flexVolume" {
            errors.push(Error::forbidden(&spec.path.child(shown), ONE_SOURCE));
            continue;
        }
        found = true;
        check(&at, errors);
        if field == "iscsi" {
            sources::iscsi_portal(name, &at, errors);
        }
        if field == "local" && !spec.get("nodeAffinity").is_set() {
            errors.push(spec.get("nodeAffinity").required("Local volume requires node affinity"));
        }
    }
    if !found {
        errors.push(spec.required("must specify a volume type"));
    }
}

/// Whether a path is `/` in whatever spelling.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && {
        let depth =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").try_fold(0u32, |depth, part| {
                if part == ".." { Some(depth.saturating_sub(1)) } else { depth.checked_add(1) }
            });
        depth == Some(0)
    }
}

fn classes(spec: &At, errors: &mut ErrorList) {
    let (class, mode, attributes) =
        (spec.get("storageClassName"), spec.get("volumeMode"), spec.get("volumeAttributesClassName"));
    if !class.is_empty() {
        dns1123_subdomain(&class, errors);
    }
    mode.check_optional_enum(&VOLUME_MODES, errors);
    if !attributes.is_set() {
        return;
    }
    if attributes.is_empty() {
        errors.push(attributes.required("an empty string is disallowed"));
    } else {
        dns1123_subdomain(&attributes, errors);
    }
    if !spec.get("csi").is_set() {
        errors.push(spec.get("csi").required("has to be specified when using volumeAttributesClassName"));
    }
}

pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    // Label values that were let in once may stay.
    let mut errors = check(obj, !has_invalid_label_values(old));
    let (new_source, old_source) = (only_source(obj, old), only_source(old, old));
    if !same(&new_source, &old_source) {
        let detail = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            difference(&old_source, &new_source)
        );
        errors.push(Error::forbidden(&Path::new("spec").child("persistentvolumesource"), detail));
    }
    let (spec, old_spec) = (At::root(obj).get("spec"), At::root(old).get("spec"));
    let mode = spec.get("volumeMode").under(&Path::new("volumeMode"));
    mode.check_unchanged(&old_spec.get("volumeMode"), &mut errors);
    let affinity = spec.get("nodeAffinity");
    if old_spec.get("nodeAffinity").is_set()
        && !same_affinity(affinity.value, old_spec.get("nodeAffinity").value)
    {
        let detail = format!("{FIELD_IMMUTABLE}, except for updating from beta label to GA");
        errors.push(affinity.under(&Path::new("nodeAffinity")).invalid(detail));
    }
    let attributes = spec.get("volumeAttributesClassName");
    if old_spec.get("volumeAttributesClassName").is_set() && !attributes.is_set() {
        errors.push(attributes.forbidden("update from non-nil value to nil is forbidden"));
    }
    errors
}

fn has_invalid_label_values(obj: &Value) -> bool {
    items(obj, &["spec", "nodeAffinity", "required", "nodeSelectorTerms"])
        .iter()
        .flat_map(|term| items(term, &["matchExpressions"]))
        .flat_map(|requirement| items(requirement, &["values"]))
        .filter_map(Value::as_str)
        .any(|value| !apimachinery::names::is_label_value(value).is_empty())
}

/// The source alone. A secret for expansion may be added where the old volume had none.
fn only_source(obj: &Value, old: &Value) -> Value {
    const SECRET: &str = "controllerExpandSecretRef";
    let mut source = json!({});
    for (field, _, _) in SOURCES {
        if let Some(value) = obj.pointer("/spec").and_then(|spec| spec.get(field)) {
            source[field] = value.clone();
        }
    }
    let old_csi = old.pointer("/spec/csi");
    if old_csi.is_some_and(|csi| csi.get(SECRET).is_none_or(Value::is_null))
        && let Some(csi) = source.get_mut("csi")
    {
        drop_field(csi, SECRET);
    }
    source
}

/// Whether nothing changed but beta labels that became GA (follows `getMaskNodeSelectorLabelChangeEqualities`).
fn same_affinity(new: &Value, old: &Value) -> bool {
    let mut old = old.clone();
    let terms = |affinity: &Value| items(affinity, &["required", "nodeSelectorTerms"]).to_vec();
    let new_terms = terms(new);
    for (i, term) in terms(&old).iter().enumerate() {
        for (j, requirement) in items(term, &["matchExpressions"]).iter().enumerate() {
            let Some(new_requirement) = new_terms.get(i).and_then(|t| items(t, &["matchExpressions"]).get(j))
            else {
                continue;
            };
            let key = (str_at(requirement, &["key"]), str_at(new_requirement, &["key"]));
            if GA_LABELS.contains(&key) && !same_field(requirement, new_requirement, "key") {
                old["required"]["nodeSelectorTerms"][i]["matchExpressions"][j]["key"] = key.1.into();
            }
        }
    }
    same(new, &old)
}
