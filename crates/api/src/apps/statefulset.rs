//! StatefulSet (follows `pkg/registry/apps/statefulset`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, json, names};
use jiff::Timestamp;

use super::{Template, collisions_only_grow, default_workload, status_counts, workload_cells};
use crate::columns::{AGE, NAME, age, column, count, name, wide};
use crate::core::persistentvolumeclaim;
use crate::defaults::{Fill, each, fill, object};
use crate::strategy::{
    Column, NameRule, Strategy, advance_generation, drop_field, keep, set_first_generation,
};
use crate::validation::{At, dns1123_label, int_or_percent, same, same_field};

const SPEC: &[(&str, Fill)] = &[
    ("serviceName", Fill::Text("")),
    ("podManagementPolicy", Fill::Text("OrderedReady")),
    ("updateStrategy", Fill::Empty),
    ("persistentVolumeClaimRetentionPolicy", Fill::Empty),
    ("revisionHistoryLimit", Fill::Int(10)),
];
const RETENTION: &[(&str, Fill)] =
    &[("whenDeleted", Fill::Text("Retain")), ("whenScaled", Fill::Text("Retain"))];
const RETENTION_POLICIES: [&str; 2] = ["Retain", "Delete"];
const COUNTS: [&str; 7] = [
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];
const PARTS: [&str; 4] = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
/// What an update may change of the spec.
const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];
const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

