//! Nodes and pods for tests, and the checks that plugins' tables go through.

use std::sync::Arc;

use api::view::core::{Node, Pod};
use apimachinery::{Value, json};
use client::Delta;

use crate::framework::{FilterFn, ScoreFn};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::{Change, Volumes};

/// A node made of a partial object.
pub fn node_info(object: Value) -> NodeInfo {
    let node: Node = apimachinery::from_value(object).unwrap();
    let mut info = NodeInfo::default();
    info.set_node(Arc::new(node));
    info
}

/// A node of this name with these amounts, and room for 110 pods unless they say otherwise.
pub fn node(name: &str, mut allocatable: Value) -> NodeInfo {
    if allocatable["pods"].is_null() {
        allocatable["pods"] = "110".into();
    }
    let labels = json!({"kubernetes.io/hostname": name});
    node_info(json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}))
}

/// A pod with this spec.
pub fn pod_info(spec: Value) -> PodInfo {
    PodInfo::new(labelled_pod("pod", json!({}), spec).pod.clone())
}

/// A pod of this name and UID that requests these amounts.
pub fn pod(name: &str, requests: Value) -> Arc<PodInfo> {
    labelled_pod(name, json!({}), json!({"containers": [{"resources": {"requests": requests}}]}))
}

pub fn labelled_pod(name: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": labels});
    let pod: Pod = apimachinery::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// Nodes, which must come by name, each with the pods on it.
pub fn cluster(nodes: impl IntoIterator<Item = (Value, Vec<Arc<PodInfo>>)>) -> Snapshot {
    let nodes = nodes.into_iter().map(|(object, pods)| {
        let mut info = node_info(object);
        pods.into_iter().for_each(|pod| info.add_pod(pod));
        Arc::new(info)
    });
    Snapshot { nodes: nodes.collect(), ..Snapshot::default() }
}

/// The news of an object.
pub fn added<V: api::view::Object>(object: &Value) -> Delta<V> {
    Delta::Added(Arc::new(apimachinery::from_value(object.clone()).unwrap()))
}

/// Storage that knows these objects, each of the kind that it says.
pub fn storage(objects: &[Value]) -> Volumes {
    let mut volumes = Volumes::default();
    for object in objects {
        let change = match object["kind"].as_str().unwrap() {
            "PersistentVolume" => Change::Volume(added(object)),
            "PersistentVolumeClaim" => Change::Claim(added(object)),
            "StorageClass" => Change::Class(added(object)),
            "CSINode" => Change::CsiNode(added(object)),
            "CSIDriver" => Change::CsiDriver(added(object)),
            "CSIStorageCapacity" => Change::Capacity(added(object)),
            other => panic!("{other}"),
        };
        volumes.apply(&change);
    }
    volumes
}

/// Whether a pod with this spec passes the filter on this node, and if not for which reason.
pub fn check_filter(filter: FilterFn, spec: Value, node: Value, expect: Result<(), &str>) {
    let (pod, snapshot) = (pod_info(spec.clone()), cluster([(node.clone(), vec![])]));
    let result = filter(&pod, &snapshot).map_or(Ok(()), |filter| filter.filter(&snapshot.nodes[0]));
    let reason = result.map_err(|rejection| rejection.reasons.join(", "));
    assert_eq!(
        reason.as_ref().map_err(String::as_str),
        expect.as_ref().map_err(|text| *text),
        "{spec} {node}"
    );
}

/// The names of the nodes that pass the filter.
pub fn check_feasible(filter: FilterFn, pod: &PodInfo, snapshot: &Snapshot, expect: &[&str]) {
    let filter = filter(pod, snapshot);
    let passes = |node: &&Arc<NodeInfo>| filter.as_ref().is_none_or(|filter| filter.filter(node).is_ok());
    let feasible: Vec<_> = snapshot.nodes.iter().filter(passes).map(|node| node.name()).collect();
    assert_eq!(feasible, expect);
}

/// The normalized scores of these nodes for a pod with this spec.
pub fn check_scores(score: ScoreFn, spec: Value, nodes: &[Value], expect: &[i64]) {
    check_scores_in(
        score,
        &pod_info(spec),
        &cluster(nodes.iter().map(|node| (node.clone(), vec![]))),
        expect,
    );
}

pub fn check_scores_in(score: ScoreFn, pod: &PodInfo, snapshot: &Snapshot, expect: &[i64]) {
    let nodes: Vec<&NodeInfo> = snapshot.nodes.iter().map(|node| &**node).collect();
    let plugin = score(pod, snapshot, &nodes).expect("the plugin has a say on this pod");
    let mut scores: Vec<_> = nodes.iter().map(|node| plugin.score(node)).collect();
    plugin.normalize(&nodes, &mut scores);
    assert_eq!(scores, expect);
}
