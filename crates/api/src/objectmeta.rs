//! The rules of `ObjectMeta`, which hold for every kind: names, namespaces, labels, annotations, owners, finalizers,
//! and what an update may not change. Follows `ValidateObjectMetaAccessor`, `ValidateObjectMetaAccessorUpdate` and
//! the metadata part of `rest.BeforeCreate` and `rest.BeforeUpdate`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupVersion, Value, json, names};

use crate::columns::items;
use crate::strategy::{NameRule, keep_metadata};
use crate::validation::At;

/// What a field that may not change says when it does.
pub const FIELD_IMMUTABLE: &str = "field is immutable";
/// What a negative number says where none may stand.
pub const IS_NEGATIVE: &str = "must be greater than or equal to 0";

const ORPHAN_DEPENDENTS: &str = "orphan";
const DELETE_DEPENDENTS: &str = "foregroundDeletion";
/// The longest name of a field manager.
const FIELD_MANAGER_MAX: usize = 128;
/// The longest name of a subresource in managedFields.
const SUBRESOURCE_MAX: usize = 256;

/// Fields of metadata an update may not change, in the order in which they are checked.
const IMMUTABLE: [&str; 6] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Removes from new metadata what only the server sets.
pub fn prepare_for_create(obj: &mut Value) {
    if let Some(metadata) = metadata_mut(obj) {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(field);
        }
    }
}

/// Carries over from the old metadata what an update leaves out or may not touch.
pub fn prepare_for_update(obj: &mut Value, old: &Value) {
    for field in ["generation", "creationTimestamp"] {
        keep_metadata(obj, old, field);
    }
    if old.pointer("/metadata/deletionTimestamp").is_some() {
        keep_metadata(obj, old, "deletionTimestamp");
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if is_unset(obj.get("metadata").and_then(|m| m.get(field))) {
            keep_metadata(obj, old, field);
        }
    }
    if let Some(metadata) = metadata_mut(obj) {
        metadata.remove("selfLink");
    }
}

fn metadata_mut(obj: &mut Value) -> Option<&mut apimachinery::Map> {
    obj.get_mut("metadata").and_then(Value::as_object_mut)
}

fn is_unset(value: Option<&Value>) -> bool {
    value.is_none_or(|v| v.is_null() || v.as_str() == Some(""))
}

/// The complaints about the metadata of a new object, whose name has been generated already.
pub fn validate(obj: &Value, namespaced: bool, name_rule: NameRule) -> ErrorList {
    let path = Path::new("metadata");
    let metadata = obj.get("metadata").unwrap_or(&Value::Null);
    let mut errors = ErrorList::new();
    validate_names(metadata, name_rule, &path, &mut errors);
    validate_namespace(metadata, namespaced, &path, &mut errors);
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g < 0) {
        errors.push(Error::invalid(&path.child("generation"), generation, IS_NEGATIVE));
    }
    validate_common(metadata, &path, &mut errors);
    validate_finalizers(metadata, &path.child("finalizers"), &mut errors);
    validate_managed_fields(metadata, &path.child("managedFields"), &mut errors);
    errors
}

/// The complaints about a change of metadata.
pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let metadata = obj.get("metadata").unwrap_or(&Value::Null);
    let old = old.get("metadata").unwrap_or(&Value::Null);
    let mut errors = ErrorList::new();
    if old.get("deletionTimestamp").is_some() {
        validate_no_new_finalizers(metadata, old, &path.child("finalizers"), &mut errors);
    }
    if str_at(metadata, &["resourceVersion"]).is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    for field in IMMUTABLE {
        let new = metadata.get(field);
        if new != old.get(field) && !(is_unset(new) && is_unset(old.get(field))) {
            errors.push(Error::invalid(
                &path.child(field),
                new.cloned().unwrap_or_else(|| {
                    if field == "deletionGracePeriodSeconds" { Value::Null } else { "".into() }
                }),
                FIELD_IMMUTABLE,
            ));
        }
    }
    validate_common(metadata, &path, &mut errors);
    validate_finalizers(metadata, &path.child("finalizers"), &mut errors);
    validate_managed_fields(metadata, &path.child("managedFields"), &mut errors);
    errors
}

fn validate_names(metadata: &Value, name_rule: NameRule, path: &Path, errors: &mut ErrorList) {
    let generate_name = str_at(metadata, &["generateName"]);
    if !generate_name.is_empty() {
        for complaint in name_rule(&mask_trailing_dash(generate_name)) {
            errors.push(Error::invalid(&path.child("generateName"), generate_name, complaint));
        }
    }
    let name = str_at(metadata, &["name"]);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
        return;
    }
    for complaint in name_rule(name) {
        errors.push(Error::invalid(&path.child("name"), name, complaint));
    }
}

