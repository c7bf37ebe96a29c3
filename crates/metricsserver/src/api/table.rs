//! Objects as a table, for `kubectl get` (follows metrics-server's `ConvertToTable`). Pure.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use apimachinery::{Value, json};

/// Whether the first form that the client accepts, and that is known here, is the table.
pub fn is_wanted(accept: &str) -> bool {
    let first = accept.split(',').find(|kind| kind.trim().starts_with("application/json"));
    first.is_some_and(|kind| kind.contains("as=Table") && kind.contains("v=v1"))
}

pub fn table(items: &[Value]) -> Value {
    let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
    let columns = [
        column("Name", "name", "Name of the resource"),
        column("cpu", "quantity", "Usage of processors"),
        column("memory", "quantity", "Usage of memory"),
        column("Window", "duration", "Time over which it was measured"),
    ];
    let rows: Vec<Value> = items.iter().map(row).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

fn row(item: &Value) -> Value {
    let usages: Vec<&Value> = match item["containers"].as_array() {
        Some(containers) => containers.iter().map(|container| &container["usage"]).collect(),
        None => vec![&item["usage"]],
    };
    let sum = sum(&usages);
    let amount = |name: &str| sum.get(name).map(ToString::to_string).unwrap_or_default();
    let metadata = &item["metadata"];
    json!({
        "cells": [metadata["name"], amount("cpu"), amount("memory"), item["window"]],
        "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata},
    })
}

fn sum(usages: &[&Value]) -> BTreeMap<String, Quantity> {
    let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, amount) in usages.iter().filter_map(|usage| usage.as_object()).flatten() {
        let Some(Ok(amount)) = amount.as_str().map(str::parse::<Quantity>) else { continue };
        sum.entry(name.to_string()).and_modify(|sum| sum.add(&amount)).or_insert(amount);
    }
    sum
}
