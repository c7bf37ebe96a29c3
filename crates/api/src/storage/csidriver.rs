//! CSIDriver (follows `pkg/registry/storage/csidriver`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, age, column, name};
use crate::core::persistentvolume::UNSET;
use crate::defaults::{Fill, each, fill, object_or_new};
use crate::strategy::{Column, Strategy, bump_generation};
use crate::validation::{At, same_field};

const FS_GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: [&str; 2] = ["Persistent", "Ephemeral"];
/// A token lives between ten minutes and 2^32 seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;

const SPEC: &[(&str, Fill)] = &[
    ("attachRequired", Fill::Bool(true)),
    ("fsGroupPolicy", Fill::Text("ReadWriteOnceWithFSType")),
    ("podInfoOnMount", Fill::Bool(false)),
    ("requiresRepublish", Fill::Bool(false)),
    ("seLinuxMount", Fill::Bool(false)),
    ("storageCapacity", Fill::Bool(false)),
];

const COLUMNS: [Column; 8] = [
    NAME,
    column("AttachRequired", "boolean", "Whether its volumes are attached before they are mounted."),
    column("PodInfoOnMount", "boolean", "Whether it is told of the pod that mounts."),
    column("StorageCapacity", "boolean", "Whether it says how much it can still hold."),
    column("TokenRequests", "string", "Audiences of the tokens it gets."),
    column("RequiresRepublish", "boolean", "Whether its volumes are published again and again."),
    column("Modes", "string", "Kinds of volumes it has."),
    AGE,
];

pub struct CSIDriver;

impl Strategy for CSIDriver {
    fn default(&self, obj: &mut Value) {
        let Some(spec) = object_or_new(obj, "spec") else { return };
        fill(spec, SPEC);
        for request in each(spec, "tokenRequests") {
            fill(request, &[("audience", Fill::Text(""))]);
        }
        if At::root(spec).get("volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&At::root(obj).get("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let (spec, old) = (At::root(obj).get("spec"), At::root(old).get("spec"));
        // Upstream misspells the first of them.
        for (field, shown) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            spec.get(field).under(&spec.path.child(shown)).check_unchanged(&old.get(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = |obj: &Value| obj.get("spec").cloned().unwrap_or_default();
        let at = At::root(obj).get("spec");
        let changed = old.is_none_or(|old| !same_field(&spec(obj), &spec(old), "tokenRequests"));
        if changed && !at.get("tokenRequests").is_empty() && !at.get("serviceAccountTokenInSecrets").is_set()
        {
            return vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned()];
        }
        Vec::new()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let spec = At::root(obj).get("spec");
        let flag = |field: &str| Value::from(spec.get(field).is_true());
        let tokens = spec.get("tokenRequests");
        let audiences: Vec<&str> = tokens.items().map(|token| token.get("audience").text()).collect();
        let modes = spec.get("volumeLifecycleModes").texts().join(",");
        vec![
            name(obj),
            spec.field("attachRequired").is_none_or(|at| at.is_true()).into(),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            if tokens.is_set() { audiences.join(",").into() } else { UNSET.into() },
            flag("requiresRepublish"),
            if modes.is_empty() { NONE.into() } else { modes.into() },
            age(obj, now),
        ]
    }
}

fn validate_spec(spec: &At, errors: &mut ErrorList) {
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        required_flag(spec, field, &spec.path.child(shown), errors);
    }
    spec.get("fsGroupPolicy").check_optional_enum(&FS_GROUP_POLICIES, errors);
    token_requests(&spec.get("tokenRequests"), errors);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.texts().into_iter().filter(|mode| !LIFECYCLE_MODES.contains(mode)) {
        errors.push(Error::not_supported_of(&modes.path, mode, &LIFECYCLE_MODES));
    }
    required_flag(spec, "seLinuxMount", &spec.path.child("seLinuxMount"), errors);
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.is_set() && period.int() < UPDATE_PERIOD_SECONDS_MIN {
        errors.push(period.invalid("must be greater than or equal to 10 seconds"));
    }
    let in_secrets = spec.get("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && spec.get("tokenRequests").is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(in_secrets.invalid(detail));
    }
}

fn required_flag(spec: &At, field: &str, shown: &Path, errors: &mut ErrorList) {
    if !spec.get(field).is_set() {
        errors.push(Error::required(shown, ""));
    }
}

fn token_requests(requests: &At, errors: &mut ErrorList) {
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            errors.push(Error::duplicate(&audience.path, audience.text()));
            continue;
        }
        if seconds.is_set() && seconds.int() < TOKEN_SECONDS_MIN {
            errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.int() > TOKEN_SECONDS_MAX {
            errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn driver(spec: Value) -> Value {
        let mut obj = json!({"metadata": {"name": "d"}, "spec": spec});
        CSIDriver.default(&mut obj);
        obj
    }

    #[test]
    fn drivers_are_checked_field_by_field() {
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &[]),
            (json!({"fsGroupPolicy": "x"}), &["spec.fsGroupPolicy: Unsupported value: \"x\""]),
            (
                json!({"volumeLifecycleModes": ["x"]}),
                &["spec.volumeLifecycleModes: Unsupported value: \"x\""],
            ),
            (
                json!({"tokenRequests": [{"audience": "a", "expirationSeconds": 599}, {"audience": "a"}]}),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"nodeAllocatableUpdatePeriodSeconds": 9}),
                &[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10",
                ],
            ),
            (
                json!({"serviceAccountTokenInSecrets": true}),
                &[
                    "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but",
                ],
            ),
        ];
        for (spec, expect) in table {
            expect_errors(&CSIDriver.validate(&driver(spec)), expect);
        }
        let (old, new) = (driver(json!({})), driver(json!({"attachRequired": false})));
        expect_errors(
            &CSIDriver.validate_update(&new, &old),
            &["spec.attachedRequired: Invalid value: false: field is immutable"],
        );
    }

    #[test]
    fn a_row_says_what_the_driver_does() {
        let cells = CSIDriver.row(&driver(json!({"podInfoOnMount": true})), Timestamp::UNIX_EPOCH);
        let expect = [
            json!("d"),
            json!(true),
            json!(true),
            json!(false),
            json!(UNSET),
            json!(false),
            json!("Persistent"),
        ];
        assert_eq!(cells[..7], expect);
    }

    #[test]
    fn tokens_outside_secrets_earn_a_warning_once() {
        let obj = driver(json!({"tokenRequests": [{"audience": "a"}]}));
        assert_eq!(CSIDriver.warnings(&obj, None).len(), 1);
        assert_eq!(CSIDriver.warnings(&obj, Some(&obj)).len(), 0);
    }
}