/// A prefix may end in a dash, for a suffix will follow.
fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn validate_namespace(metadata: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let namespace = str_at(metadata, &["namespace"]);
    let path = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&path, "")),
        (true, false) => {
            for complaint in names::is_dns1123_label(namespace) {
                errors.push(Error::invalid(&path, namespace, complaint));
            }
        }
        (false, false) => errors.push(Error::forbidden(&path, "not allowed on this type")),
        (false, true) => {}
    }
}

fn validate_common(metadata: &Value, path: &Path, errors: &mut ErrorList) {
    validate_labels(metadata.get("labels"), &path.child("labels"), errors);
    validate_annotations(metadata.get("annotations"), &path.child("annotations"), errors);
    validate_owner_references(metadata, &path.child("ownerReferences"), errors);
}

/// Labels, on metadata, pod templates and selectors alike.
pub fn validate_labels(labels: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        validate_label_name(key, path, errors);
        let value = value.as_str().unwrap_or_default();
        for complaint in names::is_label_value(value) {
            errors.push(Error::invalid(path, value, complaint));
        }
    }
}

/// One label key.
pub fn validate_label_name(key: &str, path: &Path, errors: &mut ErrorList) {
    for complaint in names::is_qualified_name(key) {
        errors.push(Error::invalid(path, key, complaint));
    }
}

/// Annotations, whose keys may have upper case in their prefix.
pub fn validate_annotations(annotations: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        for complaint in names::is_qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key.as_str(), complaint));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > names::TOTAL_ANNOTATION_SIZE_MAX {
        errors.push(Error::too_long(path, names::TOTAL_ANNOTATION_SIZE_MAX));
    }
}

/// The metadata that a template gives the objects made of it: labels and annotations, and nothing else (follows
/// `ValidateTemplateObjectMeta`).
pub fn validate_template(metadata: &At, errors: &mut ErrorList) {
    const NOT_OF_A_TEMPLATE: [&str; 13] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let field = |name: &str| metadata.value.get(name);
    validate_annotations(field("annotations"), &metadata.path.child("annotations"), errors);
    validate_labels(field("labels"), &metadata.path.child("labels"), errors);
    for name in
        NOT_OF_A_TEMPLATE.iter().filter(|name| !is_unset(field(name)) && field(name) != Some(&Value::from(0)))
    {
        errors.push(Error::forbidden(&metadata.path.child(name), "cannot be set"));
    }
}

fn validate_owner_references(metadata: &Value, path: &Path, errors: &mut ErrorList) {
    let owners = items(metadata, &["ownerReferences"]);
    let mut controller: Option<String> = None;
    for owner in owners {
        validate_owner_reference(owner, path, errors);
        if owner.get("controller") != Some(&Value::Bool(true)) {
            continue;
        }
        let current = format!("{}/{}", str_at(owner, &["kind"]), str_at(owner, &["name"]));
        match &controller {
            Some(first) => errors.push(Error::invalid(
                path,
                owners.to_vec(),
                format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {current}"),
            )),
            None => controller = Some(current),
        }
    }
}

fn validate_owner_reference(owner: &Value, path: &Path, errors: &mut ErrorList) {
    let api_version = str_at(owner, &["apiVersion"]);
    let version = GroupVersion::parse(api_version).map_or_else(String::new, |gv| gv.version);
    if version.is_empty() {
        errors.push(Error::invalid(&path.child("apiVersion"), api_version, "version must not be empty"));
    }
    for field in ["kind", "name", "uid"] {
        if str_at(owner, &[field]).is_empty() {
            errors.push(Error::invalid(&path.child(field), "", "must not be empty"));
        }
    }
    if (api_version, str_at(owner, &["kind"])) == ("v1", "Event") {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(Error::invalid(path, owner.clone(), detail));
    }
}

fn validate_finalizers(metadata: &Value, path: &Path, errors: &mut ErrorList) {
    let finalizers: Vec<&str> = items(metadata, &["finalizers"]).iter().filter_map(Value::as_str).collect();
    for finalizer in &finalizers {
        for complaint in names::is_qualified_name(finalizer) {
            errors.push(Error::invalid(path, *finalizer, complaint));
        }
    }
    if finalizers.contains(&ORPHAN_DEPENDENTS) && finalizers.contains(&DELETE_DEPENDENTS) {
        errors.push(Error::invalid(
            path,
            json!(finalizers),
            format!("finalizer {ORPHAN_DEPENDENTS} and {DELETE_DEPENDENTS} cannot be both set"),
        ));
    }
}

