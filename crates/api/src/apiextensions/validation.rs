//! What a CustomResourceDefinition may hold, and what may change (follows `ValidateCustomResourceDefinition`,
//! `ValidateCustomResourceDefinitionUpdate`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};

use super::{defaults, structural};
use crate::admissionregistration::client;
use crate::columns::items;
use crate::validation::At;

const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];
const STRATEGIES: [&str; 2] = ["None", "Webhook"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const WARNING_MAX: usize = 256;
const SELECTABLE_FIELDS_MAX: usize = 8;
/// Who has looked at an API in a group of the project's own.
const APPROVED: &str = "api-approved.kubernetes.io";

pub fn validate(obj: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(obj);
    spec(&root.get("spec"), old, &mut errors);
    if let Some(old) = old {
        immutable_names(&root, old, &mut errors);
    }
    errors.extend(validate_status(obj));
    stored_versions(&root, &mut errors);
    approval(&root, old, &mut errors);
    preserve_unknown_fields(&root, old, &mut errors);
    errors
}

/// What is wrong with the metadata, with what is wrong with the name said after what else is wrong with it.
pub fn with_required_name(obj: &Value, metadata: ErrorList) -> ErrorList {
    let name = Path::new("metadata").child("name");
    let place = metadata.iter().rposition(|error| error.field == name).map_or(0, |last| last + 1);
    let mut errors = metadata;
    errors.splice(place..place, required_name(obj));
    errors
}

/// It is named after its resource and group.
fn required_name(obj: &Value) -> ErrorList {
    let root = At::root(obj);
    let part = |path: &[&str]| root.at(path).text();
    let required = format!("{}.{}", part(&["spec", "names", "plural"]), part(&["spec", "group"]));
    let given = ["generateName", "name"].map(|field| root.at(&["metadata", field]));
    let wrong = given.iter().filter(|name| !name.is_empty() && name.text() != required);
    wrong.map(|name| name.invalid("must be spec.names.plural+\".\"+spec.group")).collect()
}

fn spec(spec: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let group = spec.get("group");
    let complaints = names::is_dns1123_subdomain(group.text());
    if group.is_empty() {
        errors.push(group.required(""));
    } else if !complaints.is_empty() {
        errors.push(group.invalid(complaints.join(",")));
    } else if !group.text().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
    scope(&spec.get("scope"), errors);
    for version in spec.get("versions").items() {
        let schema = version.at(&["schema", "openAPIV3Schema"]);
        if !schema.is_set() {
            errors.push(schema.required(""));
        }
    }
    versions(&spec.get("versions"), errors);
    let names = spec.get("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if names.get(field).is_empty() {
            errors.push(names.get(field).required(""));
        }
    }
    check_names(&names, errors);
    if let Some(at) = spec.field("conversion") {
        conversion(&at, old, errors);
    }
}

fn scope(scope: &At, errors: &mut ErrorList) {
    scope.check_enum(&SCOPES, errors);
}

fn versions(list: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for version in list.items() {
        let name = version.get("name");
        unique &= seen.insert(name.text());
        label(&name, names::is_dns1035_label(name.text()), errors);
        check_version(&version, errors);
    }
    if !unique {
        errors.push(list.invalid("must contain unique version names"));
    }
    if list.items().filter(|version| version.get("storage").is_true()).count() != 1 {
        errors.push(list.invalid("must have exactly one version marked as storage version"));
    }
}

/// All complaints about a name in one.
fn label(at: &At, complaints: Vec<String>, errors: &mut ErrorList) {
    if !complaints.is_empty() {
        errors.push(Error::invalid(&at.path, at.text(), complaints.join(",")));
    }
}

fn check_version(version: &At, errors: &mut ErrorList) {
    if let Some(warning) = version.field("deprecationWarning") {
        deprecation_warning(version.get("deprecated").is_true(), &warning, errors);
    }
    let schema = version.at(&["schema", "openAPIV3Schema"]);
    let status = version.at(&["subresources", "status"]).is_set();
    if schema.is_set() {
        let before = errors.len();
        structural::validate(&schema, status, errors);
        if errors.len() == before {
            defaults::check(&schema, errors);
        }
    }
    if let Some(scale) = version.get("subresources").field("scale") {
        check_scale(&scale, errors);
    }
    for column in version.get("additionalPrinterColumns").items() {
        check_column(&column, errors);
    }
    selectable_fields(&version.get("selectableFields"), &schema, errors);
}

