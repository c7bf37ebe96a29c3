//! What a PersistentVolumeClaim may hold, and what may change (follows `ValidatePersistentVolumeClaim`,
//! `ValidatePersistentVolumeClaimUpdate`, `ValidatePersistentVolumeClaimStatusUpdate`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};

use crate::core::persistentvolume::validation::check_access_modes;
use crate::core::persistentvolume::{BETA_STORAGE_CLASS, VOLUME_MODES};
use crate::core::pod::validation::update::difference;
use crate::strategy::{drop_field, keep};
use crate::validation::{
    At, basic_quantity, dns1123_label, dns1123_subdomain, is_native_resource, label_selector,
    positive_quantity, resource_quantity, same, same_field,
};

const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizePending",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
];

/// What older objects had and may keep.
#[derive(Clone, Copy, Default)]
pub struct Lenience {
    /// API groups of data sources that are no DNS names.
    pub invalid_api_group: bool,
}

pub fn validate(obj: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_spec(&At::root(obj).get("spec"), Lenience::default(), &mut errors);
    errors
}

/// A claim's spec, also in templates of StatefulSets and ephemeral volumes.
pub fn validate_spec(spec: &At, lenience: Lenience, errors: &mut ErrorList) {
    if spec.get("accessModes").is_empty() {
        errors.push(spec.get("accessModes").required("at least 1 access mode is required"));
    }
    label_selector(&spec.get("selector"), errors);
    check_access_modes(spec, errors);
    let size =
        spec.at(&["resources", "requests", "storage"]).under(&spec.path.child("resources").key("storage"));
    if size.is_set() {
        let before = errors.len();
        positive_quantity(&size, errors);
        if errors.len() == before {
            resource_quantity("storage", &size, errors);
        }
    } else {
        errors.push(size.required(""));
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        dns1123_subdomain(&class, errors);
    }
    spec.get("volumeMode").check_optional_enum(&VOLUME_MODES, errors);
    data_sources(spec, lenience, errors);
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.is_empty() {
        dns1123_subdomain(&attributes, errors);
    }
}

fn data_sources(spec: &At, lenience: Lenience, errors: &mut ErrorList) {
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for at in source.iter().chain(&reference) {
        data_source(at, lenience, errors);
    }
    let Some((source, reference)) = source.zip(reference) else { return };
    let crosses = !reference.get("namespace").is_empty();
    let matches = ["apiGroup", "kind", "name"].iter().all(|f| same_field(source.value, reference.value, f));
    let complaint = match (crosses, matches) {
        (true, _) => "may not be specified when dataSourceRef.namespace is specified",
        (false, false) => "must match dataSourceRef",
        (false, true) => return,
    };
    errors.push(Error::invalid(&spec.path, source.path.as_str(), complaint));
}

fn data_source(source: &At, lenience: Lenience, errors: &mut ErrorList) {
    for field in ["name", "kind"] {
        if source.get(field).is_empty() {
            errors.push(source.get(field).required(""));
        }
    }
    let (group, kind, namespace) = (source.get("apiGroup"), source.get("kind"), source.get("namespace"));
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(&source.path, kind.text(), detail));
    }
    if !group.is_empty() && !lenience.invalid_api_group {
        dns1123_subdomain(&group, errors);
    }
    if !namespace.is_empty() {
        dns1123_label(&namespace, errors);
    }
}

pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (spec, old_spec) = (At::root(obj).get("spec"), At::root(old).get("spec"));
    let names_group = |field: &str| old_spec.at(&[field, "apiGroup"]).is_set();
    let lenience = Lenience { invalid_api_group: names_group("dataSource") || names_group("dataSourceRef") };
    validate_spec(&spec, lenience, &mut errors);
    let (new_class, old_class) = (spec.get("storageClassName"), old_spec.get("storageClassName"));
    let annotation = |obj: &Value| -> Option<String> {
        Some(obj.pointer("/metadata/annotations")?.get(BETA_STORAGE_CLASS)?.as_str()?.to_owned())
    };
    let upgrade = class_upgrade(&new_class, &old_class, annotation(obj), annotation(old));
    if upgrade != Some(Upgrade::FromAnnotation) && annotation(obj) != annotation(old) {
        let path = Path::new("metadata").child("annotations").key(BETA_STORAGE_CLASS);
        let new = annotation(obj).unwrap_or_default();
        errors.push(Error::invalid(&path, new, crate::objectmeta::FIELD_IMMUTABLE));
    }
    let munged = munge(spec.value, old_spec.value, is_bound(obj), upgrade.is_some());
    if !same(&munged.0, &munged.1) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            difference(&munged.1, &munged.0)
        );
        errors.push(Error::forbidden(&spec.path, detail));
    }
    shrinking(obj, old, &mut errors);
    let mode = spec.get("volumeMode").under(&Path::new("volumeMode"));
    mode.check_unchanged(&old_spec.get("volumeMode"), &mut errors);
    attributes_class(&spec, &old_spec, old, &mut errors);
    errors
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    /// The class moves from the annotation into the field.
    FromAnnotation,
    /// A claim without a class gets one.
    FromNothing,
}

