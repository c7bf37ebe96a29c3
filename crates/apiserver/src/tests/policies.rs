//! Policies as clients meet them: they refuse, warn and change, with parameters of any kind, and conditions of webhooks.

use apimachinery::{Value, json};

use super::fixture::Fixture;

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A policy `p` about Deployments, and its binding `b`.
async fn bind(api: &Fixture, kind: &str, spec: Value, bound: Value) {
    let mut whole = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"],
        "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale"]}]}});
    whole.as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
    let plural =
        if kind.starts_with("Validating") { "validatingadmissionpolic" } else { "mutatingadmissionpolic" };
    let policy = json!({"metadata": {"name": "p"}, "spec": whole});
    api.check(&format!("POST {REGISTRATION}/{plural}ies"), policy, 201, json!({})).await;
    let mut whole = json!({"policyName": "p"});
    whole.as_object_mut().expect("a map").extend(bound.as_object().expect("a map").clone());
    let binding = json!({"metadata": {"name": "b"}, "spec": whole});
    api.check(&format!("POST {REGISTRATION}/{plural}ybindings"), binding, 201, json!({})).await;
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn a_validating_policy_refuses_and_warns_from_its_binding_on() {
    let api = Fixture::new().await;
    let spec = json!({"validations": [{"expression": "variables.replicas <= 5", "reason": "Forbidden",
            "messageExpression": "'at most 5, not ' + string(variables.replicas)"},
            {"expression": "namespaceObject.metadata.name == 'default'"}],
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}]});
    bind(&api, "Validating", spec, json!({"validationActions": ["Deny"]})).await;
    let post = format!("POST {DEPLOYMENTS}");
    let message = "deployments.apps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: at most 5, not 6";
    let refused = json!({"code": 403, "reason": "Forbidden", "message": message});
    api.check(&post, deployment("a", 6), 403, refused).await;
    api.check(&post, deployment("a", 5), 201, json!({})).await;
    let scale = format!("PATCH {DEPLOYMENTS}/a/scale\nContent-Type: application/merge-patch+json");
    api.check(&scale, json!({"spec": {"replicas": 9}}), 403, json!({})).await;
    let binding = format!("{REGISTRATION}/validatingadmissionpolicybindings/b");
    let warn = json!({"spec": {"validationActions": ["Warn"]}});
    api.check(&format!("PATCH {binding}\nContent-Type: application/merge-patch+json"), warn, 200, json!({}))
        .await;
    let answer = api.send(&post, deployment("b", 6).to_string()).await;
    assert_eq!(answer.code, 201);
    let warning =
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': at most 5, not 6\"";
    assert_eq!(answer.headers["warning"], warning);
    api.check(&format!("DELETE {binding}"), Value::Null, 200, json!({})).await;
    assert!(!api.send(&post, deployment("c", 6).to_string()).await.headers.contains_key("warning"));
}

#[tokio::test]
async fn parameters_may_be_of_a_custom_kind() {
    let api = Fixture::new().await;
    let schema = json!({"type": "object", "properties": {"max": {"type": "integer"}}});
    let definition = json!({"metadata": {"name": "limits.example.com"}, "spec": {"group": "example.com",
        "scope": "Cluster", "names": {"plural": "limits", "singular": "limit", "kind": "Limit"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    api.check("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition, 201, json!({}))
        .await;
    let spec = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "validations": [{"expression": "object.spec.replicas <= params.max"}]});
    let reference = json!({"name": "l", "parameterNotFoundAction": "Deny"});
    bind(&api, "Validating", spec, json!({"validationActions": ["Deny"], "paramRef": reference})).await;
    let post = format!("POST {DEPLOYMENTS}");
    let missing = "deployments.apps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    api.check(&post, deployment("a", 3), 422, json!({"reason": "Invalid", "message": missing})).await;
    let limit = json!({"apiVersion": "example.com/v1", "kind": "Limit", "metadata": {"name": "l"}, "max": 2});
    api.check("POST /apis/example.com/v1/limits", limit, 201, json!({})).await;
    api.check(&post, deployment("a", 3), 422, json!({})).await;
    api.check(&post, deployment("a", 2), 201, json!({})).await;
}

#[tokio::test]
async fn a_mutating_policy_changes_what_is_written_and_leaves_the_rest() {
    let api = Fixture::new().await;
    let sidecar = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        containers: [Object.spec.template.spec.containers{name: 'sidecar', image: 'proxy'}]}}}}";
    let label = "has(object.metadata.labels) ? [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('e.com/x'), value: 'y'}]
        : [JSONPatch{op: 'add', path: '/metadata/labels', value: {'e.com/x': 'y'}}]";
    let spec = json!({"reinvocationPolicy": "Never", "matchConditions": [{"name": "not-system", "expression": "object.metadata.name != 'left'"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": sidecar}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": label}}]});
    bind(&api, "Mutating", spec, json!({})).await;
    let post = format!("POST {DEPLOYMENTS}");
    let made =
        api.check(&post, deployment("a", 1), 201, json!({"metadata": {"labels": {"e.com/x": "y"}}})).await;
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
    let names: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
    assert_eq!(names, ["c", "sidecar"]);
    assert_eq!(containers[1]["imagePullPolicy"], "Always");
    api.check(&post, deployment("left", 1), 201, json!({"metadata": {"labels": null}})).await;
}

#[tokio::test]
async fn a_mutation_must_not_wipe_out_what_it_does_not_mention() {
    let api = Fixture::new().await;
    let whole = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'c': 'd'}}}}";
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": whole}}]});
    bind(&api, "Mutating", spec, json!({})).await;
    let message = "policy 'p' with binding 'b' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector";
    let refused =
        json!({"reason": "Invalid", "message": message, "details": {"causes": [{"message": message}]}});
    api.check(&format!("POST {DEPLOYMENTS}"), deployment("a", 1), 403, refused).await;
}

#[tokio::test]
async fn conditions_decide_whether_a_webhook_is_asked() {
    let api = Fixture::new().await;
    let configuration = |name: &str, expression: &str| {
        json!({"metadata": {"name": name}, "webhooks": [{"name": format!("{name}.example.com"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/nobody"},
            "rules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}],
            "matchConditions": [{"name": "c", "expression": expression}]}]})
    };
    let to = format!("POST {REGISTRATION}/validatingwebhookconfigurations");
    let bad = api.check(&to, configuration("bad", "... [bad expression]"), 422, json!({})).await;
    assert!(bad["message"].as_str().expect("a text").contains("compilation failed"), "{bad}");
    api.check(&to, configuration("one", "object.metadata.name != 'quiet'"), 201, json!({})).await;
    let post = format!("POST {DEPLOYMENTS}");
    api.check(&post, deployment("quiet", 1), 201, json!({})).await;
    api.check(&post, deployment("loud", 1), 500, json!({})).await;
    let broken = "object.spec.nothing == 1";
    api.check(
        &format!("PATCH {REGISTRATION}/validatingwebhookconfigurations/one\nContent-Type: application/json-patch+json"),
        json!([{"op": "replace", "path": "/webhooks/0/matchConditions/0/expression", "value": broken}]),
        200,
        json!({}),
    )
    .await;
    let message = "deployments.apps \"loud\" is forbidden: expression 'object.spec.nothing == 1' resulted in error: no such key: nothing";
    api.check(&post, deployment("loud", 1), 403, json!({"message": message})).await;
}
