//! PersistentVolume (follows `pkg/registry/core/persistentvolume`).

pub mod sources;
pub mod validation;

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name, wide};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, Writer, keep};
use crate::validation::{At, node_labels};

/// The annotation that named the class before the field did.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Shown where a pointer is nil.
pub const UNSET: &str = "<unset>";

const SPEC: &[(&str, Fill)] =
    &[("persistentVolumeReclaimPolicy", Fill::Text("Retain")), ("volumeMode", Fill::Text("Filesystem"))];

const DEPRECATED_ANNOTATIONS: [(&str, &str); 2] = [
    (BETA_STORAGE_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
    (validation::MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
];

const DEPRECATED_SOURCES: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const COLUMNS: [Column; 11] = [
    NAME,
    column("Capacity", "string", "Storage it holds."),
    column("Access Modes", "string", "How it can be mounted."),
    column("Reclaim Policy", "string", "What happens to it when its claim goes."),
    column("Status", "string", "Phase of its life."),
    column("Claim", "string", "Claim it is bound to."),
    column("StorageClass", "string", "Class it belongs to."),
    column("VolumeAttributesClass", "string", "Class of its attributes."),
    column("Reason", "string", "Why it is in a failed phase."),
    AGE,
    wide("VolumeMode", "string", "Whether it is a file system or a block device."),
];

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
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
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn stamp(&self, subresource: &str, obj: &mut Value, old: Option<&Value>, writer: &Writer) {
        const TIME: &str = "lastPhaseTransitionTime";
        let Some(old) = old else {
            obj["status"][TIME] = writer.time();
            return;
        };
        if subresource != "status" {
            return;
        }
        let phase = |obj: &Value| str_at(obj, &["status", "phase"]).to_owned();
        let time = |obj: &Value| str_at(obj, &["status", TIME]).to_owned();
        if phase(obj) == phase(old) {
            if time(obj).is_empty() && !time(old).is_empty() {
                obj["status"][TIME] = old["status"][TIME].clone();
            }
        } else if time(obj).is_empty() || time(obj) == time(old) {
            obj["status"][TIME] = writer.time();
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old)
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(obj)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let spec = |field: &str| str_at(obj, &["spec", field]);
        let phase = match obj.pointer("/metadata/deletionTimestamp") {
            Some(time) if !time.is_null() => "Terminating",
            _ => str_at(obj, &["status", "phase"]),
        };
        let claim = match obj.pointer("/spec/claimRef") {
            Some(claim) => {
                let part = |field: &str| str_at(claim, &[field]);
                format!("{}/{}", part("namespace"), part("name"))
            }
            None => String::new(),
        };
        vec![
            name(obj),
            capacity(obj.pointer("/spec/capacity/storage")),
            access_modes(items(obj, &["spec", "accessModes"])).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            storage_class(obj).into(),
            unset_or(obj.pointer("/spec/volumeAttributesClassName")),
            str_at(obj, &["status", "reason"]).into(),
            age(obj, now),
            unset_or(obj.pointer("/spec/volumeMode")),
        ]
    }
}

/// Defaults of a volume's spec, also where it stands inside another object.
pub fn default_spec(spec: &mut Value) {
    fill(spec, SPEC);
    for (source, table) in sources::DEFAULTS {
        if let Some(source) = object(spec, source) {
            fill(source, table);
        }
    }
}

/// The class of a volume or claim: the annotation's, else the field's.
pub fn storage_class(obj: &Value) -> &str {
    match obj.pointer("/metadata/annotations").and_then(|a| a.get(BETA_STORAGE_CLASS)) {
        Some(class) => class.as_str().unwrap_or_default(),
        None => str_at(obj, &["spec", "storageClassName"]),
    }
}

/// The short forms in upstream's order, without repetitions (follows `GetAccessModesAsString`).
pub fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    let short: Vec<&str> = SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    short.join(",")
}

/// A quantity as upstream prints it; 0 where there is none.
pub fn capacity(quantity: Option<&Value>) -> Value {
    quantity.filter(|q| !q.is_null()).cloned().unwrap_or_else(|| "0".into())
}

pub fn unset_or(text: Option<&Value>) -> Value {
    text.filter(|t| !t.is_null()).cloned().unwrap_or_else(|| UNSET.into())
}

fn warnings(obj: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let root = At::root(obj);
    let annotations = root.at(&["metadata", "annotations"]);
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if annotations.get(key).is_set() {
            warnings.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    let spec = root.get("spec");
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        warnings.push(format!("{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.", policy.path));
    }
    for term in spec.at(&["nodeAffinity", "required", "nodeSelectorTerms"]).items() {
        warnings.extend(node_labels::in_expressions(&term));
    }
    for (source, shown, message) in DEPRECATED_SOURCES {
        if spec.get(source).is_set() {
            warnings.push(format!("{}: {message}", spec.path.child(shown)));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