fn deprecation_warning(deprecated: bool, warning: &At, errors: &mut ErrorList) {
    if !deprecated {
        errors.push(warning.invalid("can only be set for deprecated versions"));
        return;
    }
    let text = warning.text();
    if text.len() > WARNING_MAX {
        errors.push(warning.invalid("must be <= 256 characters long"));
    }
    if text.is_empty() {
        errors.push(warning.invalid("must not be an empty string"));
    }
    if let Some((index, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let detail = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        );
        errors.push(warning.invalid(detail));
    }
}

fn check_scale(scale: &At, errors: &mut ErrorList) {
    let path_of = |field: &str| scale.get(field);
    for (field, prefix, below) in
        [("specReplicasPath", ".spec.", ".spec"), ("statusReplicasPath", ".status.", ".status")]
    {
        let at = path_of(field);
        if at.is_empty() {
            errors.push(at.required(""));
        } else if simple_path(&at, errors) && !at.text().starts_with(prefix) {
            errors.push(at.invalid(format!("should be a json path under {below}")));
        }
    }
    let selector = path_of("labelSelectorPath");
    let is_below = [".spec.", ".status."].iter().any(|prefix| selector.text().starts_with(prefix));
    if !selector.is_empty() && simple_path(&selector, errors) && !is_below {
        errors.push(selector.invalid("should be a json path under either .spec or .status"));
    }
}

/// Whether the path begins as a path does.
fn simple_path(path: &At, errors: &mut ErrorList) -> bool {
    let starts_well = path.text().starts_with('.');
    if !starts_well {
        errors.push(path.invalid("must be a simple json path starting with ."));
    }
    starts_well
}

fn check_column(column: &At, errors: &mut ErrorList) {
    let (name, of_type, format) = (column.get("name"), column.get("type"), column.get("format"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if of_type.is_empty() {
        errors.push(of_type.required(types));
    } else if !COLUMN_TYPES.contains(&of_type.text()) {
        errors.push(of_type.invalid(types));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
        errors.push(format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(","))));
    }
    let path = column.get("jsonPath").under(&column.path.child("JSONPath"));
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        simple_path(&path, errors);
    }
}

fn selectable_fields(list: &At, schema: &At, errors: &mut ErrorList) {
    if list.len() > SELECTABLE_FIELDS_MAX {
        errors.push(Error::too_many(&list.path, list.len(), SELECTABLE_FIELDS_MAX));
    }
    let mut seen = BTreeSet::new();
    for field in list.items() {
        let path = field.get("jsonPath");
        if path.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        if !seen.insert(path.text()) {
            errors.push(path.duplicate());
        }
        let mut steps = path.text().trim_start_matches('.').split('.');
        let target = steps.try_fold(schema.value, |schema, step| schema.get("properties")?.get(step));
        match target.map(|target| str_at(target, &["type"])) {
            Some("boolean" | "integer" | "string") => {}
            Some(_) => errors.push(path.invalid("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.")),
            None => errors.push(path.invalid("is an invalid path: does not refer to a valid field")),
        }
    }
}

/// Names of the resource, of the specification or as accepted.
fn check_names(at: &At, errors: &mut ErrorList) {
    for field in ["plural", "singular"] {
        let name = at.get(field);
        if !name.is_empty() {
            label(&name, names::is_dns1035_label(name.text()), errors);
        }
    }
    for field in ["kind", "listKind"] {
        let name = at.get(field);
        let complaints = names::is_dns1035_label(&name.text().to_lowercase());
        if !name.is_empty() && !complaints.is_empty() {
            let rest = complaints.join(",");
            errors.push(name.invalid(format!("may have mixed case, but should otherwise match: {rest}")));
        }
    }
    for short in at.get("shortNames").items() {
        label(&short, names::is_dns1035_label(short.text()), errors);
    }
    if !at.get("kind").is_empty() && at.get("kind").text() == at.get("listKind").text() {
        errors.push(at.get("listKind").invalid("kind and listKind may not be the same"));
    }
    for category in at.get("categories").items() {
        label(&category, names::is_dns1035_label(category.text()), errors);
    }
}

