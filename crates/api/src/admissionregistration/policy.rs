//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy (follow
//! `pkg/registry/admissionregistration/validatingadmissionpolicy` and `mutatingadmissionpolicy`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};
use jiff::Timestamp;

use super::expression::{self, Composition, Offers, Returns, Types};
use super::matching::{self, FAILURE_POLICIES, REINVOCATION_POLICIES};
use super::static_suffix_warning;
use crate::columns::{AGE, NAME, age, column, items, name};
use crate::core::persistentvolume::UNSET;
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{
    Column, Strategy, bump_generation, drop_field, keep, keep_all_metadata, set_first_generation,
};
use crate::validation::conditions::conditions;
use crate::validation::{At, same_field};

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// The longest expression for the value of an annotation.
const AUDIT_EXPRESSION_MAX: usize = 5 * 1024;
/// Words that CEL keeps for itself.
const CEL_RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

const PARAM_KIND: Column = column("ParamKind", "string", "Kind of object that parameterizes it.");
const VALIDATING_COLUMNS: [Column; 4] =
    [NAME, column("Validations", "integer", "How many validations it has."), PARAM_KIND, AGE];
const MUTATING_COLUMNS: [Column; 4] =
    [NAME, column("Mutations", "integer", "How many mutations it has."), PARAM_KIND, AGE];

pub struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn default(&self, obj: &mut Value) {
        default(obj);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validate_mutating(obj, true)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validate_mutating(obj, conditions_changed(obj, old))
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        static_suffix_warning(obj).into_iter().collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &MUTATING_COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        row(obj, "mutations", now)
    }
}

