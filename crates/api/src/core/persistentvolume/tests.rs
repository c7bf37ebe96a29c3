//! Tables of PersistentVolumes and of what they are told.

use super::*;
use crate::testing::expect_errors;

fn volume(change: Value) -> Value {
    let mut obj = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}});
    merge(&mut obj, &change);
    PersistentVolume.default(&mut obj);
    obj
}

fn merge(obj: &mut Value, change: &Value) {
    match (obj, change) {
        (Value::Object(obj), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    obj.remove(key);
                } else {
                    merge(obj.entry(key.as_str()).or_insert(Value::Null), value);
                }
            }
        }
        (obj, change) => *obj = change.clone(),
    }
}

#[test]
fn volumes_are_checked_field_by_field() {
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]}});
    let table: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (json!({"accessModes": null}), &["spec.accessModes: Required value"]),
        (
            json!({"accessModes": ["x", "ReadWriteOncePod", "ReadWriteMany"]}),
            &[
                "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ],
        ),
        (
            json!({"capacity": null}),
            &[
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: null: supported values: \"storage\"",
            ],
        ),
        (
            json!({"capacity": {"storage": "-1"}}),
            &[
                "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
            ],
        ),
        (json!({"hostPath": null}), &["spec: Required value: must specify a volume type"]),
        (
            json!({"nfs": {"server": "s", "path": "/p"}}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"hostPath": null, "local": {"path": "/x"}}),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (json!({"hostPath": null, "local": {"path": "/x"}, "nodeAffinity": affinity}), &[]),
        (
            json!({"persistentVolumeReclaimPolicy": "Keep"}),
            &["spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\""],
        ),
        (
            json!({"persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/."}}),
            &[
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ],
        ),
        (json!({"volumeMode": "Tape"}), &["spec.volumeMode: Unsupported value: \"Tape\""]),
        (
            json!({"volumeAttributesClassName": ""}),
            &[
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
                "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
            ],
        ),
        (
            json!({"hostPath": null, "csi": {"driver": "D.example", "nodePublishSecretRef": {"name": "s"}}}),
            &[
                "spec.csi.volumeHandle: Required value",
                "spec.csi.nodePublishSecretRef.namespace: Required value",
            ],
        ),
        (
            json!({"hostPath": null, "gcePersistentDisk": {"partition": 256}}),
            &[
                "spec.persistentDisk.pdName: Required value",
                "spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ],
        ),
    ];
    for (change, expect) in table {
        expect_errors(&PersistentVolume.validate(&volume(json!({"spec": change}))), expect);
    }
}

#[test]
fn a_volume_stays_the_volume_it_is() {
    let affinity = |key: &str| {
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": key, "operator": "Exists"}]}]}}})
    };
    let check = |old: Value, new: Value, expect: &[&str]| {
        let (old, new) = (volume(json!({"spec": old})), volume(json!({"spec": new})));
        expect_errors(&PersistentVolume.validate_update(&new, &old), expect);
    };
    check(json!({}), json!({"capacity": {"storage": "2Gi"}, "storageClassName": "c"}), &[]);
    check(
        json!({}),
        json!({"hostPath": {"path": "/other"}}),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    check(
        json!({}),
        json!({"volumeMode": "Block"}),
        &["volumeMode: Invalid value: \"Block\": field is immutable"],
    );
    check(json!({}), affinity("a"), &[]);
    check(affinity("beta.kubernetes.io/os"), affinity("kubernetes.io/os"), &[]);
    check(affinity("a"), affinity("b"), &["nodeAffinity: Invalid value"]);
    let csi = |secret: Value| json!({"hostPath": null, "csi": {"driver": "d", "volumeHandle": "h", "controllerExpandSecretRef": secret}});
    check(csi(json!(null)), csi(json!({"name": "s", "namespace": "n"})), &[]);
}

#[test]
fn the_time_of_a_phase_is_the_servers() {
    let writer = Writer { now: "2026-01-02T03:04:05Z".parse().expect("is a time"), user: &Value::default };
    let mut obj = volume(json!({}));
    PersistentVolume.stamp("", &mut obj, None, &writer);
    assert_eq!(obj["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": "2026-01-02T03:04:05Z"}));
    let old = json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": "2025-01-01T00:00:00Z"}});
    let stamped = |status: Value| {
        let mut obj = json!({"status": status});
        PersistentVolume.stamp("status", &mut obj, Some(&old), &writer);
        obj["status"]["lastPhaseTransitionTime"].clone()
    };
    assert_eq!(stamped(json!({"phase": "Pending"})), "2025-01-01T00:00:00Z");
    assert_eq!(stamped(json!({"phase": "Bound"})), "2026-01-02T03:04:05Z");
    let own = json!({"phase": "Bound", "lastPhaseTransitionTime": "2026-01-01T00:00:00Z"});
    assert_eq!(stamped(own), "2026-01-01T00:00:00Z");
}

#[test]
fn a_row_shows_the_claim_and_short_modes() {
    let obj =
        volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "fast",
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}}));
    let cells = PersistentVolume.row(&obj, Timestamp::UNIX_EPOCH);
    let expect =
        ["v", "1Gi", "RWO,RWX", "Retain", "Pending", "n/c", "fast", "<unset>", "", "<unknown>", "Filesystem"];
    assert_eq!(cells, expect.map(Value::from));
}

#[test]
fn old_ways_earn_warnings() {
    let obj = volume(json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "c"}},
        "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {"monitors": ["m"], "image": "i"}}}));
    let warnings = PersistentVolume.warnings(&obj, None);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].starts_with("metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated")
    );
    assert_eq!(warnings[2], "spec.rbd: deprecated in v1.28, non-functional in v1.31+");
}
