//! Ingress (follows `pkg/registry/networking/ingress`).

mod validation;

pub use validation::local_reference;

use std::collections::BTreeSet;

use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, age, column, items, name};
use crate::defaults::{Fill, fill, object_or_new};
use crate::strategy::{Column, Strategy, bump_generation, keep, set_first_generation};
use crate::validation::{At, ip};

/// Named the class before the field did.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Hosts shown before "more".
const SHOWN_MAX: usize = 3;
/// The width of an address in a table.
const ADDRESS_WIDTH: usize = 16;

const COLUMNS: [Column; 6] = [
    NAME,
    column("Class", "string", "Class of controller that serves it."),
    column("Hosts", "string", "Hosts it has rules for."),
    column("Address", "string", "Where clients reach it."),
    column("Ports", "string", "Ports of its frontend."),
    AGE,
];

pub struct Ingress;

impl Strategy for Ingress {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty)]);
        if let Some(status) = object_or_new(obj, "status") {
            fill(status, &[("loadBalancer", Fill::Empty)]);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"loadBalancer": {}});
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate_create(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old)
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_status(obj, old)
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let root = At::root(obj);
        let annotated = root.at(&["metadata", "annotations"]).get(CLASS_ANNOTATION).is_set();
        let mut warnings = Vec::new();
        if old.is_none() && annotated && !root.at(&["spec", "ingressClassName"]).is_set() {
            warnings.push(format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            ));
        }
        let addresses = root.at(&["status", "loadBalancer", "ingress"]);
        warnings.extend(
            addresses.items().filter_map(|ingress| ip::warning(&ingress.get("ip").under(&ingress.path))),
        );
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let class = obj.pointer("/spec/ingressClassName").filter(|c| !c.is_null()).cloned();
        let ports = if items(obj, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            name(obj),
            class.unwrap_or_else(|| NONE.into()),
            hosts(items(obj, &["spec", "rules"])).into(),
            addresses(items(obj, &["status", "loadBalancer", "ingress"])).into(),
            ports.into(),
            age(obj, now),
        ]
    }
}

fn hosts(rules: &[Value]) -> String {
    let shown: Vec<&str> =
        rules.iter().map(|rule| str_at(rule, &["host"])).filter(|host| !host.is_empty()).collect();
    if shown.is_empty() {
        return "*".to_owned();
    }
    let list = shown[..shown.len().min(SHOWN_MAX)].join(",");
    // Upstream counts as it goes: rules after the third host make it say "more".
    let third = rules.iter().enumerate().filter(|(_, r)| !str_at(r, &["host"]).is_empty()).nth(SHOWN_MAX - 1);
    match third {
        Some((index, _)) if index + 1 < rules.len() => {
            format!("{list} + {} more...", rules.len() - SHOWN_MAX)
        }
        _ => list,
    }
}

fn addresses(ingress: &[Value]) -> String {
    let address = |at: &Value| match str_at(at, &["ip"]) {
        "" => str_at(at, &["hostname"]).to_owned(),
        ip => ip.to_owned(),
    };
    let all: BTreeSet<String> = ingress.iter().map(address).filter(|a| !a.is_empty()).collect();
    let text = all.into_iter().collect::<Vec<_>>().join(",");
    match text.get(..ADDRESS_WIDTH - 3) {
        Some(start) if text.len() > ADDRESS_WIDTH => format!("{start}..."),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_hosts_and_addresses_shortened() {
        let rule = |host: &str| json!({"host": host});
        assert_eq!(hosts(&[]), "*");
        assert_eq!(hosts(&[rule("a"), rule("")]), "a");
        assert_eq!(hosts(&[rule("a"), rule("b"), rule("c")]), "a,b,c");
        assert_eq!(hosts(&[rule("a"), rule("b"), rule("c"), rule("d"), rule("e")]), "a,b,c + 2 more...");
        assert_eq!(addresses(&[json!({"ip": "10.0.0.2"}), json!({"hostname": "h"})]), "10.0.0.2,h");
        assert_eq!(addresses(&[json!({"hostname": "a-long-name.example.com"})]), "a-long-name.e...");
    }

    #[test]
    fn the_annotation_of_old_earns_a_warning() {
        let obj = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "c"}}, "spec": {}});
        assert_eq!(Ingress.warnings(&obj, None).len(), 1);
        assert_eq!(Ingress.warnings(&obj, Some(&obj)).len(), 0);
    }
}
