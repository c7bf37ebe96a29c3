//! PersistentVolumeClaim (follows `pkg/registry/core/persistentvolumeclaim`).

pub mod validation;

use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::persistentvolume::{BETA_STORAGE_CLASS, access_modes, capacity, storage_class, unset_or};
use crate::columns::{AGE, NAME, age, column, items, name, wide};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, drop_field, keep};
use crate::validation::At;

const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

const COLUMNS: [Column; 9] = [
    NAME,
    column("Status", "string", "Phase of its life."),
    column("Volume", "string", "Volume it is bound to."),
    column("Capacity", "string", "Storage of that volume."),
    column("Access Modes", "string", "How that volume can be mounted."),
    column("StorageClass", "string", "Class of volume it asks for."),
    column("VolumeAttributesClass", "string", "Class of attributes it asks for."),
    AGE,
    wide("VolumeMode", "string", "Whether it asks for a file system or a block device."),
];

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, obj: &mut Value) {
        if let Some(status) = object_or_new(obj, "status") {
            fill(status, &[("phase", Fill::Text("Pending"))]);
        }
        if let Some(spec) = object_or_new(obj, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"phase": "Pending"});
        if let Some(spec) = object(obj, "spec") {
            settle_data_source(spec, None);
        }
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        if let Some(spec) = object(obj, "spec") {
            settle_data_source(spec, old.get("spec"));
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old)
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        validation::validate_status(obj)
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        let annotations = At::root(obj).at(&["metadata", "annotations"]);
        let mut warnings = Vec::new();
        if annotations.get(BETA_STORAGE_CLASS).is_set() {
            warnings.push(format!(
                "{}: deprecated since v1.8; use \"storageClassName\" attribute instead",
                annotations.path.key(BETA_STORAGE_CLASS)
            ));
        }
        warnings.extend(spec_warnings(&At::root(obj).get("spec")));
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let phase = match obj.pointer("/metadata/deletionTimestamp") {
            Some(time) if !time.is_null() => "Terminating",
            _ => str_at(obj, &["status", "phase"]),
        };
        let volume = str_at(obj, &["spec", "volumeName"]);
        let (size, modes) = if volume.is_empty() {
            ("".into(), String::new())
        } else {
            (
                capacity(obj.pointer("/status/capacity/storage")),
                access_modes(items(obj, &["status", "accessModes"])),
            )
        };
        vec![
            name(obj),
            phase.into(),
            volume.into(),
            size,
            modes.into(),
            storage_class(obj).into(),
            unset_or(obj.pointer("/spec/volumeAttributesClassName")),
            age(obj, now),
            unset_or(obj.pointer("/spec/volumeMode")),
        ]
    }
}

/// Defaults of a claim's spec, also in templates.
pub fn default_spec(spec: &mut Value) {
    fill(spec, &[("volumeMode", Fill::Text("Filesystem"))]);
}

/// Warnings about a claim's spec, also in templates.
pub fn spec_warnings(spec: &At) -> Vec<String> {
    let fractional = |part: &str| {
        let at = spec.at(&["resources", part]);
        let quantity = at.get("storage").quantity().filter(|q| q.milli_value() % 1000 != 0)?;
        let path = at.path.key("storage");
        Some(format!("{path}: fractional byte value \"{quantity}\" is invalid, must be an integer"))
    };
    ["requests", "limits"].into_iter().filter_map(fractional).collect()
}

/// Drops what the older of the two fields could never name, and then gives each field the other's content
/// (follows `EnforceDataSourceBackwardsCompatibility`, `NormalizeDataSources`).
fn settle_data_source(spec: &mut Value, old: Option<&Value>) {
    let is_set = |spec: &Value, field: &str| spec.get(field).is_some_and(|v| !v.is_null());
    let in_use = |field: &str| old.is_some_and(|old| is_set(old, field));
    // References across namespaces are behind a gate that is off.
    let crosses = !str_at(spec, &["dataSourceRef", "namespace"]).is_empty();
    if crosses && !in_use("dataSourceRef") {
        drop_field(spec, "dataSourceRef");
    }
    let may_be_anything = in_use("dataSource") || in_use("dataSourceRef") || is_set(spec, "dataSourceRef");
    if !may_be_anything && is_set(spec, "dataSource") && !is_claim_or_snapshot(&spec["dataSource"]) {
        drop_field(spec, "dataSource");
    }
    let crosses = !str_at(spec, &["dataSourceRef", "namespace"]).is_empty();
    match (is_set(spec, "dataSource"), is_set(spec, "dataSourceRef")) {
        (true, false) => spec["dataSourceRef"] = spec["dataSource"].clone(),
        (false, true) if !crosses => {
            let mut source = spec["dataSourceRef"].clone();
            drop_field(&mut source, "namespace");
            spec["dataSource"] = source;
        }
        _ => {}
    }
}

fn is_claim_or_snapshot(source: &Value) -> bool {
    matches!(
        (str_at(source, &["kind"]), str_at(source, &["apiGroup"])),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", SNAPSHOT_GROUP)
    )
}

#[cfg(test)]
mod tests;