/// Finalizers without a domain that are none of Kubernetes' own.
pub fn unqualified_finalizers(obj: &Value) -> ErrorList {
    let path = Path::new("metadata").child("finalizers");
    let finalizers = items(obj, &["metadata", "finalizers"]).iter().filter_map(Value::as_str);
    let unqualified = |(at, name): (usize, &str)| {
        (!is_standard_or_qualified(name))
            .then(|| Error::invalid(&path.index(at), name, UNQUALIFIED_FINALIZER))
    };
    finalizers.enumerate().filter_map(unqualified).collect()
}

/// What a finalizer must be that only Kubernetes may leave without a domain.
pub const UNQUALIFIED_FINALIZER: &str = "name is neither a standard finalizer name nor is it fully qualified";

pub fn is_standard_or_qualified(finalizer: &str) -> bool {
    finalizer.contains('/') || ["kubernetes", ORPHAN_DEPENDENTS, DELETE_DEPENDENTS].contains(&finalizer)
}

fn validate_no_new_finalizers(metadata: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let old = items(old, &["finalizers"]);
    let mut extra: Vec<&str> = items(metadata, &["finalizers"])
        .iter()
        .filter(|finalizer| !old.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let list: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
        errors.push(Error::forbidden(
            path,
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            ),
        ));
    }
}

fn validate_managed_fields(metadata: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, entry) in items(metadata, &["managedFields"]).iter().enumerate() {
        let path = path.index(index);
        let operation = str_at(entry, &["operation"]);
        if !matches!(operation, "Apply" | "Update") {
            errors.push(Error::invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields_type = str_at(entry, &["fieldsType"]);
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        validate_field_manager(str_at(entry, &["manager"]), &path.child("manager"), errors);
        if str_at(entry, &["subresource"]).len() > SUBRESOURCE_MAX {
            errors.push(Error::too_long(&path.child("subresource"), SUBRESOURCE_MAX));
        }
    }
}

/// The name of a field manager, in managedFields and as a request option.
pub fn validate_field_manager(manager: &str, path: &Path, errors: &mut ErrorList) {
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path, manager, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metadata: Value, namespaced: bool, expect: &[&str]) {
        let found = validate(&json!({"metadata": metadata}), namespaced, names::is_dns1123_subdomain);
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        let starts = text.len() == expect.len() && text.iter().zip(expect).all(|(t, e)| t.starts_with(e));
        assert!(starts, "found {text:#?}, expected {expect:#?}");
    }

    #[test]
    fn a_new_object_needs_a_name_and_its_scope() {
        check(json!({"name": "a", "namespace": "b"}), true, &[]);
        check(json!({"name": "a"}), false, &[]);
        check(
            json!({"namespace": "b"}),
            true,
            &["metadata.name: Required value: name or generateName is required"],
        );
        check(json!({"name": "a"}), true, &["metadata.namespace: Required value"]);
        check(
            json!({"name": "a", "namespace": "b"}),
            false,
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check(
            json!({"name": "A_", "namespace": "b"}),
            true,
            &["metadata.name: Invalid value: \"A_\": a lowercase RFC 1123"],
        );
        check(json!({"generateName": "x-", "name": "x-abc", "namespace": "b"}), true, &[]);
    }

    #[test]
    fn labels_annotations_owners_and_finalizers_are_checked() {
        let base = |field: &str, value: Value| {
            let mut metadata = json!({"name": "a", "namespace": "b"});
            metadata[field] = value;
            metadata
        };
        check(
            base("labels", json!({"a/b/c": "x"})),
            true,
            &["metadata.labels: Invalid value: \"a/b/c\": a valid label key"],
        );
        check(
            base("labels", json!({"a": "-"})),
            true,
            &["metadata.labels: Invalid value: \"-\": a valid label"],
        );
        check(base("annotations", json!({"Example.COM/a": "any thing"})), true, &[]);
        let huge = "x".repeat(names::TOTAL_ANNOTATION_SIZE_MAX);
        check(base("annotations", json!({"a": huge})), true, &["metadata.annotations: Too long"]);
        check(
            base("ownerReferences", json!([{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}])),
            true,
            &["metadata.ownerReferences.name: Invalid value: \"\": must not be empty"],
        );
        check(
            base("finalizers", json!(["orphan", "foregroundDeletion"])),
            true,
            &["metadata.finalizers: Invalid value"],
        );
    }

    #[test]
    fn an_update_may_not_change_identity_nor_add_finalizers_to_the_dying() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-02T03:04:05Z"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "resourceVersion": "3",
            "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a.b/c"]}});
        let text: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/c\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }

    #[test]
    fn an_update_inherits_what_it_leaves_out() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "generation": 4, "creationTimestamp": "t"}});
        let mut new = json!({"metadata": {"name": "a", "generation": 9}});
        prepare_for_update(&mut new, &old);
        assert_eq!(new, old);
    }
}
