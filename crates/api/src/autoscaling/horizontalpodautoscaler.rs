//! HorizontalPodAutoscaler, in the form of `autoscaling/v2`, which is also what is stored (follows
//! `pkg/apis/autoscaling/validation` and `pkg/registry/autoscaling/horizontalpodautoscaler`).

use std::borrow::Cow;

use apimachinery::field::{Error, ErrorList};
use apimachinery::{GroupVersion, Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, UNKNOWN, age, column, count, items, name};
use crate::core::pod::validation::requirements::container_resource_name;
use crate::defaults::{Fill, fill, object};
use crate::strategy::{Column, Strategy, keep};
use crate::validation::{At, basic_quantity, dns1123_label, positive_quantity};

/// What a metric source is called in a spec, by its type.
pub const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const SOURCE_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const TARGET_TYPES: [&str; 3] = ["AverageValue", "Utilization", "Value"];
const SELECT_POLICIES: [&str; 3] = ["Disabled", "Max", "Min"];
const POLICY_TYPES: [&str; 2] = ["Percent", "Pods"];
/// Seconds; upstream: MaxPeriodSeconds and MaxStabilizationWindowSeconds.
const PERIOD_MAX: i64 = 1800;
const WINDOW_MAX: i64 = 3600;
/// Metrics shown in a row before `more`.
const METRICS_SHOWN: usize = 2;
/// The utilization aimed at when no metric is named, in percent.
pub const CPU_UTILIZATION: i64 = 80;

const COLUMNS: [Column; 7] = [
    NAME,
    column("Reference", "string", "What is scaled."),
    column("Targets", "string", "Metrics as they are, of what is aimed at."),
    column("MinPods", "string", "The fewest pods."),
    column("MaxPods", "string", "The most pods."),
    column("Replicas", "string", "Pods there are."),
    AGE,
];

pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        fill(&mut obj["status"], &[("desiredReplicas", Fill::Int(0)), ("currentMetrics", Fill::Null)]);
        let Some(spec) = object(obj, "spec") else { return };
        fill(spec, &[("minReplicas", Fill::Int(1))]);
        if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
            spec["metrics"] = json!([cpu_metric(CPU_UTILIZATION)]);
        }
        if let Some(behavior) = object(spec, "behavior") {
            default_behavior(behavior);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        validate_spec(&spec, scaled_group(&spec.get("scaleTargetRef")), &mut errors);
        errors
    }

    /// What is scaled is not asked again for the group that it was accepted without.
    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let [spec, old] = [obj, old].map(|obj| At::root(obj).get("spec"));
        let (target, before) = (spec.get("scaleTargetRef"), old.get("scaleTargetRef"));
        let same =
            ["apiVersion", "kind"].iter().all(|name| target.get(name).text() == before.get(name).text());
        let group = if same { Group::Unasked } else { scaled_group(&target) };
        validate_spec(&spec, group, &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        status.get("currentReplicas").check_nonnegative(&mut errors);
        status.get("desiredReplicas").check_nonnegative(&mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let obj = &in_v2(obj);
        let spec = At::root(obj).get("spec");
        let target = spec.get("scaleTargetRef");
        let min = spec.field("minReplicas").map_or("<unset>".to_owned(), |min| min.int().to_string());
        vec![
            name(obj),
            format!("{}/{}", target.get("kind").text(), target.get("name").text()).into(),
            metrics_cell(obj).into(),
            min.into(),
            count(obj, &["spec", "maxReplicas"]).into(),
            count(obj, &["status", "currentReplicas"]).into(),
            age(obj, now),
        ]
    }
}

/// An object of either version as `v2` writes it.
fn in_v2(obj: &Value) -> Cow<'_, Value> {
    if obj["apiVersion"] != "autoscaling/v1" {
        return Cow::Borrowed(obj);
    }
    let mut obj = obj.clone();
    super::conversion::from_v1(&mut obj);
    Cow::Owned(obj)
}

/// A target of CPU utilization.
pub fn cpu_metric(utilization: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": utilization}}})
}

