//! Cases of what a kubelet may and may not write.

use apimachinery::json;
use auth::UserInfo;
use auth::user::NODES;

use super::*;
use crate::testing::{Objects, request, run};

fn pod_on(node: &str) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "pod-uid"}, "spec": {"nodeName": node,
        "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}})
}

fn check(
    operation: Operation,
    resource: &str,
    name: &str,
    object: &Value,
    old: Option<&Value>,
    expect: Result<(), &str>,
) {
    let user = UserInfo::new("system:node:a", [NODES]);
    let mut request = Request { old, ..request(&user, operation, resource, name) };
    if resource.starts_with("leases") {
        request.namespace = NAMESPACE_NODE_LEASE;
    }
    let world = Objects::default()
        .with("pods", pod_on("a"))
        .with("nodes", json!({"metadata": {"name": "a", "uid": "node-uid"}}));
    let found = run(&NodeRestriction, &request, object.clone(), &world).map(drop);
    let found =
        found.map_err(|message| message.split_once("forbidden: ").map_or(message.clone(), |(_, m)| m.into()));
    assert_eq!(found, expect.map_err(str::to_owned), "{operation:?} {resource} {name}");
}

#[test]
fn others_are_not_restricted() {
    let user = UserInfo::new("alice", ["admins"]);
    let create = request(&user, Operation::Create, "nodes", "b");
    assert!(run(&NodeRestriction, &create, json!({}), &Objects::default()).is_ok());
}

#[test]
fn a_node_updates_the_status_of_its_pods_only() {
    let (ours, theirs) = (pod_on("a"), pod_on("b"));
    let refused = "node \"a\" can only update pod status for pods with spec.nodeName set to itself";
    check(Operation::Update, "pods/status", "p", &ours, Some(&ours), Ok(()));
    check(Operation::Update, "pods/status", "p", &theirs, Some(&theirs), Err(refused));
    let mut labelled = ours.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let refused = "node \"a\" cannot update labels through pod status";
    check(Operation::Update, "pods/status", "p", &labelled, Some(&ours), Err(refused));
    check(Operation::Delete, "pods", "p", &Value::Null, Some(&ours), Ok(()));
    let refused = "node \"a\" can only delete pods with spec.nodeName set to itself";
    check(Operation::Delete, "pods", "p", &Value::Null, Some(&theirs), Err(refused));
    let refused = "unexpected pod subresource \"exec\", only 'status' and 'eviction' are allowed";
    check(Operation::Connect, "pods/exec", "p", &Value::Null, None, Err(refused));
}

#[test]
fn a_node_creates_mirror_pods_of_its_own() {
    let mut mirror = pod_on("a");
    let refused = "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods";
    check(Operation::Create, "pods", "", &mirror, None, Err(refused));
    mirror["metadata"]["annotations"] = json!({MIRROR_POD_ANNOTATION: "x"});
    let refused = "node \"a\" can only create pods with an owner reference set to itself";
    check(Operation::Create, "pods", "", &mirror, None, Err(refused));
    let owner =
        json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid", "controller": true});
    mirror["metadata"]["ownerReferences"] = json!([owner]);
    let refused = "node \"a\" can not create pods that reference serviceaccounts (via projected volumes)";
    check(Operation::Create, "pods", "", &mirror, None, Err(refused));
    mirror["spec"]["volumes"] = json!([]);
    check(Operation::Create, "pods", "", &mirror, None, Ok(()));
    mirror["metadata"]["ownerReferences"][0]["uid"] = "other".into();
    let refused = "node a UID mismatch: expected other got node-uid";
    check(Operation::Create, "pods", "", &mirror, None, Err(refused));
}

#[test]
fn a_node_changes_neither_other_nodes_nor_its_own_taints_and_roles() {
    let node = |labels: Value, taints: Value| json!({"metadata": {"name": "a", "labels": labels}, "spec": {"taints": taints}});
    let plain = node(json!({"kubernetes.io/os": "linux"}), json!([]));
    check(Operation::Create, "nodes", "a", &plain, None, Ok(()));
    check(
        Operation::Create,
        "nodes",
        "b",
        &plain,
        None,
        Err("node \"a\" is not allowed to modify node \"b\""),
    );
    check(Operation::Update, "nodes/status", "a", &plain, Some(&plain), Ok(()));
    let tainted = node(json!({"kubernetes.io/os": "linux"}), json!([{"key": "x"}]));
    check(
        Operation::Update,
        "nodes",
        "a",
        &plain,
        Some(&tainted),
        Err("node \"a\" is not allowed to modify taints"),
    );
    let role = node(json!({"kubernetes.io/os": "linux", "node-role.kubernetes.io/x": ""}), json!([]));
    let refused = "node \"a\" is not allowed to set the following labels: node-role.kubernetes.io/x";
    check(Operation::Create, "nodes", "a", &role, None, Err(refused));
    let refused = "is not allowed to modify labels: node-role.kubernetes.io/x";
    check(Operation::Update, "nodes", "a", &plain, Some(&role), Err(refused));
}

