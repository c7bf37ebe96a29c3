//! What claims, classes and slices have in common to check (follows `pkg/apis/resource/validation`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, names};

use crate::objectmeta::validate_label_name;
use crate::storage::csi_driver_name;
use crate::validation::At;

/// Upstream: `OpaqueParametersMaxLength`.
const PARAMETERS_MAX: usize = 10 * 1024;
/// Upstream: `DeviceMaxIDLength`.
const ID_MAX: usize = 32;
/// Upstream: `BindingConditionsMaxSize` and `BindingFailureConditionsMaxSize`.
const BINDING_CONDITIONS_MAX: usize = 4;
const C_IDENTIFIER_MESSAGE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const TOLERATION_OPERATORS: [&str; 2] = ["Equal", "Exists"];

/// Whether a list or map has no more entries than it may; those of one that has are not looked at.
pub fn fits(list: &At, max: usize, errors: &mut ErrorList) -> bool {
    let fits = list.len() <= max;
    if !fits {
        errors.push(Error::too_many(&list.path, list.len(), max));
    }
    fits
}

/// Checks each item of a list, and then that no two have one key (follows `validateSet`).
pub fn set<'a, K: Ord + Clone + Into<Value>>(
    list: &At<'a>,
    max: usize,
    key: impl Fn(&At<'a>) -> K,
    check: impl Fn(&At<'a>, &mut ErrorList),
    errors: &mut ErrorList,
) {
    if !fits(list, max, errors) {
        return;
    }
    list.items().for_each(|item| check(&item, errors));
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let key = key(&item);
        if !seen.insert(key.clone()) {
            errors.push(Error::duplicate(&item.path, key));
        }
    }
}

/// Settings for a driver, of a class or a claim (follows `validateDeviceConfiguration`).
pub fn configuration(config: &At, errors: &mut ErrorList) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        errors.push(opaque.required(""));
        return;
    }
    csi_driver_name(&opaque.get("driver"), errors);
    raw_object(&opaque.get("parameters"), PARAMETERS_MAX, errors);
}

