//! Attachments come with pods, go after them, and never to two nodes at once.

use apimachinery::json;

use super::*;
use crate::taint::OUT_OF_SERVICE;
use crate::testing::Cluster;

const UNIQUE: &str = "kubernetes.io/csi/d^h";

fn cluster(mode: &str) -> Cluster {
    let mut cluster = Cluster::new();
    for name in ["a", "b"] {
        cluster.create(NODES, json!({"metadata": {"name": name}, "status": {}}));
    }
    cluster.create(
        PERSISTENT_VOLUMES,
        json!({"metadata": {"name": "v"},
            "spec": {"accessModes": [mode], "csi": {"driver": "d", "volumeHandle": "h"}}}),
    );
    cluster
}

/// Plans for the node while it has a pod that uses the volume, or none, and carries that out.
fn turn(cluster: &mut Cluster, node: &str, has_pod: bool) -> Plan {
    turn_at(cluster, node, has_pod, 0)
}

/// As `turn`, so many seconds after the volume was last wanted.
fn turn_at(cluster: &mut Cluster, node: &str, has_pod: bool, seconds: i64) -> Plan {
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": node}});
    let attachable = Attachable {
        volume: cluster.get("", "v").expect("there"),
        pod: Arc::new(apimachinery::from_value(pod).expect("a pod")),
    };
    let wanted = if has_pod { vec![attachable] } else { Vec::new() };
    let attachments: Vec<Arc<VolumeAttachment>> = cluster.list();
    let names = attachments.iter().map(|attachment| attachment.metadata.name.clone());
    let plan = reconcile(&World {
        node_name: node,
        node: cluster.get("", node),
        wanted: &wanted,
        attachments: &attachments,
        unwanted_since: &names.map(|name| (name, Timestamp::UNIX_EPOCH)).collect(),
        now: Timestamp::from_second(seconds).expect("a time"),
    });
    cluster.apply(&plan);
    plan
}

/// What the driver's attacher does.
fn attacher(cluster: &mut Cluster) {
    let names: Vec<String> =
        cluster.list::<VolumeAttachment>().iter().map(|a| a.metadata.name.clone()).collect();
    for name in names {
        cluster
            .edit(VOLUME_ATTACHMENTS, "", &name, |attachment| attachment["status"]["attached"] = true.into());
    }
}

fn attached(cluster: &Cluster, node: &str) -> Vec<String> {
    let node: Arc<Node> = cluster.get("", node).expect("there");
    node.status.volumes_attached.iter().map(|volume| volume.name.clone()).collect()
}

#[test]
fn a_volume_is_attached_for_a_pod_and_detached_when_the_kubelet_has_let_go() {
    let mut cluster = cluster("ReadWriteOnce");
    turn(&mut cluster, "a", true);
    let made = cluster.list::<VolumeAttachment>();
    assert_eq!(made[0].spec.attacher, "d");
    assert_eq!(made[0].spec.source.persistent_volume_name.as_deref(), Some("v"));
    assert!(turn(&mut cluster, "a", true).is_empty());
    attacher(&mut cluster);
    turn(&mut cluster, "a", true);
    assert_eq!(attached(&cluster, "a"), [UNIQUE]);
    assert!(turn(&mut cluster, "a", true).is_empty());
    cluster.edit(NODES, "", "a", |node| node["status"]["volumesInUse"] = json!([UNIQUE]));
    turn(&mut cluster, "a", false);
    assert_eq!(cluster.list::<VolumeAttachment>().len(), 1);
    cluster.edit(NODES, "", "a", |node| node["status"]["volumesInUse"] = json!([]));
    turn(&mut cluster, "a", false);
    assert!(cluster.list::<VolumeAttachment>().is_empty());
    assert!(attached(&cluster, "a").is_empty());
}

/// Attached to a node whose kubelet has not let go of it.
fn held(ready: &str) -> Cluster {
    let mut cluster = cluster("ReadWriteOnce");
    turn(&mut cluster, "a", true);
    attacher(&mut cluster);
    cluster.edit(NODES, "", "a", |node| {
        node["status"]["volumesInUse"] = json!([UNIQUE]);
        node["status"]["conditions"] = json!([{"type": "Ready", "status": ready}]);
    });
    cluster
}

#[test]
fn a_kubelet_that_is_not_heard_of_loses_its_volumes_after_six_minutes() {
    let count = |cluster: &Cluster| cluster.list::<VolumeAttachment>().len();
    let mut cluster = held("Unknown");
    let plan = turn_at(&mut cluster, "a", false, 359);
    assert_eq!((count(&cluster), plan.requeue_at), (1, Some(Timestamp::from_second(360).expect("a time"))));
    turn_at(&mut cluster, "a", false, 360);
    assert_eq!(count(&cluster), 0);
    let mut cluster = held("True");
    turn_at(&mut cluster, "a", false, 3600);
    assert_eq!(count(&cluster), 1);
}

#[test]
fn a_node_out_of_service_loses_its_volumes_at_once() {
    let mut cluster = held("Unknown");
    cluster.edit(NODES, "", "a", |node| node["spec"]["taints"] = json!([{"key": OUT_OF_SERVICE}]));
    turn(&mut cluster, "a", false);
    assert!(cluster.list::<VolumeAttachment>().is_empty());
}

#[test]
fn attachments_that_others_made_stay() {
    let mut cluster = cluster("ReadWriteOnce");
    cluster.create(
        VOLUME_ATTACHMENTS,
        json!({"metadata": {"name": "own"}, "spec": {"nodeName": "a", "attacher": "x"}}),
    );
    assert!(turn(&mut cluster, "a", false).is_empty());
}

#[test]
fn only_volumes_made_for_it_go_to_two_nodes() {
    for (mode, expect) in [("ReadWriteOnce", 1), ("ReadWriteMany", 2)] {
        let mut cluster = cluster(mode);
        turn(&mut cluster, "a", true);
        turn(&mut cluster, "b", true);
        assert_eq!(cluster.list::<VolumeAttachment>().len(), expect, "{mode}");
        assert_eq!(cluster.told.iter().any(|(reason, _)| reason == "FailedAttachVolume"), expect == 1);
    }
}