fn conversion(at: &At, old: Option<&Value>, errors: &mut ErrorList) {
    at.get("strategy").check_enum(&STRATEGIES, errors);
    // Upstream's complaints name the fields as its internal version has them.
    let config_path = at.path.child("webhookClientConfig");
    let versions_path = at.path.child("conversionReviewVersions");
    let (config, versions) =
        (at.at(&["webhook", "clientConfig"]), at.at(&["webhook", "conversionReviewVersions"]));
    if at.get("strategy").text() != "Webhook" {
        const NOT_WEBHOOK: &str = "should not be set when strategy is not set to Webhook";
        if config.is_set() {
            errors.push(Error::forbidden(&config_path, NOT_WEBHOOK));
        }
        if !versions.is_empty() {
            errors.push(Error::forbidden(&versions_path, NOT_WEBHOOK));
        }
        return;
    }
    if config.is_set() {
        client::validate(&config.under(&config_path), errors);
    } else {
        errors.push(Error::required(&config_path, "required when strategy is set to Webhook"));
    }
    let recognized = |list: &[Value]| {
        list.is_empty() || list.iter().any(|v| v.as_str().is_some_and(|v| REVIEW_VERSIONS.contains(&v)))
    };
    let strict = old.is_none_or(|old| {
        recognized(items(old, &["spec", "conversion", "webhook", "conversionReviewVersions"]))
    });
    review_versions(&versions.under(&versions_path), strict, errors);
}