pub struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn default(&self, obj: &mut Value) {
        default(obj);
        fill(obj, &[("status", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        fill(obj, &[("status", Fill::Empty)]);
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validate_validating(obj, true)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validate_validating(obj, conditions_changed(obj, old))
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        for warning in status.at(&["typeChecking", "expressionWarnings"]).items() {
            for field in ["warning", "fieldRef"] {
                if warning.get(field).text().trim().is_empty() {
                    errors.push(warning.get(field).required(""));
                }
            }
        }
        conditions(&status.get("conditions"), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        static_suffix_warning(obj).into_iter().collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &VALIDATING_COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        row(obj, "validations", now)
    }
}

fn default(obj: &mut Value) {
    let Some(spec) = object_or_new(obj, "spec") else { return };
    fill(spec, &[("failurePolicy", Fill::Text("Fail"))]);
    if let Some(resources) = object(spec, "matchConstraints") {
        matching::default(resources);
    }
}

fn row(obj: &Value, list: &str, now: Timestamp) -> Vec<Value> {
    let kind = obj
        .pointer("/spec/paramKind")
        .map(|kind| format!("{}/{}", str_at(kind, &["apiVersion"]), str_at(kind, &["kind"])));
    vec![
        name(obj),
        items(obj, &["spec", list]).len().into(),
        kind.unwrap_or_else(|| UNSET.to_owned()).into(),
        age(obj, now),
    ]
}

/// Conditions are looked at again only when they, or what they can refer to, change.
fn conditions_changed(obj: &Value, old: &Value) -> bool {
    let (new, old) = (At::root(obj).get("spec"), At::root(old).get("spec"));
    ["paramKind", "matchConditions"].iter().any(|field| !same_field(new.value, old.value, field))
}

fn validate_validating(obj: &Value, check_conditions: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    let composition = common(&spec, check_conditions, &mut errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for at in [&validations, &annotations] {
            errors.push(at.required("validations or auditAnnotations must contain at least one item"));
        }
    }
    for at in validations.items() {
        validation(&at, &composition, &mut errors);
    }
    audit_annotations(str_at(obj, &["metadata", "name"]), &annotations, &composition, &mut errors);
    errors
}

fn validate_mutating(obj: &Value, check_conditions: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    let composition = common(&spec, check_conditions, &mut errors);
    matching::mutating_operations(&spec.get("matchConstraints"), &mut errors);
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for at in mutations.items() {
        mutation(&at, &composition, &mut errors);
    }
    spec.get("reinvocationPolicy").check_enum(&REINVOCATION_POLICIES, &mut errors);
    errors
}

/// What both kinds have. Returns the variables that the other expressions may use.
fn common(spec: &At, check_conditions: bool, errors: &mut ErrorList) -> Composition {
    spec.get("failurePolicy").check_enum(&FAILURE_POLICIES, errors);
    let has_params = spec.get("paramKind").is_set();
    if let Some(kind) = spec.field("paramKind") {
        param_kind(&kind, errors);
    }
    match spec.field("matchConstraints") {
        Some(constraints) => {
            matching::resources(&constraints, errors);
            if constraints.get("resourceRules").is_empty() {
                errors.push(constraints.get("resourceRules").required(""));
            }
        }
        None => errors.push(spec.get("matchConstraints").required("")),
    }
    if check_conditions {
        matching::conditions(&spec.get("matchConditions"), has_params, errors);
    }
    let mut composition = Composition::new(has_params, Types::default());
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.text().trim().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_cel_identifier(name.text()) {
            errors.push(name.invalid("must be a valid CEL identifier"));
        }
        if expression.text().trim().is_empty() {
            errors.push(expression.required("expression is not specified"));
        } else if let Err(why) = composition.add(name.text(), expression.text()) {
            errors.push(expression.invalid(why));
        }
    }
    composition
}

fn is_cel_identifier(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !CEL_RESERVED.contains(&name)
}

fn param_kind(at: &At, errors: &mut ErrorList) {
    let (version, kind) = (at.get("apiVersion"), at.get("kind"));
    if version.is_empty() {
        errors.push(version.required(""));
    } else {
        group_version(&version, errors);
    }
    if kind.is_empty() {
        errors.push(kind.required(""));
    } else {
        let complaints = names::is_dns1035_label(&kind.text().to_lowercase());
        if !complaints.is_empty() {
            let rest = complaints.join(",");
            errors.push(kind.invalid(format!("may have mixed case, but should otherwise match: {rest}")));
        }
    }
}

fn group_version(at: &At, errors: &mut ErrorList) {
    let (group, version) = match at.text().split('/').collect::<Vec<_>>()[..] {
        [version] => ("", version),
        [group, version] => (group, version),
        _ => {
            errors.push(at.invalid(format!("unexpected GroupVersion string: {}", at.text())));
            return;
        }
    };
    let mut complain = |part: &str, complaints: Vec<String>| {
        if !complaints.is_empty() {
            errors.push(Error::invalid(&at.path, part, complaints.join(",")));
        }
    };
    if !group.is_empty() {
        complain(group, names::is_dns1123_subdomain(group));
    }
    if version.is_empty() {
        complain(at.text(), vec!["version must be specified".to_owned()]);
    } else {
        complain(version, names::is_dns1035_label(version));
    }
}

fn validation(at: &At, composition: &Composition, errors: &mut ErrorList) {
    let (expression, message, computed) =
        (at.get("expression"), at.get("message"), at.get("messageExpression"));
    let is_blank = |text: &At| text.text().trim().is_empty();
    if is_blank(&expression) {
        errors.push(expression.required("expression is not specified"));
    } else {
        let env = composition.env(Offers { authorizer: true, ..Offers::default() });
        expression::check(&env, expression.text(), Returns::Bool, &expression.path, errors);
    }
    if !computed.is_empty() && is_blank(&computed) {
        errors.push(computed.invalid("must be non-empty if specified"));
    } else if !computed.is_empty() {
        let env = composition.env(Offers::default());
        expression::check(&env, computed.text(), Returns::Text, &computed.path, errors);
    }
    if !message.is_empty() && is_blank(&message) {
        errors.push(message.invalid("must be non-empty if specified"));
    } else if message.text().trim().contains(['\n', '\r']) {
        errors.push(message.invalid("must not contain line breaks"));
    }
    at.get("reason").check_optional_enum(&REASONS, errors);
}

fn audit_annotations(policy: &str, list: &At, composition: &Composition, errors: &mut ErrorList) {
    if list.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(list.invalid(detail));
    }
    let mut seen = BTreeSet::new();
    for annotation in list.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if policy.is_empty() {
            errors.push(key.invalid("requires metadata.name be non-empty"));
        } else {
            let full = format!("{policy}/{}", key.text());
            let complaints = names::is_qualified_name(&full);
            errors.extend(complaints.into_iter().map(|c| Error::invalid(&key.path, full.clone(), c)));
        }
        let trimmed = value.text().trim();
        if trimmed.is_empty() {
            errors.push(value.required("valueExpression is not specified"));
        } else if trimmed.len() > AUDIT_EXPRESSION_MAX {
            errors.push(value.required(format!("must not exceed {AUDIT_EXPRESSION_MAX} bytes in length")));
        } else {
            let env = composition.env(Offers { authorizer: true, ..Offers::default() });
            expression::check(&env, trimmed, Returns::TextOrNull, &value.path, errors);
        }
        if !seen.insert(key.text()) {
            errors.push(key.duplicate());
        }
    }
}