/// Whether the class changes in one of the two ways that are allowed.
fn class_upgrade(new: &At, old: &At, new_note: Option<String>, old_note: Option<String>) -> Option<Upgrade> {
    if old.is_set() || !new.is_set() {
        return None;
    }
    match old_note {
        Some(class) if class != new.text() => None,
        Some(class) if new_note.is_none_or(|note| note == class) => Some(Upgrade::FromAnnotation),
        _ => Some(Upgrade::FromNothing),
    }
}

fn is_bound(obj: &Value) -> bool {
    str_at(obj, &["status", "phase"]) == "Bound"
}

/// Both specs without what may change.
fn munge(new: &Value, old: &Value, bound: bool, class_upgraded: bool) -> (Value, Value) {
    let (mut new, mut old) = (new.clone(), old.clone());
    if str_at(&old, &["volumeName"]).is_empty() {
        drop_field(&mut new, "volumeName");
        drop_field(&mut old, "volumeName");
    }
    if class_upgraded {
        keep(&mut new, &old, "storageClassName");
    }
    if bound {
        let size = old.pointer("/resources/requests/storage").cloned();
        if let (Some(requests), Some(size)) = (new.pointer_mut("/resources/requests"), size) {
            requests["storage"] = size;
        }
        keep(&mut new, &old, "volumeAttributesClassName");
    }
    (new, old)
}

/// A claim may ask for less only down to what its volume has already.
fn shrinking(obj: &Value, old: &Value, errors: &mut ErrorList) {
    const SIZE: [&str; 4] = ["spec", "resources", "requests", "storage"];
    let size = At::root(obj).at(&SIZE);
    let (Some(new), Some(before)) = (size.quantity(), At::root(old).at(&SIZE).quantity()) else { return };
    let held = At::root(old).at(&["status", "capacity", "storage"]).quantity();
    let exceeds_held = held.map_or(new.sign() > 0, |held| new > held);
    if new < before && !exceeds_held {
        errors.push(size.forbidden("field can not be less than status.capacity"));
    }
}

fn attributes_class(spec: &At, old_spec: &At, old: &Value, errors: &mut ErrorList) {
    let (new, before) = (spec.get("volumeAttributesClassName"), old_spec.get("volumeAttributesClassName"));
    let has_current = At::root(old).at(&["status", "currentVolumeAttributesClassName"]).is_set();
    if same(new.value, before.value) || !has_current {
        return;
    }
    if !new.is_set() {
        errors.push(
            new.forbidden(
                "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
            ),
        );
    } else if new.is_empty() {
        errors.push(new.forbidden(
            "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil",
        ));
    }
}

pub fn validate_status(obj: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(obj);
    if root.at(&["spec", "accessModes"]).is_empty() {
        errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let status = root.get("status");
    for (_, quantity) in status.get("capacity").entries() {
        basic_quantity(&quantity, &mut errors);
    }
    let statuses = status.get("allocatedResourceStatuses");
    for (key, value) in statuses.entries() {
        resource_key(key, &statuses.path, &mut errors);
        if !RESIZE_STATUSES.contains(&value.text()) {
            errors.push(Error::not_supported(&statuses.path, key, &RESIZE_STATUSES));
        }
    }
    let allocated = status.get("allocatedResources");
    for (key, quantity) in allocated.entries() {
        let before = errors.len();
        resource_key(key, &allocated.path, &mut errors);
        if errors.len() == before {
            basic_quantity(&quantity, &mut errors);
        }
        if errors.len() == before {
            resource_quantity("storage", &quantity, &mut errors);
        }
    }
    errors
}

fn resource_key(key: &str, path: &Path, errors: &mut ErrorList) {
    let complaints = names::is_qualified_name(key);
    if complaints.is_empty() && is_native_resource(key) && key != "storage" {
        errors.push(Error::not_supported(path, key, &["storage"]));
    }
    errors.extend(complaints.into_iter().map(|complaint| Error::invalid(path, key, complaint)));
}
