//! Policies and bindings of both kinds, judged and carried out.

use super::testing::{Scene, binding, policy};
use super::*;
use crate::rounds::Rounds;
use apimachinery::json;

fn deployment() -> Value {
    json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"replicas": 3}, "text": " because "})
}

fn validated(scene: &Scene, spec: Value, bound: Value) -> Result<(), (u16, String)> {
    let policies = [Arc::new(Policy::<Validations>::read(&policy(spec)))];
    let outcome = validating::validate(&scene.review(), &deployment(), &policies, &[binding(bound)]);
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
    let scene = Scene::new();
    let check = |validation: Value, expect| {
        assert_eq!(validated(&scene, json!({"validations": [validation]}), json!({})), expect);
    };
    check(json!({"expression": "object.spec.replicas == 3"}), Ok(()));
    check(
        json!({"expression": "object.spec.replicas > 3 "}),
        refused(422, "failed expression: object.spec.replicas > 3"),
    );
    check(
        json!({"expression": "false", "message": "too bad", "reason": "Forbidden"}),
        refused(403, "too bad"),
    );
    let both = |made: &str| json!({"expression": "false", "message": "m", "messageExpression": made});
    check(both("string(object.text)"), refused(422, "because"));
    check(both("string(object.none)"), refused(422, "m"));
    check(both("'a\\nb'"), refused(422, "m"));
    check(
        json!({"expression": "object.none == 1"}),
        refused(422, "expression 'object.none == 1' resulted in error: no such key: none"),
    );
    check(
        json!({"expression": "nothing"}),
        refused(
            422,
            "compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing\n | ^",
        ),
    );
}

#[test]
fn expressions_see_the_request_its_namespace_and_each_other() {
    let scene = Scene::new();
    for expression in [
        "request.operation == 'CREATE' && request.name == 'x' && oldObject == null",
        "namespaceObject.metadata.labels.env == 'test'",
        "variables.doubled == 6 && variables.many > variables.doubled",
        "!authorizer.requestResource.check('create').allowed()",
        "true || variables.broken",
    ] {
        let spec = json!({"validations": [{"expression": expression}], "variables": [
            {"name": "doubled", "expression": "object.spec.replicas * 2"},
            {"name": "many", "expression": "variables.doubled + 1"},
            {"name": "broken", "expression": "object.none"}]});
        assert_eq!(validated(&scene, spec, json!({})), Ok(()), "{expression}");
    }
}