fn review_versions(list: &At, strict: bool, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(list.required(""));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in list.items() {
        if seen.insert(version.text()) {
            version.check(names::is_dns1035_label, errors);
        } else {
            errors.push(version.invalid("duplicate version"));
        }
    }
    if strict && !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        errors.push(list.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

/// What clients rely on once the resource is served.
fn immutable_names(root: &At, old: &Value, errors: &mut ErrorList) {
    let established = items(old, &["status", "conditions"])
        .iter()
        .any(|c| str_at(c, &["type"]) == "Established" && str_at(c, &["status"]) == "True");
    let old = At::root(old);
    let mut unchanged = |path: &[&str]| root.at(path).check_unchanged(&old.at(path), errors);
    if established {
        unchanged(&["spec", "scope"]);
        unchanged(&["spec", "names", "kind"]);
    }
    unchanged(&["spec", "group"]);
    unchanged(&["spec", "names", "plural"]);
}

pub fn validate_status(obj: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    check_names(&At::root(obj).at(&["status", "acceptedNames"]), &mut errors);
    errors
}

fn stored_versions(root: &At, errors: &mut ErrorList) {
    let stored = root.at(&["status", "storedVersions"]);
    if stored.is_empty() {
        errors.push(stored.invalid("must have at least one stored version"));
        return;
    }
    let versions = root.at(&["spec", "versions"]);
    for version in versions.items().filter(|version| version.get("storage").is_true()) {
        let name = version.get("name").text();
        if !stored.texts().contains(&name) {
            errors.push(stored.invalid(format!("must have the storage version {name}")));
        }
    }
    for at in stored.items() {
        let v = at.text();
        if !versions.items().any(|version| version.get("name").text() == v) {
            errors.push(at.invalid(format!("missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions")));
        }
    }
}

/// Groups of the project's own need to say who approved them.
fn approval(root: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let group = root.at(&["spec", "group"]).text();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    if !protected {
        return;
    }
    let annotation =
        |root: &At<'_>| approval_state(root.at(&["metadata", "annotations"]).get(APPROVED).text());
    let state = annotation(root);
    if old.is_some_and(|old| annotation(&At::root(old)) == state) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    match state {
        Approval::Given => {}
        Approval::Missing => errors.push(Error::required(
            &path,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
        Approval::Invalid => {
            let value = root.at(&["metadata", "annotations"]).get(APPROVED).text();
            let detail = format!("protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111");
            errors.push(Error::invalid(&path, value, detail));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Approval {
    Given,
    Missing,
    Invalid,
}

fn approval_state(annotation: &str) -> Approval {
    let is_url = annotation
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    match annotation {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") || is_url => Approval::Given,
        _ => Approval::Invalid,
    }
}

fn preserve_unknown_fields(root: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let at = root.at(&["spec", "preserveUnknownFields"]);
    let was = old.is_some_and(|old| old.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)));
    if at.is_true() && !was {
        errors.push(at.invalid("cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiextensions::CustomResourceDefinition;
    use crate::strategy::Strategy;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn definition(change: Value) -> Value {
        let mut obj = json!({"metadata": {"name": "xs.e.com"}, "spec": {"group": "e.com", "scope": "Namespaced",
            "names": {"plural": "xs", "kind": "X"}, "versions": [version("v1", true)]}});
        for (key, value) in change.as_object().into_iter().flatten() {
            obj["spec"][key] = value.clone();
        }
        CustomResourceDefinition.default(&mut obj);
        CustomResourceDefinition.prepare_for_create(&mut obj);
        obj
    }

    fn version(name: &str, storage: bool) -> Value {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}})
    }

    #[test]
    fn definitions_are_checked_field_by_field() {
        let with = |field: &str, value: Value| {
            let mut version = version("v1", true);
            version[field] = value;
            json!({"versions": [version]})
        };
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &[]),
            (
                json!({"group": "x"}),
                &["spec.group: Invalid value: \"x\": should be a domain with at least one dot"],
            ),
            (
                json!({"scope": "Global"}),
                &["spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\""],
            ),
            (
                json!({"versions": [version("v1", true), version("v1", true)]}),
                &["spec.versions: Invalid value", "spec.versions: Invalid value"],
            ),
            (with("schema", Value::Null), &["spec.versions[0].schema.openAPIV3Schema: Required value"]),
            (
                with("deprecationWarning", json!("old")),
                &[
                    "spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions",
                ],
            ),
            (
                with("additionalPrinterColumns", json!([{"name": "A", "type": "x", "jsonPath": "spec"}])),
                &[
                    "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date",
                    "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json",
                ],
            ),
            (
                with("subresources", json!({"scale": {"specReplicasPath": ".status.x"}})),
                &[
                    "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json",
                    "spec.versions[0].subresources.scale.statusReplicasPath: Required value",
                ],
            ),
            (
                json!({"names": {"plural": "xs", "kind": "X", "listKind": "X", "shortNames": ["A"]}}),
                &[
                    "spec.names.shortNames[0]: Invalid value: \"A\"",
                    "spec.names.listKind: Invalid value: \"X\": kind and",
                ],
            ),
            (
                json!({"conversion": {"strategy": "Webhook"}}),
                &[
                    "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                    "spec.conversion.conversionReviewVersions: Required value",
                ],
            ),
            (
                json!({"preserveUnknownFields": true}),
                &[
                    "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve",
                ],
            ),
        ];
        for (change, expect) in table {
            expect_errors(&CustomResourceDefinition.validate(&definition(change)), expect);
        }
    }

    #[test]
    fn a_stored_version_stays_until_nothing_is_stored_in_it() {
        let old = definition(json!({}));
        let mut new = old.clone();
        new["spec"]["versions"] = json!([version("v2", true)]);
        CustomResourceDefinition.prepare_for_update(&mut new, &old);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        expect_errors(
            &CustomResourceDefinition.validate_update(&new, &old),
            &[
                "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously",
            ],
        );
    }

    #[test]
    fn a_definition_is_named_after_its_resource_and_group() {
        expect_errors(&with_required_name(&definition(json!({})), ErrorList::new()), &[]);
        let mut other = definition(json!({"group": "x"}));
        other["metadata"]["generateName"] = json!("xs-");
        expect_errors(
            &with_required_name(&other, ErrorList::new()),
            &[
                "metadata.generateName: Invalid value: \"xs-\": must be spec.names.plural+\".\"+spec.group",
                "metadata.name: Invalid value: \"xs.e.com\": must be spec.names.plural+\".\"+spec.group",
            ],
        );
        let at = |field: &str, why: &str| Error::invalid(&Path::new("metadata").child(field), "", why);
        other["metadata"]["generateName"].take();
        let said = with_required_name(&other, vec![at("name", "odd"), at("labels", "odd")]);
        let fields: Vec<String> = said.iter().map(|error| error.field.to_string()).collect();
        assert_eq!(fields, ["metadata.name", "metadata.name", "metadata.labels"]);
        assert_eq!(said[0].detail, "odd");
    }

    #[test]
    fn groups_of_the_project_need_approval() {
        let mut obj = definition(json!({"group": "x.k8s.io"}));
        obj["metadata"]["name"] = json!("xs.x.k8s.io");
        let check =
            |obj: &Value, expect: &[&str]| expect_errors(&CustomResourceDefinition.validate(obj), expect);
        check(
            &obj,
            &["metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must"],
        );
        obj["metadata"]["annotations"] = json!({APPROVED: "unapproved, an experiment"});
        check(&obj, &[]);
    }
}