/// Scaling up at once and steeply, down slowly (follows `SetDefaults_HorizontalPodAutoscalerBehavior`).
fn default_behavior(behavior: &mut Value) {
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
    let down =
        json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
    for (field, defaults) in [("scaleUp", up), ("scaleDown", down)] {
        let given = behavior[field].as_object().cloned().unwrap_or_default();
        let mut rules = defaults;
        for (key, value) in given {
            if !value.is_null() {
                rules[key] = value;
            }
        }
        behavior[field] = rules;
    }
}

fn validate_spec(spec: &At, group: Group, errors: &mut ErrorList) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.is_set() && min.int() < 1 {
        errors.push(min.invalid("must be greater than or equal to 1"));
    }
    match max.int() {
        0 => errors.push(max.required("must be set and greater than 0")),
        ..0 => errors.push(max.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if min.is_set() && max.int() < min.int() {
        errors.push(Error::invalid(&max.path, max.int(), "must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.get("scaleTargetRef"), group, errors);
    for metric in spec.get("metrics").items() {
        validate_metric(&metric, errors);
    }
    let tells_of_more_than_pods = |metric: At| matches!(metric.get("type").text(), "Object" | "External");
    if min.is_set() && min.int() == 0 && !spec.get("metrics").items().any(tells_of_more_than_pods) {
        errors.push(spec.get("metrics").forbidden(
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    if let Some(behavior) = spec.field("behavior") {
        for rules in ["scaleUp", "scaleDown"].iter().filter_map(|field| behavior.field(field)) {
            validate_rules(&rules, errors);
        }
    }
}

/// What is asked of a reference's apiVersion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Unasked,
    Optional,
    Required,
}

/// The core group, which has no name, has one kind that can be scaled.
fn scaled_group(target: &At) -> Group {
    if target.get("kind").text() == "ReplicationController" { Group::Optional } else { Group::Required }
}

/// Follows `ValidateCrossVersionObjectReference`.
fn reference(at: &At, group: Group, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        path_segment(&at.get(field), errors);
    }
    let version = at.get("apiVersion");
    let complaint = match GroupVersion::parse(version.text()) {
        _ if group == Group::Unasked => None,
        None => Some(format!("unexpected GroupVersion string: {}", version.text())),
        Some(parsed) if parsed.group.is_empty() && group == Group::Required => {
            Some("apiVersion must specify API group".to_owned())
        }
        Some(_) => None,
    };
    errors.extend(complaint.map(|detail| Error::invalid(&version.path, version.text(), detail)));
}

/// A name that stands in a path.
fn path_segment(at: &At, errors: &mut ErrorList) {
    if at.text().is_empty() {
        errors.push(at.required(""));
    }
    at.check(apimachinery::names::is_path_segment_name, errors);
}

fn validate_metric(metric: &At, errors: &mut ErrorList) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    // Upstream looks at the type before the sources and once more after them.
    let unknown = expected.is_none().then(|| kind.not_supported(&SOURCE_TYPES));
    errors.extend(unknown.clone());
    let given: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.get(field).is_set()).collect();
    if let Some(first) = given.first() {
        validate_source(first, &metric.get(first), errors);
    }
    errors.extend(unknown);
    if let Some(missing) = expected.filter(|expected| !given.contains(expected)) {
        let detail = "must populate information for the given metric source";
        errors.push(metric.get(missing).required(detail));
    }
    if given.len() > 1 {
        for field in given.iter().filter(|field| Some(**field) != expected) {
            errors.push(metric.get(field).forbidden("must populate the given metric source only"));
        }
    }
}

fn validate_source(kind: &str, source: &At, errors: &mut ErrorList) {
    let target = source.get("target");
    let has = |field: &str| target.get(field).is_set();
    match kind {
        "object" | "external" => {
            if kind == "object" {
                reference(&source.get("describedObject"), Group::Optional, errors);
            }
            metric_identifier(&source.get("metric"), errors);
            validate_target(&target, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value for metric or a per-pod target";
                let detail =
                    if kind == "object" { "must set either a target value or averageValue" } else { detail };
                errors.push(target.get("averageValue").required(detail));
            }
            if kind == "external" && has("value") && has("averageValue") {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.push(target.get("value").forbidden(detail));
            }
        }
        "pods" => {
            metric_identifier(&source.get("metric"), errors);
            validate_target(&target, errors);
            if !has("averageValue") {
                errors
                    .push(target.get("averageValue").required("must specify a positive target averageValue"));
            }
        }
        _ => {
            for field in ["name", "container"].iter().take(if kind == "resource" { 1 } else { 2 }) {
                let at = source.get(field);
                if at.text().is_empty() {
                    let what = if *field == "name" { "a resource name" } else { "a container" };
                    errors.push(at.required(format!("must specify {what}")));
                } else if *field == "container" {
                    dns1123_label(&at, errors);
                } else if kind != "resource" {
                    container_resource_name(at.text(), &at, errors);
                }
            }
            validate_target(&target, errors);
            utilization_or_value(&target, errors);
        }
    }
}

fn utilization_or_value(target: &At, errors: &mut ErrorList) {
    let (utilization, value) = (target.get("averageUtilization"), target.get("averageValue"));
    match (utilization.is_set(), value.is_set()) {
        (false, false) => {
            errors.push(utilization.required("must set either a target raw value or a target utilization"));
        }
        (true, true) => {
            errors.push(value.forbidden("may not set both a target raw value and a target utilization"));
        }
        _ => {}
    }
}

fn metric_identifier(metric: &At, errors: &mut ErrorList) {
    let name = metric.get("name");
    if name.text().is_empty() {
        errors.push(name.required("must specify a metric name"));
    } else {
        name.check(apimachinery::names::is_path_segment_name, errors);
    }
}

fn validate_target(target: &At, errors: &mut ErrorList) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !TARGET_TYPES.contains(&kind.text()) {
        errors.push(kind.invalid("must be either Utilization, Value, or AverageValue"));
    }
    if let Some(value) = target.field("value") {
        positive(&value, "must be positive", errors);
    }
    if let Some(value) = target.field("averageValue") {
        positive(&value, "must be positive", errors);
    }
    if let Some(utilization) = target.field("averageUtilization").filter(|at| at.int() < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}

fn positive(at: &At, detail: &str, errors: &mut ErrorList) {
    let mut found = ErrorList::new();
    positive_quantity(at, &mut found);
    errors.extend(found.into_iter().map(|error| Error { detail: detail.to_owned(), ..error }));
}

fn validate_rules(rules: &At, errors: &mut ErrorList) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int() < 0 {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int() > WINDOW_MAX {
        errors.push(window.invalid(format!("must be less than or equal to {WINDOW_MAX}")));
    }
    rules.get("selectPolicy").check_optional_enum(&SELECT_POLICIES, errors);
    let policies = rules.get("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        let kind = policy.get("type");
        if !POLICY_TYPES.contains(&kind.text()) {
            errors.push(kind.not_supported(&POLICY_TYPES));
        }
        policy.get("value").check_positive(errors);
        let period = policy.get("periodSeconds");
        period.check_positive(errors);
        if period.int() > PERIOD_MAX {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_MAX}")));
        }
    }
    if let Some(tolerance) = rules.field("tolerance") {
        basic_quantity(&tolerance, errors);
    }
}

/// `cpu: 30%/80%, 5/10 + 1 more...`
fn metrics_cell(obj: &Value) -> String {
    let (specs, statuses) = (items(obj, &["spec", "metrics"]), items(obj, &["status", "currentMetrics"]));
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let cells: Vec<String> = specs
        .iter()
        .enumerate()
        .take(METRICS_SHOWN)
        .map(|(position, spec)| metric_cell(spec, statuses.get(position).unwrap_or(&Value::Null)))
        .collect();
    let more = specs.len().saturating_sub(METRICS_SHOWN);
    if more == 0 { cells.join(", ") } else { format!("{} + {more} more...", cells.join(", ")) }
}

fn metric_cell(spec: &Value, status: &Value) -> String {
    let kind = spec["type"].as_str().unwrap_or_default();
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let (source, current) = (&spec[*field], &status[*field]["current"]);
    let text = |value: &Value| value.as_str().map_or(UNKNOWN.to_owned(), str::to_owned);
    let target = &source["target"];
    match *field {
        "object" | "external" if target["averageValue"].is_string() => {
            format!("{}/{} (avg)", text(&current["averageValue"]), text(&target["averageValue"]))
        }
        "object" | "external" => format!("{}/{}", text(&current["value"]), text(&target["value"])),
        "pods" => format!("{}/{}", text(&current["averageValue"]), text(&target["averageValue"])),
        _ => {
            let name = source["name"].as_str().unwrap_or_default();
            let name = match source["container"].as_str() {
                Some(container) => format!("{name} (container: {container})"),
                None => name.to_owned(),
            };
            if target["averageValue"].is_string() {
                return format!(
                    "{name}: {}/{}",
                    text(&current["averageValue"]),
                    text(&target["averageValue"])
                );
            }
            let percent =
                |value: &Value, unset: &str| value.as_i64().map_or(unset.to_owned(), |n| format!("{n}%"));
            let current = percent(&current["averageUtilization"], UNKNOWN);
            format!("{name}: {current}/{}", percent(&target["averageUtilization"], "<auto>"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut obj = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
        for (field, value) in changes {
            obj["spec"][field] = value.clone();
        }
        HorizontalPodAutoscaler.default(&mut obj);
        obj
    }

    fn check(changes: &[(&str, Value)], expect: &[&str]) {
        expect_errors(&HorizontalPodAutoscaler.validate(&with(changes)), expect);
    }

    #[test]
    fn without_metrics_cpu_is_watched() {
        let obj = with(&[("behavior", json!({"scaleDown": {"stabilizationWindowSeconds": 60}}))]);
        assert_eq!(obj["spec"]["metrics"], json!([cpu_metric(80)]));
        assert_eq!(obj["spec"]["minReplicas"], 1);
        assert_eq!(obj["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        assert_eq!(obj["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 60);
        check(&[], &[]);
    }

    #[test]
    fn bounds_metrics_and_behavior_are_checked() {
        check(
            &[("maxReplicas", json!(0)), ("minReplicas", json!(1))],
            &[
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        );
        check(
            &[("metrics", json!([{"type": "Pods"}]))],
            &["spec.metrics[0].pods: Required value: must populate information"],
        );
        check(
            &[(
                "metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]),
            )],
            &[
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value",
            ],
        );
        let unknown = "spec.metrics[0].type: Unsupported value: \"Moon\"";
        let target = json!({"type": "Moon", "averageValue": "0"});
        check(
            &[("metrics", json!([{"type": "Moon", "pods": {"metric": {"name": "m"}, "target": target}}]))],
            &[
                unknown,
                "spec.metrics[0].pods.target.type: Invalid value: \"Moon\": must be either",
                "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
                unknown,
            ],
        );
        let contained = json!({"name": "pods", "container": "C", "target": {"type": "Utilization", "averageUtilization": 1}});
        check(
            &[("metrics", json!([{"type": "Pods", "containerResource": contained}]))],
            &[
                "spec.metrics[0].containerResource.name: Invalid value: \"pods\": must be a standard resource for containers",
                "spec.metrics[0].containerResource.container: Invalid value: \"C\"",
                "spec.metrics[0].pods: Required value: must populate information",
            ],
        );
        check(
            &[(
                "behavior",
                json!({"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}),
            )],
            &[
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        );
        check(
            &[("scaleTargetRef", json!({"kind": "D/x", "name": ""}))],
            &[
                "spec.scaleTargetRef.kind: Invalid value: \"D/x\": may not contain '/'",
                "spec.scaleTargetRef.name: Required value",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ],
        );
        check(&[("scaleTargetRef", json!({"kind": "ReplicationController", "name": "r"}))], &[]);
        let old = with(&[("scaleTargetRef", json!({"kind": "D", "name": "a"}))]);
        let renamed = with(&[("scaleTargetRef", json!({"kind": "D", "name": "b"}))]);
        expect_errors(&HorizontalPodAutoscaler.validate_update(&renamed, &old), &[]);
    }

    #[test]
    fn a_row_shows_what_is_of_what_is_aimed_at() {
        let mut obj = with(&[]);
        obj["status"] = json!({"currentReplicas": 2, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30}}}]});
        let row = HorizontalPodAutoscaler.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            row[..6],
            [json!("h"), json!("Deployment/d"), json!("cpu: 30%/80%"), json!("1"), json!(5), json!(2)]
        );
    }
}