#[test]
fn tokens_are_for_pods_of_the_node_and_what_they_mount() {
    let token = |uid: &str, audiences: Value| {
        json!({"spec": {"audiences": audiences,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}})
    };
    let create = |object: &Value, expect| {
        check(Operation::Create, "serviceaccounts/token", "sa", object, None, expect)
    };
    create(&token("pod-uid", Value::Null), Ok(()));
    create(&json!({"spec": {}}), Err("node requested token not bound to a pod"));
    create(&token("", Value::Null), Err("node requested token with a pod binding without a uid"));
    create(
        &token("other", Value::Null),
        Err(
            "the UID in the bound object reference (other) does not match the UID in record. The object might have been deleted and then recreated",
        ),
    );
    create(
        &token("pod-uid", json!(["vault"])),
        Err(
            "audience \"vault\" not found in pod spec volume, system:node:a is not authorized to request tokens for this audience",
        ),
    );
}

#[test]
fn a_node_renews_its_own_lease() {
    let lease = |name: &str| json!({"metadata": {"name": name}});
    check(Operation::Create, "leases.coordination.k8s.io", "", &lease("a"), None, Ok(()));
    let refused = "can only access node lease with the same name as the requesting node";
    check(Operation::Create, "leases.coordination.k8s.io", "", &lease("b"), None, Err(refused));
    check(Operation::Update, "leases.coordination.k8s.io", "b", &lease("b"), None, Err(refused));
}

#[test]
fn a_node_writes_only_what_is_its_own_among_other_kinds() {
    let user = UserInfo::new("system:node:a", ["system:nodes"]);
    let world = Objects::default();
    let check = |operation, resource: &str, name: &str, old: Option<&Value>, object: Value| {
        let asked = Request { old, ..request(&user, operation, resource, name) };
        run(&NodeRestriction, &asked, object, &world).is_ok()
    };
    let claim = |size: &str, label: &str| json!({"metadata": {"labels": {"x": label}}, "status": {"capacity": {"storage": size}}});
    let old = claim("1Gi", "y");
    assert!(check(Operation::Update, "persistentvolumeclaims/status", "c", Some(&old), claim("2Gi", "y")));
    assert!(!check(Operation::Update, "persistentvolumeclaims/status", "c", Some(&old), claim("2Gi", "z")));
    assert!(!check(Operation::Update, "persistentvolumeclaims", "c", Some(&old), claim("1Gi", "y")));
    let named = |name: &str| json!({"metadata": {"name": name}});
    assert!(check(Operation::Create, "csinodes.storage.k8s.io", "", None, named("a")));
    assert!(!check(Operation::Create, "csinodes.storage.k8s.io", "", None, named("b")));
    let slice = |node: &str| json!({"spec": {"nodeName": node}});
    assert!(check(Operation::Create, "resourceslices.resource.k8s.io", "", None, slice("a")));
    assert!(!check(Operation::Create, "resourceslices.resource.k8s.io", "", None, slice("b")));
    assert!(!check(Operation::Delete, "resourceslices.resource.k8s.io", "s", Some(&slice("b")), Value::Null));
    let signing = json!({"spec": {"signerName": "kubernetes.io/kubelet-serving", "request": "eA=="}});
    assert!(!check(Operation::Create, "certificatesigningrequests.certificates.k8s.io", "", None, signing));
}

#[test]
fn a_node_lets_go_of_deleted_volumes_that_the_built_in_provisioner_made_on_it() {
    let volume = |node: &str, finalizers: &[&str]| {
        let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        json!({"metadata": {"name": "v", "finalizers": finalizers, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"pv.kubernetes.io/provisioned-by": "coxswain.dev/local-path"}},
            "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}}})
    };
    let refused = "node \"a\" may only remove the finalizer \"coxswain.dev/local-path\" of deleted persistent volumes on itself";
    let check = |object: Value, old: Value, expect| {
        check(Operation::Update, "persistentvolumes", "v", &object, Some(&old), expect);
    };
    let held = ["coxswain.dev/local-path", "x/y"];
    check(volume("a", &["x/y"]), volume("a", &held), Ok(()));
    check(volume("b", &["x/y"]), volume("b", &held), Err(refused));
    check(volume("a", &[]), volume("a", &held), Err(refused));
    let mut altered = volume("a", &[]);
    altered["spec"]["local"] = json!({"path": "/etc"});
    check(altered, volume("a", &held[..1]), Err(refused));
    let mut alive = volume("a", &held);
    alive["metadata"]["deletionTimestamp"] = Value::Null;
    check(volume("a", &["x/y"]), alive, Err(refused));
}