const COLUMNS: [Column; 5] = [
    NAME,
    column("Ready", "string", "Ready pods, of all wanted."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
];

pub struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        if let Some(status) = object(obj, "status") {
            // Upstream always writes these counts.
            fill(status, &[("replicas", Fill::Int(0)), ("availableReplicas", Fill::Int(0))]);
        }
        let Some(spec) = object(obj, "spec") else { return };
        default_workload(spec);
        fill(spec, SPEC);
        if let Some(ordinals) = object(spec, "ordinals") {
            fill(ordinals, &[("start", Fill::Int(0))]);
        }
        if let Some(strategy) = object(spec, "updateStrategy") {
            default_strategy(strategy);
        }
        if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
            fill(policy, RETENTION);
        }
        for claim in each(spec, "volumeClaimTemplates") {
            fill(claim, &[("apiVersion", Fill::Text("v1")), ("kind", Fill::Text("PersistentVolumeClaim"))]);
            persistentvolumeclaim::PersistentVolumeClaim.default(claim);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_max_unavailable(obj);
        obj["status"] = json!({"replicas": 0, "availableReplicas": 0});
        set_first_generation(obj);
        // Claims made from a template begin as any other.
        if let Some(spec) = object(obj, "spec") {
            for claim in each(spec, "volumeClaimTemplates") {
                claim["status"] = json!({"phase": "Pending"});
            }
        }
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        drop_max_unavailable(obj);
        let changed = !same_field(obj, old, "spec");
        advance_generation(obj, old, changed);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        let name = spec.get("serviceName");
        if !name.text().is_empty() {
            dns1123_label(&name, &mut errors);
        }
        validate_spec(&spec, &spec.get("volumeClaimTemplates"), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        // Claims cannot change, and older ones may be what would be refused today.
        validate_spec(&spec, &At::new(&Value::Null, spec.path.clone()), &mut errors);
        if !same_but_for(spec.value, &old["spec"], &MUTABLE) {
            errors.push(spec.forbidden(IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        status_counts(&status, &COUNTS, &PARTS, "status.readyReplicas", &mut errors);
        collisions_only_grow(&status, old, &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = super::workload_warnings(obj, old);
        if obj.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        warnings
    }

    /// Its pods' names begin with it.
    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let ready = count(obj, &["status", "readyReplicas"]);
        let mut row =
            vec![name(obj), format!("{ready}/{}", count(obj, &["spec", "replicas"])).into(), age(obj, now)];
        row.extend(workload_cells(obj));
        row
    }
}

fn default_strategy(strategy: &mut Value) {
    if strategy["type"].as_str().unwrap_or_default().is_empty() {
        strategy["type"] = "RollingUpdate".into();
        fill(strategy, &[("rollingUpdate", Fill::Empty)]);
    }
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling_update) = object(strategy, "rollingUpdate")
    {
        fill(rolling_update, &[("partition", Fill::Int(0))]);
    }
}

/// The feature MaxUnavailableStatefulSet is off by default in 1.36, and the field not kept.
fn drop_max_unavailable(obj: &mut Value) {
    if let Some(rolling_update) = obj.pointer_mut("/spec/updateStrategy/rollingUpdate") {
        drop_field(rolling_update, "maxUnavailable");
    }
}

/// Whether two specs differ in nothing but these fields.
fn same_but_for(spec: &Value, old: &Value, fields: &[&str]) -> bool {
    let rest = |spec: &Value| {
        let mut rest = spec.clone();
        if let Some(map) = rest.as_object_mut() {
            fields.iter().for_each(|field| drop(map.remove(field)));
        }
        rest
    };
    same(&rest(spec), &rest(old))
}

fn validate_spec(spec: &At, new_claims: &At, errors: &mut ErrorList) {
    let policy = spec.get("podManagementPolicy");
    if !matches!(policy.text(), "OrderedReady" | "Parallel") {
        errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'"));
    }
    validate_strategy(&spec.get("updateStrategy"), errors);
    if let Some(retention) = spec.field("persistentVolumeClaimRetentionPolicy") {
        for field in ["whenDeleted", "whenScaled"] {
            retention.get(field).check_enum_of(&RETENTION_POLICIES, errors);
        }
    }
    for claim in new_claims.items() {
        let lenience = persistentvolumeclaim::validation::Lenience::default();
        persistentvolumeclaim::validation::validate_spec(&claim.get("spec"), lenience, errors);
    }
    spec.get("replicas").check_nonnegative(errors);
    spec.get("minReadySeconds").check_nonnegative(errors);
    let start = spec.at(&["ordinals", "start"]);
    if start.int() < 0 {
        start.under(&spec.path.child("ordinals.start")).check_nonnegative(errors);
    }
    let template = spec.get("template");
    let filled = without_what_the_controller_sets(spec.value);
    Template { kind: "statefulset", set: "StatefulSet" }.validate(
        spec,
        &At::new(&filled, template.path.clone()),
        errors,
    );
}

/// The template as its pods will be: the controller sets hostname and subdomain, and the volumes of claims.
fn without_what_the_controller_sets(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let Some(pod) = object(&mut template, "spec") else { return template };
    if let Some(map) = pod.as_object_mut() {
        map.remove("hostname");
        map.remove("subdomain");
    }
    let names: Vec<&Value> = claims(spec).map(|claim| &claim["metadata"]["name"]).collect();
    if names.is_empty() {
        return template;
    }
    let own = pod["volumes"].as_array().cloned().unwrap_or_default();
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    volumes.extend(own.into_iter().filter(|volume| !names.contains(&&volume["name"])));
    pod["volumes"] = volumes.into();
    template
}

fn claims(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["volumeClaimTemplates"].as_array().into_iter().flatten()
}

fn validate_strategy(strategy: &At, errors: &mut ErrorList) {
    let rolling_update = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => errors.push(strategy.required("")),
        "OnDelete" => {
            if rolling_update.is_set() {
                errors.push(rolling_update.invalid("only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => {
            rolling_update.get("partition").check_nonnegative(errors);
            if let Some(unavailable) = rolling_update.field("maxUnavailable") {
                let amount = int_or_percent(&unavailable, errors);
                if amount == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                if unavailable.value.is_string() && amount > 100 {
                    errors.push(unavailable.invalid("must not be greater than 100%"));
                }
            }
        }
        _ => errors.push(Error::invalid(
            &strategy.path,
            strategy.value.clone(),
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut obj = json!({"metadata": {"name": "s"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "serviceName": "s",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        for (field, value) in changes {
            obj["spec"][field] = value.clone();
        }
        StatefulSet.default(&mut obj);
        obj
    }

    fn check(changes: &[(&str, Value)], expect: &[&str]) {
        expect_errors(&StatefulSet.validate(&with(changes)), expect);
    }

    #[test]
    fn a_set_keeps_its_order_and_its_claims() {
        let obj = with(&[]);
        assert_eq!(
            obj["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(obj["spec"]["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            obj["spec"]["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        check(&[], &[]);
    }

    #[test]
    fn strategies_and_policies_are_known_ones() {
        check(
            &[("podManagementPolicy", json!("Now"))],
            &["spec.podManagementPolicy: Invalid value: \"Now\": must be"],
        );
        check(
            &[("updateStrategy", json!({"type": "OnDelete", "rollingUpdate": {}}))],
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        );
        check(
            &[("updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}))],
            &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
        );
        check(
            &[("persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Burn"}))],
            &["spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Burn\""],
        );
        check(&[("ordinals", json!({"start": -1}))], &["spec.ordinals.start: Invalid value: -1: must be"]);
        check(&[("serviceName", json!("A"))], &["spec.serviceName: Invalid value: \"A\""]);
    }

    #[test]
    fn a_template_may_mount_what_the_claims_give() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}});
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        check(
            &[("template", template.clone())],
            &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        );
        check(&[("template", template.clone()), ("volumeClaimTemplates", json!([claim]))], &[]);
        let bare = json!({"metadata": {"name": "data"}, "spec": {}});
        let at = "spec.volumeClaimTemplates[0].spec";
        check(
            &[
                ("template", template),
                ("volumeClaimTemplates", json!([bare])),
                ("minReadySeconds", json!(-1)),
            ],
            &[
                &format!("{at}.accessModes: Required value"),
                &format!("{at}.resources[storage]: Required value"),
                "spec.minReadySeconds: Invalid value: -1",
            ],
        );
    }

    #[test]
    fn most_of_the_spec_stays() {
        let (old, mut new) = (with(&[]), with(&[]));
        new["spec"]["replicas"] = 3.into();
        new["spec"]["minReadySeconds"] = 3.into();
        expect_errors(&StatefulSet.validate_update(&new, &old), &[]);
        new["spec"]["serviceName"] = "other".into();
        expect_errors(
            &StatefulSet.validate_update(&new, &old),
            &["spec: Forbidden: updates to statefulset spec for fields other than"],
        );
    }
}
