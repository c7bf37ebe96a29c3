//! What nodes may and may not do.

use apimachinery::{Value, fields, json};

use super::NodeAuthorizer;
use crate::attributes::Attributes;
use crate::user::{NODES, UserInfo};

fn pod(node: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"namespace": "ns", "name": "p"}, "spec": {
        "nodeName": node, "serviceAccountName": "sa",
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}],
        "resourceClaims": [{"name": "one", "resourceClaimTemplateName": "t"}, {"name": "two", "resourceClaimName": "c2"}],
        "volumes": [
            {"projected": {"sources": [{"configMap": {"name": "c"}}]}},
            {"name": "scratch", "ephemeral": {}},
            {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
            {"persistentVolumeClaim": {"claimName": "claim"}},
        ]},
        "status": {"resourceClaimStatuses": [{"name": "one", "resourceClaimName": "p-one-x"}]},
    })
}

/// Decides for the node `a`. `what` reads `verb group/resource[/subresource][?selector]`, the core group being empty.
fn check(nodes: &NodeAuthorizer, what: &str, namespace: &str, name: &str, expect: bool) {
    let user = UserInfo::new("system:node:a", [NODES]);
    let (verb, resource) = what.split_once(' ').expect("a verb");
    let (resource, selector) = resource.split_once('?').unwrap_or((resource, ""));
    let selector = fields::parse(selector).expect("a selector");
    let mut parts = resource.split('/');
    let mut part = || parts.next().unwrap_or_default();
    let request = Attributes {
        verb,
        group: part(),
        resource: part(),
        subresource: part(),
        namespace,
        name,
        fields: selector.terms(),
        ..Attributes::of(&user)
    };
    let decision = nodes.authorize(&request);
    assert_eq!(decision.is_allowed(), expect, "{what} {namespace}/{name}: {decision:?}");
}

#[test]
fn a_node_reads_what_its_pods_use_while_they_do() {
    let mut nodes = NodeAuthorizer::default();
    check(&nodes, "get /secrets", "ns", "s", false);
    nodes.graph.apply(&pod("a"));
    nodes.graph.apply(&pod("a"));
    check(&nodes, "get /secrets", "ns", "s", true);
    check(&nodes, "get /secrets", "ns", "csi", true);
    check(&nodes, "watch /configmaps", "ns", "c", true);
    check(&nodes, "create /serviceaccounts/token", "ns", "sa", true);
    check(&nodes, "create /serviceaccounts/token", "ns", "other", false);
    check(&nodes, "get /serviceaccounts", "ns", "sa", true);
    check(&nodes, "update /secrets", "ns", "s", false);
    check(&nodes, "get /secrets", "other", "s", false);
    check(&nodes, "list /secrets", "ns", "", false);
    nodes.graph.apply(&pod("b"));
    check(&nodes, "get /secrets", "ns", "s", false);
    nodes.graph.remove(&pod("b"));
    assert!(nodes.graph.is_empty());
}

#[test]
fn claims_are_read_one_by_one_and_their_status_written() {
    let mut nodes = NodeAuthorizer::default();
    nodes.graph.apply(&pod("a"));
    for claim in ["claim", "p-scratch"] {
        check(&nodes, "get /persistentvolumeclaims", "ns", claim, true);
        check(&nodes, "watch /persistentvolumeclaims", "ns", claim, true);
        check(&nodes, "patch /persistentvolumeclaims/status", "ns", claim, true);
        check(&nodes, "get /persistentvolumeclaims/status", "ns", claim, false);
    }
    check(&nodes, "watch /persistentvolumeclaims", "ns", "other", false);
    check(&nodes, "list /persistentvolumeclaims", "ns", "", false);
    for claim in ["p-one-x", "c2"] {
        check(&nodes, "get resource.k8s.io/resourceclaims", "ns", claim, true);
    }
    check(&nodes, "get resource.k8s.io/resourceclaims", "ns", "t", false);
}

