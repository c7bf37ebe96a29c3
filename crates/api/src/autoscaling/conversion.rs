//! `autoscaling/v1` knows one metric, CPU utilization; the rest of a HorizontalPodAutoscaler travels in annotations
//! (follows `pkg/apis/autoscaling/v1/conversion.go`).

use apimachinery::{Map, Value, json};

use super::horizontalpodautoscaler::{SOURCES, cpu_metric};
use crate::defaults::{Fill, fill, object_or_new};
use crate::strategy::drop_field;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// As `v1` writes an object of `v2`.
pub fn to_v1(obj: &mut Value) {
    let metrics = take_list(obj, "spec", "metrics");
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
    if let Some(metric) = cpu.first() {
        obj["spec"]["targetCPUUtilizationPercentage"] =
            metric["resource"]["target"]["averageUtilization"].clone();
    }
    let current = take_list(obj, "status", "currentMetrics");
    let is_cpu = |metric: &&Value| metric["resource"]["name"] == "cpu";
    if let Some(metric) = current.iter().find(is_cpu) {
        let utilization = &metric["resource"]["current"]["averageUtilization"];
        if !utilization.is_null() {
            obj["status"]["currentCPUUtilizationPercentage"] = utilization.clone();
        }
    }
    if let Some(status) = object_or_new(obj, "status") {
        fill(status, &[("currentReplicas", Fill::Int(0)), ("desiredReplicas", Fill::Int(0))]);
    }
    let conditions = take_list(obj, "status", "conditions");
    let behavior = take(obj, "spec", "behavior");
    let mut annotate = |key: &str, value: String| {
        if let Some(annotations) = object_or_new(&mut obj["metadata"], "annotations") {
            annotations[key] = value.into();
        }
    };
    if !others.is_empty() {
        annotate(METRICS, Value::from(others.iter().map(old_spec).collect::<Vec<_>>()).to_string());
    }
    if !current.is_empty() {
        annotate(
            CURRENT_METRICS,
            Value::from(current.iter().map(old_status).collect::<Vec<_>>()).to_string(),
        );
    }
    if let Some(behavior) = behavior {
        annotate(BEHAVIOR, with_go_names(&behavior).to_string());
    }
    if !conditions.is_empty() {
        annotate(CONDITIONS, Value::from(conditions).to_string());
    }
}

/// As `v2` writes an object of `v1`.
pub fn from_v1(obj: &mut Value) {
    let target = take(obj, "spec", "targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64());
    let current = take(obj, "status", "currentCPUUtilizationPercentage");
    let mut metrics: Vec<Value> = annotation_list(obj, METRICS).iter().map(new_spec).collect();
    metrics.extend(target.map(cpu_metric));
    if !metrics.is_empty() {
        obj["spec"]["metrics"] = metrics.into();
    }
    if let Some(Value::Object(behavior)) = annotation(obj, BEHAVIOR) {
        obj["spec"]["behavior"] = with_api_names(&Value::Object(behavior));
    }
    let statuses: Vec<Value> = annotation_list(obj, CURRENT_METRICS).iter().map(new_status).collect();
    if !statuses.is_empty() {
        obj["status"]["currentMetrics"] = statuses.into();
    } else if let Some(percent) = current {
        obj["status"]["currentMetrics"] = json!([{"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": percent}}}]);
    }
    // `v2` leaves no replicas unsaid.
    if obj.pointer("/status/currentReplicas").and_then(Value::as_i64) == Some(0) {
        drop_field(&mut obj["status"], "currentReplicas");
    }
    let conditions = annotation_list(obj, CONDITIONS);
    if !conditions.is_empty() {
        obj["status"]["conditions"] = conditions.into();
    }
    let annotations = obj.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        for key in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
            annotations.remove(key);
        }
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource"
        && resource["name"] == "cpu"
        && !resource["target"]["averageUtilization"].is_null()
}

fn take(obj: &mut Value, part: &str, field: &str) -> Option<Value> {
    obj.get_mut(part)?.as_object_mut()?.remove(field).filter(|value| !value.is_null())
}

