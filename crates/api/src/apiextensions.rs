//! The group `apiextensions.k8s.io`: CustomResourceDefinition (follows
//! `k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition`).

mod defaults;
#[cfg(test)]
mod hostile;
mod rules;
mod structural;
mod validation;

use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use crate::columns::items;
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Strategy, bump_generation, keep, set_first_generation};
use crate::validation::At;

/// Formats of strings and numbers that are known, as they read without dashes or in full; others earn a warning.
const FORMATS: [&str; 30] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "double",
    "duration",
    "email",
    "float",
    "hexcolor",
    "hostname",
    "int32",
    "int64",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8s-long-name",
    "k8s-short-name",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("status", Fill::Empty)]);
        let Some(spec) = object_or_new(obj, "spec") else { return };
        if let Some(names) = object_or_new(spec, "names") {
            default_names(names);
        }
        fill(spec, &[("conversion", Fill::Empty)]);
        if let Some(conversion) = object(spec, "conversion") {
            fill(conversion, &[("strategy", Fill::Text("None"))]);
            let config = object(conversion, "webhook").and_then(|webhook| object(webhook, "clientConfig"));
            if let Some(service) = config.and_then(|config| object(config, "service")) {
                fill(service, &[("port", Fill::Int(443))]);
            }
        }
        if items(obj, &["status", "storedVersions"]).is_empty() {
            remember_storage_version(obj);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = empty_status();
        remember_storage_version(obj);
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
        remember_storage_version(obj);
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
    }

    fn validate_new(&self, obj: &Value, metadata: ErrorList) -> ErrorList {
        let mut errors = validation::with_required_name(obj, metadata);
        errors.extend(self.validate(obj));
        errors
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate(obj, None)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate(obj, Some(old))
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        validation::validate_status(obj)
    }

    /// Formats that nobody checks, if the update brings them in.
    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(unknown_formats).unwrap_or_default();
        let new = unknown_formats(obj).into_iter().filter(|format| !before.contains(format));
        new.map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

fn empty_status() -> Value {
    json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null})
}

fn default_names(names: &mut Value) {
    let kind = str_at(names, &["kind"]).to_owned();
    if str_at(names, &["singular"]).is_empty() && !kind.is_empty() {
        names["singular"] = kind.to_lowercase().into();
    }
    if str_at(names, &["listKind"]).is_empty() && !kind.is_empty() {
        names["listKind"] = format!("{kind}List").into();
    }
}

/// Adds the version that is stored to those that objects may be stored in.
fn remember_storage_version(obj: &mut Value) {
    let versions = items(obj, &["spec", "versions"]);
    let Some(stored) = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))
    else {
        return;
    };
    let name = Value::from(str_at(stored, &["name"]));
    let mut known = items(obj, &["status", "storedVersions"]).to_vec();
    if !known.contains(&name)
        && let Some(status) = object_or_new(obj, "status")
    {
        known.push(name);
        status["storedVersions"] = known.into();
    }
}

/// The formats in a definition's schemas that are not known, sorted.
fn unknown_formats(obj: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in At::root(obj).at(&["spec", "versions"]).items() {
        collect_formats(version.at(&["schema", "openAPIV3Schema"]).value, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn collect_formats(schema: &Value, found: &mut Vec<String>) {
    let format = str_at(schema, &["format"]);
    if !format.is_empty()
        && !FORMATS.contains(&format.replace('-', "").as_str())
        && !FORMATS.contains(&format)
    {
        found.push(format.to_owned());
    }
    let children = schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, s)| s);
    let single = ["items", "additionalProperties"].into_iter().filter_map(|field| schema.get(field));
    for child in children.chain(single) {
        collect_formats(child, found);
    }
}
