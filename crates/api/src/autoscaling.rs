//! The group `autoscaling`: what scales by itself, and Scale, the one face of everything that has replicas (follows
//! `pkg/registry/apps/deployment/storage` `scaleFromDeployment` and `pkg/apis/autoscaling/validation`).

pub mod conversion;
pub mod horizontalpodautoscaler;
pub mod scale;

use apimachinery::field::ErrorList;
use apimachinery::{Map, Value, json};

use crate::columns::{count, format_label_selector};
use crate::defaults::object_or_new;
use crate::validation::At;

/// Metadata a Scale shares with its object.
const METADATA: [&str; 5] = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];

/// The `scale` of a workload with `spec.replicas`, `status.replicas` and `spec.selector`.
pub fn scale_of(obj: &Value) -> Value {
    let metadata: Map = METADATA
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), obj.pointer(&format!("/metadata/{field}"))?.clone())))
        .collect();
    let mut status = json!({"replicas": count(obj, &["status", "replicas"])});
    if let Some(selector) = obj.pointer("/spec/selector") {
        status["selector"] = format_label_selector(Some(selector)).into();
    }
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": count(obj, &["spec", "replicas"])},
        "status": status,
    })
}

/// The workload with the replicas its `scale` now wants, and the version the writer of the scale saw.
pub fn apply_scale(obj: &mut Value, scale: &Value) {
    let replicas = count(scale, &["spec", "replicas"]);
    if let Some(spec) = object_or_new(obj, "spec") {
        spec["replicas"] = replicas.into();
    }
    if let Some(version) = scale.pointer("/metadata/resourceVersion").filter(|v| v.as_str() != Some("")) {
        obj["metadata"]["resourceVersion"] = version.clone();
    }
}

/// A Scale as a body; its metadata is checked with the object it is applied to.
pub fn validate_scale(scale: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    At::root(scale).at(&["spec", "replicas"]).check_nonnegative(&mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    #[test]
    fn a_scale_reads_and_writes_replicas() {
        let mut obj = json!({"metadata": {"name": "d", "labels": {"x": "y"}}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 1}});
        let mut scale = scale_of(&obj);
        assert_eq!(
            scale,
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
                "spec": {"replicas": 2}, "status": {"replicas": 1, "selector": "a=b"}})
        );
        scale["spec"]["replicas"] = json!(5);
        apply_scale(&mut obj, &scale);
        assert_eq!(obj["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = json!(-1);
        expect_errors(
            &validate_scale(&scale),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
    }
}
