//! Tables of PersistentVolumeClaims and of what they are told.

use super::*;
use crate::testing::expect_errors;

fn claim(spec: Value) -> Value {
    let mut obj = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        obj["spec"][key] = value.clone();
    }
    PersistentVolumeClaim.default(&mut obj);
    obj
}

#[test]
fn claims_are_checked_field_by_field() {
    let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    let table: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (
            json!({"accessModes": []}),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        ),
        (json!({"resources": {}}), &["spec.resources[storage]: Required value"]),
        (size("0"), &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]),
        (
            json!({"storageClassName": "A"}),
            &["spec.storageClassName: Invalid value: \"A\": a lowercase RFC 1123"],
        ),
        (json!({"volumeMode": "Tape"}), &["spec.volumeMode: Unsupported value: \"Tape\""]),
        (
            json!({"dataSource": {"kind": "Pod", "name": "p"}}),
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default",
            ],
        ),
        (
            json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "p"},
                "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "q"}}),
            &["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"],
        ),
    ];
    for (spec, expect) in table {
        expect_errors(&PersistentVolumeClaim.validate(&claim(spec)), expect);
    }
}

#[test]
fn a_bound_claim_grows_and_little_else() {
    let check = |phase: &str, old: Value, new: Value, expect: &[&str]| {
        let (mut old, mut new) = (claim(old), claim(new));
        for obj in [&mut old, &mut new] {
            obj["status"] = json!({"phase": phase, "capacity": {"storage": "1Gi"}});
        }
        expect_errors(&PersistentVolumeClaim.validate_update(&new, &old), expect);
    };
    let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests";
    check("Bound", json!({}), size("2Gi"), &[]);
    check("Bound", size("3Gi"), size("2Gi"), &[]);
    check(
        "Bound",
        size("3Gi"),
        size("1Gi"),
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    check("Pending", json!({}), size("2Gi"), &[IMMUTABLE]);
    check("Pending", json!({}), json!({"volumeName": "v"}), &[]);
    check("Bound", json!({"volumeName": "v"}), json!({"volumeName": "w"}), &[IMMUTABLE]);
    check("Pending", json!({}), json!({"storageClassName": "c"}), &[]);
    check("Pending", json!({"storageClassName": "b"}), json!({"storageClassName": "c"}), &[IMMUTABLE]);
    check("Bound", json!({}), json!({"volumeAttributesClassName": "gold"}), &[]);
    check("Pending", json!({}), json!({"volumeAttributesClassName": "gold"}), &[IMMUTABLE]);
    check(
        "Pending",
        json!({}),
        json!({"volumeMode": "Block"}),
        &[IMMUTABLE, "volumeMode: Invalid value: \"Block\": field is immutable"],
    );
}

#[test]
fn data_sources_are_written_in_both_fields() {
    let settled = |spec: Value| {
        let mut obj = claim(spec);
        PersistentVolumeClaim.prepare_for_create(&mut obj);
        (obj["spec"]["dataSource"].clone(), obj["spec"]["dataSourceRef"].clone())
    };
    let claim = json!({"kind": "PersistentVolumeClaim", "name": "p"});
    let other = json!({"apiGroup": "e.com", "kind": "X", "name": "x"});
    assert_eq!(settled(json!({"dataSource": claim})), (claim.clone(), claim.clone()));
    assert_eq!(settled(json!({"dataSourceRef": other})), (other.clone(), other.clone()));
    assert_eq!(settled(json!({"dataSource": other})), (Value::Null, Value::Null));
}

#[test]
fn a_status_names_known_resources() {
    let mut obj = claim(json!({}));
    obj["status"] = json!({"capacity": {"storage": "-1"}, "allocatedResources": {"cpu": "1"},
        "allocatedResourceStatuses": {"storage": "Growing"}});
    expect_errors(
        &PersistentVolumeClaim.validate_status_update(&obj, &obj),
        &[
            "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            "status.allocatedResourceStatuses: Unsupported value: \"storage\"",
            "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
        ],
    );
}

#[test]
fn a_row_shows_the_volume_only_when_there_is_one() {
    let row = |obj: &Value| PersistentVolumeClaim.row(obj, Timestamp::UNIX_EPOCH);
    let unbound = row(&claim(json!({})));
    assert_eq!(unbound[1..6], ["Pending", "", "", "", ""].map(Value::from));
    let mut bound = claim(json!({"volumeName": "v", "storageClassName": "fast"}));
    bound["status"] =
        json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]});
    assert_eq!(row(&bound)[1..6], ["Bound", "v", "2Gi", "RWO", "fast"].map(Value::from));
}
