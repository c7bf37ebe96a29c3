//! IngressClass (follows `pkg/registry/networking/ingressclass`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::ingress;
use crate::columns::{AGE, NAME, NONE, age, column};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, bump_generation, set_first_generation};
use crate::validation::{At, dns1123_label, domain};

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The longest name of a controller.
const CONTROLLER_MAX: usize = 250;
const SCOPES: [&str; 2] = ["Cluster", "Namespace"];

const COLUMNS: [Column; 4] = [
    NAME,
    column("Controller", "string", "Who serves the ingresses of this class."),
    column("Parameters", "string", "Object with more settings."),
    AGE,
];

pub struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, obj: &mut Value) {
        let Some(spec) = object_or_new(obj, "spec") else { return };
        if let Some(parameters) = object(spec, "parameters") {
            fill(parameters, &[("scope", Fill::Text("Cluster"))]);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        let controller = spec.get("controller");
        if controller.len() > CONTROLLER_MAX {
            errors.push(Error::too_long(&controller.path, CONTROLLER_MAX));
        }
        domain::prefixed_path(&controller, &mut errors);
        if let Some(at) = spec.field("parameters") {
            parameters(&at, &mut errors);
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let controller = At::root(obj).at(&["spec", "controller"]);
        controller.check_unchanged(&At::root(old).at(&["spec", "controller"]), &mut errors);
        errors.extend(self.validate(obj));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let is_default = str_at(obj, &["metadata", "annotations", IS_DEFAULT]) == "true";
        let suffix = if is_default { " (default)" } else { "" };
        let parameters = obj.pointer("/spec/parameters").map(|parameters| {
            let part = |field: &str| str_at(parameters, &[field]);
            let group =
                parameters.get("apiGroup").map(|_| format!(".{}", part("apiGroup"))).unwrap_or_default();
            format!("{}{group}/{}", part("kind"), part("name"))
        });
        vec![
            format!("{}{suffix}", str_at(obj, &["metadata", "name"])).into(),
            str_at(obj, &["spec", "controller"]).into(),
            parameters.unwrap_or_else(|| NONE.to_owned()).into(),
            age(obj, now),
        ]
    }
}

fn parameters(at: &At, errors: &mut ErrorList) {
    ingress::local_reference(at, errors);
    let (scope, namespace) = (at.get("scope"), at.get("namespace"));
    match scope.text() {
        _ if !scope.is_set() => errors.push(scope.required("")),
        "Namespace" if !namespace.is_set() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => dns1123_label(&namespace, errors),
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        _ => errors.push(scope.not_supported(&SCOPES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn class(spec: Value) -> Value {
        let mut obj = json!({"metadata": {"name": "c"}, "spec": spec});
        IngressClass.default(&mut obj);
        obj
    }

    #[test]
    fn classes_are_checked_field_by_field() {
        let with = |parameters: Value| json!({"controller": "e.com/c", "parameters": parameters});
        let check =
            |spec: Value, expect: &[&str]| expect_errors(&IngressClass.validate(&class(spec)), expect);
        check(with(json!({"kind": "K", "name": "n"})), &[]);
        check(json!({}), &["spec.controller: Required value"]);
        check(
            json!({"controller": "x"}),
            &["spec.controller: Invalid value: \"x\": must be a domain-prefixed path"],
        );
        check(
            with(json!({"name": "n", "scope": "Namespace"})),
            &[
                "spec.parameters.kind: Required value",
                "spec.parameters.namespace: Required value: `parameters.scope`",
            ],
        );
        check(
            with(json!({"kind": "K", "name": "n", "namespace": "n"})),
            &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        );
        check(
            with(json!({"kind": "K", "name": "n", "scope": "x"})),
            &[
                "spec.parameters.scope: Unsupported value: \"x\": supported values: \"Cluster\", \"Namespace\"",
            ],
        );
        expect_errors(
            &IngressClass.validate_update(
                &class(json!({"controller": "e.com/d"})),
                &class(json!({"controller": "e.com/c"})),
            ),
            &["spec.controller: Invalid value: \"e.com/d\": field is immutable"],
        );
    }

    #[test]
    fn a_row_shows_what_is_default() {
        let mut obj = class(
            json!({"controller": "e.com/c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}),
        );
        obj["metadata"]["annotations"] = json!({IS_DEFAULT: "true"});
        let cells = IngressClass.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[..3], ["c (default)", "e.com/c", "K.g/n"].map(Value::from));
    }
}