fn mutation(at: &At, composition: &Composition, errors: &mut ErrorList) {
    let (patch_type, patch, configuration) =
        (at.get("patchType"), at.get("jsonPatch"), at.get("applyConfiguration"));
    let (wanted, other, other_name, returns) = match patch_type.text() {
        "" => {
            errors.push(patch_type.required(""));
            return;
        }
        "JSONPatch" => (&patch, &configuration, "{applyConfiguration}", Returns::Patches),
        "ApplyConfiguration" => (&configuration, &patch, "{jsonPatch}", Returns::Configuration),
        _ => {
            errors.push(patch_type.not_supported(&PATCH_TYPES));
            return;
        }
    };
    let (chosen, expression) = (patch_type.text(), wanted.get("expression"));
    match expression.text().trim() {
        _ if !wanted.is_set() => {
            errors.push(wanted.required(format!("must be specified when patchType is {chosen}")));
        }
        "" => errors.push(expression.required("")),
        text => {
            let env = composition.env(Offers { authorizer: true, patches: true, ..Offers::default() });
            expression::check(&env, text, returns, &expression.path, errors);
        }
    }
    if other.is_set() {
        let detail = format!("must not be specified when patchType is {chosen}");
        errors.push(Error::invalid(&other.path, other_name, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn with(strategy: &dyn Strategy, base: Value, change: Value) -> ErrorList {
        let mut spec = base;
        spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]});
        for (key, value) in change.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let mut obj = json!({"metadata": {"name": "p"}, "spec": spec});
        strategy.default(&mut obj);
        strategy.validate(&obj)
    }

    #[test]
    fn validating_policies_are_checked_field_by_field() {
        let check = |change: Value, expect: &[&str]| {
            let base = json!({"validations": [{"expression": "true"}]});
            expect_errors(&with(&ValidatingAdmissionPolicy, base, change), expect);
        };
        check(json!({}), &[]);
        check(json!({"matchConstraints": null}), &["spec.matchConstraints: Required value"]);
        check(json!({"matchConstraints": {}}), &["spec.matchConstraints.resourceRules: Required value"]);
        check(json!({"failurePolicy": "x"}), &["spec.failurePolicy: Unsupported value: \"x\""]);
        check(
            json!({"validations": []}),
            &[
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain",
            ],
        );
        check(
            json!({"validations": [{"expression": " ", "message": "a\nb", "reason": "x"}]}),
            &[
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
                "spec.validations[0].reason: Unsupported value: \"x\"",
            ],
        );
        check(
            json!({"paramKind": {"apiVersion": "a/b/c"}}),
            &[
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Required value",
            ],
        );
        check(
            json!({"variables": [{"name": "in", "expression": ""}]}),
            &[
                "spec.variables[0].name: Invalid value: \"in\": must be a valid CEL identifier",
                "spec.variables[0].expression: Required value: expression is not specified",
            ],
        );
        check(
            json!({"variables": [{"name": "a", "expression": "object.x"}, {"name": "b", "expression": "variables.c"}],
                "matchConditions": [{"name": "c", "expression": "variables.a"}],
                "validations": [{"expression": "variables.a", "messageExpression": "authorizer.path('/')"}]}),
            &[
                "spec.matchConditions[0].expression: Invalid value: \"variables.a\": compilation failed: ERROR: <input>:1:1: undeclared reference",
                "spec.variables[1].expression: Invalid value: \"variables.c\": compilation failed: ERROR: <input>:1:10: undefined field 'c'",
                "spec.validations[0].expression: Invalid value: \"variables.a\": must evaluate to bool but got dyn",
                "spec.validations[0].messageExpression: Invalid value: \"authorizer.path('/')\": compilation failed",
            ],
        );
        check(
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "'x'"}, {"key": "k"}]}),
            &[
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            ],
        );
    }

    #[test]
    fn mutating_policies_are_checked_field_by_field() {
        let check = |change: Value, expect: &[&str]| {
            let base = json!({"reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/spec'}]"}}]});
            expect_errors(&with(&MutatingAdmissionPolicy, base, change), expect);
        };
        check(json!({}), &[]);
        check(json!({"reinvocationPolicy": ""}), &["spec.reinvocationPolicy: Required value"]);
        check(
            json!({"mutations": []}),
            &["spec.mutations: Required value: mutations must contain at least one item"],
        );
        check(
            json!({"mutations": [{"patchType": "ApplyConfiguration", "jsonPatch": {}}, {"patchType": "x"}]}),
            &[
                "spec.mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConf",
                "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType",
                "spec.mutations[1].patchType: Unsupported value: \"x\"",
            ],
        );
    }
}