/// An object that only a driver understands (follows `validateRawExtension`).
pub fn raw_object(raw: &At, max: usize, errors: &mut ErrorList) {
    match raw.value {
        Value::Null => errors.push(raw.required("")),
        value if value.to_string().len() > max => errors.push(Error::too_long(&raw.path, max)),
        Value::Object(_) => {}
        _ => errors.push(Error::invalid(&raw.path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// One or more subdomains with slashes between them.
pub fn pool_name(name: &At, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    if name.len() > names::DNS1123_SUBDOMAIN_MAX {
        errors.push(Error::too_long(&name.path, names::DNS1123_SUBDOMAIN_MAX));
    }
    for part in name.text().split('/') {
        for complaint in names::is_dns1123_subdomain(part) {
            errors.push(Error::invalid(&name.path, part, complaint));
        }
    }
}

/// A domain that may be left out, a slash, and an identifier. Upstream lets what has more slashes pass.
pub fn qualified_name(name: &At, errors: &mut ErrorList) {
    match name.text().split('/').collect::<Vec<_>>()[..] {
        [id] => c_identifier(name, id, errors),
        [domain, id] => {
            let part = |text: &str| Value::from(text);
            if domain.is_empty() {
                errors.push(Error::invalid(&name.path, "", "the domain must not be empty"));
            } else {
                csi_driver_name(&At::new(&part(domain), name.path.clone()), errors);
            }
            if id.is_empty() {
                errors.push(Error::invalid(&name.path, "", "the name must not be empty"));
            } else {
                c_identifier(name, id, errors);
            }
        }
        _ => {}
    }
}

pub fn fully_qualified_name(name: &At, errors: &mut ErrorList) {
    qualified_name(name, errors);
    if !name.text().contains('/') {
        errors.push(name.invalid("a fully qualified name must be a domain and a name separated by a slash"));
    }
}

fn c_identifier(name: &At, id: &str, errors: &mut ErrorList) {
    if id.len() > ID_MAX {
        errors.push(Error::too_long(&name.path, ID_MAX));
    }
    let begins = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        errors.push(Error::invalid(&name.path, id, C_IDENTIFIER_MESSAGE));
    }
}

pub fn taint(taint: &At, errors: &mut ErrorList) {
    let key = taint.get("key");
    validate_label_name(key.text(), &key.path, errors);
    taint.get("value").check(names::is_label_value, errors);
    taint.get("effect").check_enum(&TAINT_EFFECTS, errors);
}

pub fn toleration(toleration: &At, errors: &mut ErrorList) {
    let key = toleration.get("key");
    if !key.is_empty() {
        validate_label_name(key.text(), &key.path, errors);
    }
    let (operator, value) = (toleration.get("operator"), toleration.get("value"));
    match operator.text() {
        "Exists" if !value.is_empty() => {
            errors.push(value.invalid("must be empty for operator `Exists`"));
        }
        "Equal" => value.check(names::is_label_value, errors),
        _ => operator.check_enum(&TOLERATION_OPERATORS, errors),
    }
    let effect = toleration.get("effect");
    if !effect.is_empty() {
        effect.check_enum(&TAINT_EFFECTS, errors);
    }
}

/// The conditions that bind a pod to a device, and those that give it up (follows `validateDeviceBindingParameters`).
pub fn binding_conditions(of: &At, errors: &mut ErrorList) {
    let (binding, failure) = (of.get("bindingConditions"), of.get("bindingFailureConditions"));
    for conditions in [&binding, &failure] {
        if fits(conditions, BINDING_CONDITIONS_MAX, errors) {
            conditions.items().for_each(|it| validate_label_name(it.text(), &it.path, errors));
        }
    }
    let mut seen = BTreeSet::new();
    errors.extend(binding.items().filter(|it| !seen.insert(it.text())).map(|it| it.duplicate()));
    let mut failing = BTreeSet::new();
    for condition in failure.items() {
        if !failing.insert(condition.text()) {
            errors.push(condition.duplicate());
        }
        if seen.contains(condition.text()) {
            errors
                .push(condition.invalid("bindingFailureConditions must not overlap with bindingConditions"));
        }
    }
    if binding.is_empty() && !failure.is_empty() {
        errors.push(binding.invalid("bindingConditions are required to use bindingFailureConditions"));
    }
    if failure.is_empty() && !binding.is_empty() {
        errors.push(failure.invalid("bindingFailureConditions are required to use bindingConditions"));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::expect_errors;

    fn check(rule: impl Fn(&At, &mut ErrorList), value: Value, expect: &[&str]) {
        let mut errors = ErrorList::new();
        let root = json!({"at": value});
        rule(&At::root(&root).get("at"), &mut errors);
        expect_errors(&errors, expect);
    }

    #[test]
    fn names_have_a_domain_and_an_identifier() {
        check(fully_qualified_name, json!("example.com/a_1"), &[]);
        check(fully_qualified_name, json!("a/b/c"), &[]);
        check(fully_qualified_name, json!("a"), &["at: Invalid value: \"a\": a fully qualified name"]);
        check(qualified_name, json!("a"), &[]);
        check(
            qualified_name,
            json!("/"),
            &["at: Invalid value: \"\": the domain must", "at: Invalid value: \"\": the name must"],
        );
        check(
            qualified_name,
            json!(format!("-/1{}", "a".repeat(32))),
            &[
                "at: Invalid value: \"-\": a lowercase RFC 1123 subdomain",
                "at: Too long: may not be more than 32 bytes",
                "at: Invalid value: \"1aaaa",
            ],
        );
        check(pool_name, json!("a.b/c"), &[]);
        check(pool_name, json!("a//b"), &["at: Invalid value: \"\": a lowercase RFC 1123 subdomain"]);
    }

    #[test]
    fn settings_are_an_object_for_a_driver() {
        let opaque =
            |driver: &str, parameters: Value| json!({"opaque": {"driver": driver, "parameters": parameters}});
        check(configuration, json!({}), &["at.opaque: Required value"]);
        check(configuration, opaque("d", json!({"a": 1})), &[]);
        check(
            configuration,
            opaque("", json!(null)),
            &["at.opaque.driver: Required value", "at.opaque.parameters: Required value"],
        );
        check(
            configuration,
            opaque("d", json!([])),
            &["at.opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"],
        );
        let long = json!({"a": "b".repeat(PARAMETERS_MAX)});
        check(configuration, opaque("d", long), &["at.opaque.parameters: Too long"]);
    }

    #[test]
    fn taints_have_effects_and_tolerations_operators() {
        check(taint, json!({"key": "a", "value": "b", "effect": "None"}), &[]);
        check(
            taint,
            json!({"effect": "x"}),
            &["at.key: Invalid", "at.key: Invalid", "at.effect: Unsupported"],
        );
        check(toleration, json!({"operator": "Equal", "value": "a"}), &[]);
        check(toleration, json!({}), &["at.operator: Required value"]);
        check(
            toleration,
            json!({"key": "-", "operator": "Exists", "value": "a", "effect": "x"}),
            &[
                "at.key: Invalid value",
                "at.value: Invalid value: \"a\": must be empty for operator `Exists`",
                "at.effect: Unsupported value: \"x\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
            ],
        );
    }

    #[test]
    fn conditions_of_binding_come_with_those_of_failure() {
        let of = |binding: Value, failure: Value| json!({"bindingConditions": binding, "bindingFailureConditions": failure});
        check(binding_conditions, of(json!(["a"]), json!(["b"])), &[]);
        check(
            binding_conditions,
            of(json!(["a"]), json!([])),
            &["at.bindingFailureConditions: Invalid value: []"],
        );
        check(
            binding_conditions,
            of(json!(["a", "a"]), json!(["a"])),
            &[
                "at.bindingConditions[1]: Duplicate value: \"a\"",
                "at.bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap",
            ],
        );
        check(
            binding_conditions,
            of(json!(["a", "b", "c", "d", "e"]), json!(["f"])),
            &["at.bindingConditions: Too many: 5: must have at most 4 items"],
        );
    }
}
