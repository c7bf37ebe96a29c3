//! Attachments come with pods, go after them, and never to two nodes at once.

use apimachinery::json;

use super::*;
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
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": node}});
    let attachable = Attachable {
        volume: cluster.get("", "v").expect("there"),
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
    };
    let wanted = if has_pod { vec![attachable] } else { Vec::new() };
    let plan = reconcile(&World {
        node_name: node,
        node: cluster.get("", node),
        wanted: &wanted,
        attachments: &cluster.list(),
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