fn take_list(obj: &mut Value, part: &str, field: &str) -> Vec<Value> {
    match take(obj, part, field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn annotation(obj: &Value, key: &str) -> Option<Value> {
    serde_json::from_str(obj["metadata"]["annotations"][key].as_str()?).ok()
}

fn annotation_list(obj: &Value, key: &str) -> Vec<Value> {
    match annotation(obj, key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Old and new place of each field of a metric source; the new place is a path.
const SPEC_FIELDS: &[(&str, &[&str])] = &[
    ("target", &["describedObject"]),
    ("metricName", &["metric", "name"]),
    ("metricSelector", &["metric", "selector"]),
    ("selector", &["metric", "selector"]),
    ("targetValue", &["target", "value"]),
    ("averageValue", &["target", "averageValue"]),
    ("targetAverageValue", &["target", "averageValue"]),
    ("targetAverageUtilization", &["target", "averageUtilization"]),
    ("name", &["name"]),
    ("container", &["container"]),
];
const STATUS_FIELDS: &[(&str, &[&str])] = &[
    ("target", &["describedObject"]),
    ("metricName", &["metric", "name"]),
    ("metricSelector", &["metric", "selector"]),
    ("selector", &["metric", "selector"]),
    ("currentValue", &["current", "value"]),
    ("averageValue", &["current", "averageValue"]),
    ("currentAverageValue", &["current", "averageValue"]),
    ("currentAverageUtilization", &["current", "averageUtilization"]),
    ("name", &["name"]),
    ("container", &["container"]),
];

/// Which of two old names a source of this kind has for one new place.
fn is_named_so(kind: &str, old: &str) -> bool {
    match old {
        "metricSelector" => kind == "external",
        "selector" => kind != "external",
        "averageValue" => kind == "object",
        "targetAverageValue" | "currentAverageValue" => kind != "object",
        _ => true,
    }
}

fn translate(
    metric: &Value,
    table: &[(&str, &[&str])],
    change: impl Fn(&str, &Value, &mut Value, &str, &[&str]),
) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (_, kind) in SOURCES.iter().filter(|(_, kind)| metric[*kind].is_object()) {
        let mut source = Value::Object(Map::new());
        for (old, new) in table.iter().filter(|(old, _)| is_named_so(kind, old)) {
            change(kind, &metric[*kind], &mut source, old, new);
        }
        out[*kind] = source;
    }
    out
}

fn to_old(_: &str, from: &Value, to: &mut Value, old: &str, new: &[&str]) {
    let value = new.iter().fold(from, |value, field| &value[*field]);
    if !value.is_null() {
        to[old] = value.clone();
    }
}

fn to_new(_: &str, from: &Value, to: &mut Value, old: &str, new: &[&str]) {
    let value = &from[old];
    if value.is_null() {
        return;
    }
    match new {
        [field] => to[*field] = value.clone(),
        [outer, inner] => to[*outer][*inner] = value.clone(),
        _ => {}
    }
}

fn old_spec(metric: &Value) -> Value {
    translate(metric, SPEC_FIELDS, to_old)
}

fn old_status(metric: &Value) -> Value {
    translate(metric, STATUS_FIELDS, to_old)
}

fn new_status(metric: &Value) -> Value {
    translate(metric, STATUS_FIELDS, to_new)
}

/// The old form has no type of target; it follows from what is aimed at.
fn new_spec(metric: &Value) -> Value {
    let mut spec = translate(metric, SPEC_FIELDS, to_new);
    for (_, kind) in SOURCES {
        let Some(target) = spec.get_mut(kind).map(|source| &mut source["target"]) else { continue };
        let has = |field: &str| !target[field].is_null();
        let by_value = matches!(kind, "object" | "external");
        let kind = match () {
            () if has("averageUtilization") => "Utilization",
            () if by_value && !has("averageValue") => "Value",
            () => "AverageValue",
        };
        target["type"] = kind.into();
    }
    spec
}

/// Upstream writes the behavior annotation from its internal type, whose fields have Go's names.
fn with_go_names(value: &Value) -> Value {
    rename(value, &|name| {
        let mut letters = name.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    })
}

fn with_api_names(value: &Value) -> Value {
    rename(value, &|name| {
        let mut letters = name.chars();
        letters
            .next()
            .map(|first| first.to_ascii_lowercase().to_string() + letters.as_str())
            .unwrap_or_default()
    })
}

fn rename(value: &Value, name: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (name(key), rename(value, name))).collect())
        }
        Value::Array(list) => list.iter().map(|item| rename(item, name)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_in_annotations() {
        let v2 = json!({"metadata": {"name": "h", "annotations": {}}, "spec": {"maxReplicas": 3,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "x"},
                    "target": {"type": "Value", "value": "3"}}},
                cpu_metric(50)],
            "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
            "status": {"desiredReplicas": 0, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageValue": "1", "averageUtilization": 30}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let mut v1 = v2.clone();
        to_v1(&mut v1);
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        let status =
            json!({"currentCPUUtilizationPercentage": 30, "currentReplicas": 0, "desiredReplicas": 0});
        assert_eq!(v1["status"], status);
        let metrics: Value =
            serde_json::from_str(v1["metadata"]["annotations"][METRICS].as_str().expect("text"))
                .expect("JSON");
        assert_eq!(
            metrics[0],
            json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "10"}})
        );
        from_v1(&mut v1);
        assert_eq!(v1, v2);
    }

    #[test]
    fn v1_alone_becomes_one_metric() {
        let mut obj = json!({"metadata": {"name": "h"}, "spec": {"targetCPUUtilizationPercentage": 70}, "status": {"currentCPUUtilizationPercentage": 20}});
        from_v1(&mut obj);
        assert_eq!(obj["spec"]["metrics"], json!([cpu_metric(70)]));
        assert_eq!(
            obj["status"]["currentMetrics"][0]["resource"]["current"],
            json!({"averageUtilization": 20})
        );
    }
}