#[test]
fn volumes_and_their_secrets_are_reached_over_the_claim() {
    let mut nodes = NodeAuthorizer::default();
    let mut volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "claimRef": {"namespace": "ns", "name": "claim"},
        "csi": {"nodeStageSecretRef": {"namespace": "vault", "name": "stage"},
                "controllerPublishSecretRef": {"namespace": "vault", "name": "controller"}}}});
    nodes.graph.apply(&volume);
    check(&nodes, "get /persistentvolumes", "", "v", false);
    nodes.graph.apply(&pod("a"));
    check(&nodes, "get /persistentvolumes", "", "v", true);
    check(&nodes, "list /persistentvolumes", "", "v", false);
    check(&nodes, "get /secrets", "vault", "stage", true);
    check(&nodes, "get /secrets", "vault", "controller", false);
    volume["spec"]["claimRef"]["name"] = "other".into();
    nodes.graph.apply(&volume);
    check(&nodes, "get /persistentvolumes", "", "v", false);
    check(&nodes, "get /secrets", "vault", "stage", false);
    nodes.graph.remove(&volume);
    nodes.graph.remove(&pod("a"));
    assert!(nodes.graph.is_empty());
}

#[test]
fn a_mirror_pod_gives_its_author_nothing_but_itself() {
    let mut nodes = NodeAuthorizer::default();
    let mut mirror = pod("a");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    nodes.graph.apply(&mirror);
    check(&nodes, "get /pods", "ns", "p", true);
    check(&nodes, "get /secrets", "ns", "s", false);
}

#[test]
fn pods_are_read_by_node() {
    let mut nodes = NodeAuthorizer::default();
    check(&nodes, "list /pods", "", "", false);
    check(&nodes, "list /pods?spec.nodeName=b", "", "", false);
    check(&nodes, "list /pods?spec.nodeName!=a", "", "", false);
    check(&nodes, "watch /pods?spec.nodeName=a", "", "", true);
    check(&nodes, "get /pods", "ns", "p", false);
    nodes.graph.apply(&pod("a"));
    check(&nodes, "get /pods", "ns", "p", true);
    check(&nodes, "watch /pods", "ns", "p", true);
    check(&nodes, "get /pods/log", "ns", "p", false);
    check(&nodes, "patch /pods/status", "ns", "p", true);
    check(&nodes, "create /pods/eviction", "ns", "p", true);
    check(&nodes, "deletecollection /pods", "ns", "", false);
}

#[test]
fn a_node_works_on_its_own_objects() {
    let mut nodes = NodeAuthorizer::default();
    check(&nodes, "create /nodes", "", "", true);
    check(&nodes, "get /nodes", "", "a", true);
    check(&nodes, "get /nodes", "", "b", false);
    check(&nodes, "list /nodes", "", "", false);
    check(&nodes, "delete /nodes", "", "a", false);
    check(&nodes, "create /events", "ns", "", true);
    check(&nodes, "update coordination.k8s.io/leases", "kube-node-lease", "a", true);
    check(&nodes, "update coordination.k8s.io/leases", "kube-node-lease", "b", false);
    check(&nodes, "update coordination.k8s.io/leases", "kube-system", "a", false);
    check(&nodes, "patch storage.k8s.io/csinodes", "", "a", true);
    check(&nodes, "patch storage.k8s.io/csinodes", "", "b", false);
    check(&nodes, "list resource.k8s.io/resourceslices?spec.nodeName=a", "", "", true);
    check(&nodes, "list resource.k8s.io/resourceslices", "", "", false);
    let slice = json!({"kind": "ResourceSlice", "metadata": {"name": "x"}, "spec": {"nodeName": "a"}});
    check(&nodes, "delete resource.k8s.io/resourceslices", "", "x", false);
    nodes.graph.apply(&slice);
    check(&nodes, "delete resource.k8s.io/resourceslices", "", "x", true);
    let attachment =
        json!({"kind": "VolumeAttachment", "metadata": {"name": "y"}, "spec": {"nodeName": "a"}});
    nodes.graph.apply(&attachment);
    check(&nodes, "get storage.k8s.io/volumeattachments", "", "y", true);
    check(&nodes, "delete apps/deployments", "ns", "d", false);
}