#[test]
fn failures_conditions_and_actions_follow_policy_and_binding() {
    let scene = Scene::new();
    let failing = |with: Value| {
        let mut spec = json!({"validations": [{"expression": "object.none == 1"}]});
        spec.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
        spec
    };
    assert_eq!(validated(&scene, failing(json!({"failurePolicy": "Ignore"})), json!({})), Ok(()));
    let skips = json!({"matchConditions": [{"name": "n", "expression": "false"}, {"name": "m", "expression": "object.none"}]});
    assert_eq!(validated(&scene, failing(skips), json!({})), Ok(()));
    let warned = json!({"validations": [{"expression": "true"}, {"expression": "false", "message": "m"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "string(object.text)"}]});
    assert_eq!(validated(&scene, warned, json!({"validationActions": ["Warn", "Audit"]})), Ok(()));
    let said = scene.notes.take();
    assert_eq!(said.warnings, ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': m"]);
    assert_eq!(said.annotations["p/k"], "because");
    let failure: Value =
        serde_json::from_str(&said.annotations["validation.policy.admission.k8s.io/validation_failure"])
            .expect("is JSON");
    assert_eq!(
        failure,
        json!([{"message": "m", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Warn", "Audit"]}])
    );
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}});
    assert_eq!(validated(&scene, failing(json!({})), elsewhere), Ok(()));
}

#[test]
fn a_budget_ends_all_validations() {
    let costly = "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, a + b + c + d + e > 0)))))";
    let spec = json!({"validations": vec![json!({"expression": costly}); 30]});
    let spent =
        "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(validated(&Scene::new(), spec, json!({})), refused(422, spent));
}

#[test]
fn parameters_come_by_name_or_label_and_may_be_missing() {
    let scene = Scene::new();
    let with = |kind: &str| {
        json!({"paramKind": {"apiVersion": "v1", "kind": kind}, "validations": [
            {"expression": "object.spec.replicas <= params.data.max", "messageExpression": "'at most ' + string(params.data.max)"}]})
    };
    let check = |kind: &str, reference: Value, expect| {
        assert_eq!(validated(&scene, with(kind), json!({"paramRef": reference})), expect, "{reference}");
    };
    check("ConfigMap", json!({"name": "low"}), refused(422, "at most 1"));
    check("ConfigMap", json!({"name": "high"}), Ok(()));
    check("ConfigMap", json!({"selector": {"matchLabels": {"of": "limits"}}}), refused(422, "at most 1"));
    check("ConfigMap", json!({"name": "none", "parameterNotFoundAction": "Allow"}), Ok(()));
    check(
        "ConfigMap",
        json!({"name": "none", "parameterNotFoundAction": "Deny"}),
        refused(
            422,
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
        ),
    );
    let (code, message) =
        validated(&scene, with("Unknown"), json!({"paramRef": {"name": "x"}})).expect_err("is unknown");
    let unknown = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Unknown'";
    assert!(code == 422 && message.ends_with(unknown), "{message}");
}

struct Mutated {
    outcome: Result<bool, (u16, String, String)>,
    object: Value,
    rounds: Rounds,
}

fn mutated(spec: Value, mut object: Value, mut rounds: Rounds) -> Mutated {
    let scene = Scene::new();
    let policies = [Arc::new(Policy::<Mutations>::read(&policy(spec)))];
    let bindings = [binding(json!({}))];
    let outcome = mutating::mutate(&scene.review(), &mut object, &policies, &bindings, &mut rounds);
    let outcome = outcome.map_err(|status| (status.code, status.reason, status.message));
    Mutated { outcome, object, rounds }
}

fn applying(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patching(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[test]
fn mutations_are_carried_out_one_after_another() {
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [
        applying("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}"),
        patching("[JSONPatch{op: 'test', path: '/spec/replicas', value: 4}, JSONPatch{op: 'add', path: '/spec/paused', value: true}]"),
        patching("[JSONPatch{op: 'test', path: '/spec/replicas', value: 3}, JSONPatch{op: 'remove', path: '/spec'}]"),
    ]});
    let done = mutated(spec, deployment(), Rounds::default());
    assert_eq!(done.outcome, Ok(true));
    assert_eq!(done.object["spec"], json!({"replicas": 4, "paused": true}));
}

#[test]
fn a_mutation_that_fails_refuses_the_request_unless_failures_are_ignored() {
    let check = |expression: Value, policy: &str, expect: Result<bool, &str>| {
        let spec = json!({"failurePolicy": policy, "reinvocationPolicy": "Never", "mutations": [expression]});
        let told =
            |why| (403, "Invalid".to_owned(), format!("policy 'p' with binding 'b' denied request: {why}"));
        assert_eq!(mutated(spec, deployment(), Rounds::default()).outcome, expect.map_err(told));
    };
    let missing =
        "expression 'Object{spec: Object.spec{a: object.none}}' resulted in error: no such key: none";
    check(applying("Object{spec: Object.spec{a: object.none}}"), "Fail", Err(missing));
    check(applying("Object{spec: Object.spec{a: object.none}}"), "Ignore", Ok(false));
    check(applying("1"), "Fail", Err("must evaluate to Object but got int"));
    let path = "JSON Patch: remove operation does not apply: doc is missing path: \"/none/a\": missing value";
    check(patching("[JSONPatch{op: 'remove', path: '/none/a'}]"), "Fail", Err(path));
}

#[test]
fn a_policy_is_asked_again_only_if_it_wants_to_be() {
    let once = |reinvocation: &str| {
        let spec = json!({"reinvocationPolicy": reinvocation, "mutations":
            [applying("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}")]});
        let mut first = mutated(spec.clone(), deployment(), Rounds::default());
        first.rounds.second();
        mutated(spec, first.object, first.rounds).object["spec"]["replicas"].clone()
    };
    assert_eq!(once("Never"), 4);
    assert_eq!(once("IfNeeded"), 5);
}

#[test]
fn what_expressions_come_to_is_told_with_the_time_they_took() {
    let check = |spec: Value, bound: Value, expect: &[&str]| {
        let scene = Scene::new();
        validated(&scene, spec.clone(), bound).ok();
        assert_eq!(*scene.checks.told.borrow(), expect, "{spec}");
    };
    let all = |expression: &str| json!({"validations": [{"expression": "true"}, {"expression": expression}]});
    check(all("true"), json!({}), &[]);
    check(all("false"), json!({}), &["p b invalid_error deny 1s"]);
    let told = json!({"validationActions": ["Warn", "Audit"]});
    check(all("false"), told, &["p b invalid_error warn 1s", "p b invalid_error audit 1s"]);
    check(all("nothing"), json!({}), &["p b compile_error deny 1s"]);
    let mut ignores = all("object.none == 1");
    ignores["failurePolicy"] = "Ignore".into();
    check(ignores, json!({}), &["p b invalid_error allow 1s"]);
}
