//! Policies and bindings judged, with expressions played by the test.

use std::collections::BTreeMap;

use apimachinery::json;

use super::*;
use crate::request::Operation;
use crate::rules::tests::attributes;
use crate::testing::Objects;

/// Expressions are pointers into the inputs, or fail.
struct Pointers;

struct Bound(BTreeMap<&'static str, Value>);

impl Evaluator for Bound {
    fn evaluate(&self, expression: &str) -> Result<Value, String> {
        let (root, path) = expression.split_once('/').unwrap_or((expression, ""));
        let found = self.0.get(root).and_then(|value| value.pointer(&format!("/{path}")));
        found
            .cloned()
            .ok_or_else(|| format!("expression '{expression}' resulted in error: no such key: {path}"))
    }
}

impl Engine for Pointers {
    fn evaluator<'a>(&'a self, inputs: Inputs<'a>) -> Box<dyn Evaluator + 'a> {
        let all = [
            ("object", inputs.object),
            ("params", inputs.params),
            ("request", inputs.request),
            ("namespaceObject", inputs.namespace_object),
        ];
        Box::new(Bound(all.into_iter().map(|(name, value)| (name, value.clone())).collect()))
    }

    fn params_of(&self, _: &str, kind: &str) -> Option<Scope> {
        (kind == "ConfigMap").then(|| Scope { resource: "configmaps".to_owned(), namespaced: true })
    }

    fn shown(&self, _: &Matched, object: &Value) -> Result<Value, Status> {
        Ok(object.clone())
    }
}

fn policy(spec: Value) -> Policy {
    let mut whole = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
        "apiVersions": ["v1"], "resources": ["deployments"]}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    Policy::read(&json!({"metadata": {"name": "p"}, "spec": whole}))
}

fn run(policy: &Policy, binding: Value, notes: &Notes) -> Result<(), (u16, String)> {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in binding.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let binding = Binding::read(&json!({"metadata": {"name": "b"}, "spec": spec}));
    let world = Objects::default()
        .with("namespaces", json!({"metadata": {"name": "ns", "labels": {"env": "test"}}}))
        .with(
            "configmaps",
            json!({"metadata": {"name": "limits", "namespace": "ns"}, "data": {"ok": true, "bad": false}}),
        );
    let request = attributes(Operation::Create, "deployments", "ns");
    let object = json!({"metadata": {"name": "x"}, "ok": true, "bad": false, "text": " because "});
    let review = Review { request: &request, object: &object, old: None, world: &world, notes };
    let outcome = validate(&review, std::slice::from_ref(policy), &[binding], &Pointers);
    outcome.map_err(|status| (status.code, status.message))
}

fn refused(code: u16, why: &str) -> Result<(), (u16, String)> {
    Err((
        code,
        format!(
            "deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {why}"
        ),
    ))
}

#[test]
fn a_validation_that_does_not_hold_denies_in_the_best_words_there_are() {
    let notes = Notes::default();
    let check = |validation: Value, expect| {
        assert_eq!(run(&policy(json!({"validations": [validation]})), json!({}), &notes), expect);
    };
    check(json!({"expression": "object/ok"}), Ok(()));
    check(json!({"expression": "object/bad"}), refused(422, "failed expression: object/bad"));
    check(
        json!({"expression": "object/bad", "message": "too bad", "reason": "Forbidden"}),
        refused(403, "too bad"),
    );
    check(
        json!({"expression": "object/bad", "message": "m", "messageExpression": "object/text"}),
        refused(422, "because"),
    );
    check(
        json!({"expression": "object/bad", "message": "m", "messageExpression": "object/none"}),
        refused(422, "m"),
    );
    check(
        json!({"expression": "object/none"}),
        refused(422, "expression 'object/none' resulted in error: no such key: none"),
    );
}

#[test]
fn failures_conditions_and_actions_follow_policy_and_binding() {
    let notes = Notes::default();
    let failing = |with: Value| {
        let mut spec = json!({"validations": [{"expression": "object/none"}]});
        spec.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
        policy(spec)
    };
    assert_eq!(run(&failing(json!({"failurePolicy": "Ignore"})), json!({}), &notes), Ok(()));
    let skips = json!({"matchConditions": [{"name": "n", "expression": "object/bad"}, {"name": "m", "expression": "object/none"}]});
    assert_eq!(run(&failing(skips), json!({}), &notes), Ok(()));
    let warned = policy(json!({"validations": [{"expression": "object/bad", "message": "m"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "object/text"}]}));
    assert_eq!(run(&warned, json!({"validationActions": ["Warn", "Audit"]}), &notes), Ok(()));
    let said = notes.take();
    assert_eq!(said.warnings, ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': m"]);
    assert_eq!(said.annotations["p/k"], "because");
    assert!(said.annotations.contains_key("validation.policy.admission.k8s.io/validation_failure"));
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}});
    assert_eq!(run(&failing(json!({})), elsewhere, &notes), Ok(()));
}

#[test]
fn parameters_come_by_name_or_label_and_may_be_missing() {
    let notes = Notes::default();
    let with = |kind: &str| {
        policy(
            json!({"paramKind": {"apiVersion": "v1", "kind": kind}, "validations": [{"expression": "params/data/bad", "message": "m"}]}),
        )
    };
    let by = |reference: Value| json!({"paramRef": reference});
    assert_eq!(run(&with("ConfigMap"), by(json!({"name": "limits"})), &notes), refused(422, "m"));
    assert_eq!(run(&with("ConfigMap"), by(json!({"selector": {}})), &notes), refused(422, "m"));
    assert_eq!(
        run(&with("ConfigMap"), by(json!({"name": "none", "parameterNotFoundAction": "Allow"})), &notes),
        Ok(())
    );
    assert_eq!(
        run(&with("ConfigMap"), by(json!({"name": "none", "parameterNotFoundAction": "Deny"})), &notes),
        refused(
            422,
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    );
    assert_eq!(
        run(&with("Unknown"), by(json!({"name": "x"})), &notes),
        refused(422, "failed to configure binding: paramKind kind `v1, Kind=Unknown` not known")
    );
}
