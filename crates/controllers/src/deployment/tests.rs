//! Rollouts, step by step.

use std::sync::Arc;

use api::resource::{DEPLOYMENTS, PODS, REPLICA_SETS};
use api::view::apps::{Deployment, ReplicaSet};
use api::view::core::Pod;
use apimachinery::meta::find_condition;
use apimachinery::{Value, json};

use super::revision::{REVISION, REVISION_HISTORY};
use super::{World, reconcile};
use crate::plan::Plan;
use crate::replicaset;
use crate::testing::{Cluster, at};

fn deployment(replicas: i32, strategy: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "d"},
        "spec": {
            "replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template("v1"),
        },
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
}

fn cluster(replicas: i32, strategy: Value) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(DEPLOYMENTS, deployment(replicas, strategy));
    cluster
}

fn decide(cluster: &Cluster) -> Plan {
    let deployment = current(cluster);
    let mut world = World::new(&deployment, cluster.list(), cluster.list());
    world.may_adopt = true;
    reconcile(&deployment, &world, cluster.now)
}

fn current(cluster: &Cluster) -> Arc<Deployment> {
    cluster.get("a", "web").expect("it is there")
}

/// Lets every ReplicaSet act once; says whether one had to.
fn replica_sets_act(cluster: &mut Cluster) -> bool {
    let mut acted = false;
    for replica_set in cluster.list::<ReplicaSet>() {
        let pods = cluster.list::<Pod>();
        let pods = pods.into_iter().filter(|p| p.metadata.is_controlled_by(&replica_set.metadata.uid));
        let world = replicaset::World { pods: pods.collect(), ..Default::default() };
        let plan = replicaset::reconcile(REPLICA_SETS, &replica_set, &world, cluster.now);
        acted |= !plan.is_empty();
        cluster.apply(&plan);
    }
    acted
}

/// Makes up to `count` pods that `may` become ready so; says whether one became.
fn become_ready(cluster: &mut Cluster, count: usize, may: impl Fn(&str) -> bool) -> bool {
    let waiting =
        cluster.list::<Pod>().into_iter().filter(|pod| !pod.is_ready() && may(&pod.spec.containers[0].image));
    let names: Vec<String> = waiting.take(count).map(|pod| pod.metadata.name.clone()).collect();
    for name in &names {
        cluster.edit(PODS, "a", name, |pod| {
            pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        });
    }
    !names.is_empty()
}

/// Runs Deployment, ReplicaSets and pods in turn until nothing changes, checking `holds` after every turn.
fn settle(cluster: &mut Cluster, may: impl Fn(&str) -> bool, holds: impl Fn(&Cluster)) {
    for _ in 0..200 {
        let plan = decide(cluster);
        cluster.apply(&plan);
        let acted = replica_sets_act(cluster);
        holds(cluster);
        let ready = become_ready(cluster, 1, &may);
        if plan.is_empty() && !acted && !ready {
            return;
        }
    }
    panic!("the Deployment does not settle: {:?}", decide(cluster));
}

fn settle_all(cluster: &mut Cluster) {
    settle(cluster, |_| true, |_| {});
}

fn set_image(cluster: &mut Cluster, image: &str) {
    cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["template"] = template(image));
}

fn images(cluster: &Cluster) -> Vec<String> {
    cluster.list::<Pod>().iter().map(|pod| pod.spec.containers[0].image.clone()).collect()
}

fn progressing(cluster: &Cluster) -> (String, String) {
    let deployment = current(cluster);
    let condition = find_condition(&deployment.status.conditions, "Progressing").expect("it is there");
    (condition.status.clone(), condition.reason.clone())
}

#[test]
fn a_new_deployment_gets_its_pods_and_reports_success() {
    let mut cluster = cluster(3, rolling());
    settle_all(&mut cluster);
    assert_eq!(images(&cluster), ["v1"; 3]);
    let deployment = current(&cluster);
    assert_eq!(deployment.metadata.annotations[REVISION], "1");
    assert_eq!((deployment.status.available_replicas, deployment.status.updated_replicas), (3, 3));
    assert_eq!(progressing(&cluster), ("True".into(), "NewReplicaSetAvailable".into()));
    let available = find_condition(&deployment.status.conditions, "Available").expect("it is there");
    assert_eq!((available.status.as_str(), available.reason.as_str()), ("True", "MinimumReplicasAvailable"));
    let name = &cluster.list::<ReplicaSet>()[0].metadata.name;
    assert_eq!(cluster.told[0].1, format!("Scaled up replica set {name} from 0 to 3"));
    assert_eq!(cluster.list::<ReplicaSet>()[0].metadata.labels["pod-template-hash"], name["web-".len()..]);
}

#[test]
fn an_orphan_of_the_same_template_is_adopted_and_not_doubled() {
    let mut cluster = cluster(1, rolling());
    let mut template = template("v1");
    template["metadata"]["labels"]["pod-template-hash"] = json!("1");
    let labels = json!({"app": "web", "pod-template-hash": "1"});
    cluster.create(
        REPLICA_SETS,
        json!({
            "metadata": {"name": "former-1", "namespace": "a", "uid": "r", "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }),
    );
    settle(&mut cluster, |_| true, |cluster| assert_eq!(cluster.list::<ReplicaSet>().len(), 1));
    assert!(cluster.list::<ReplicaSet>()[0].metadata.is_controlled_by("d"));
    assert_eq!(images(&cluster), ["v1"]);
}

#[test]
fn a_rolling_update_keeps_within_surge_and_availability() {
    let mut cluster = cluster(10, rolling());
    settle_all(&mut cluster);
    set_image(&mut cluster, "v2");
    settle(
        &mut cluster,
        |_| true,
        |cluster| {
            let pods = cluster.list::<Pod>();
            assert!(pods.len() <= 13, "{} pods", pods.len());
            assert!(pods.iter().filter(|pod| pod.is_ready()).count() >= 8);
        },
    );
    assert_eq!(images(&cluster), ["v2"; 10]);
    assert_eq!(current(&cluster).metadata.annotations[REVISION], "2");
}

#[test]
fn recreate_ends_all_old_pods_before_the_first_new_one() {
    let mut cluster = cluster(3, json!({"type": "Recreate"}));
    settle_all(&mut cluster);
    set_image(&mut cluster, "v2");
    settle(
        &mut cluster,
        |_| true,
        |cluster| {
            let images = images(cluster);
            assert!(images.windows(2).all(|pair| pair[0] == pair[1]), "{images:?}");
        },
    );
    assert_eq!(images(&cluster), ["v2"; 3]);
}

#[test]
fn a_rollback_takes_the_old_replica_set_under_a_new_revision() {
    let mut cluster = cluster(2, rolling());
    settle_all(&mut cluster);
    set_image(&mut cluster, "v2");
    settle_all(&mut cluster);
    set_image(&mut cluster, "v1");
    settle_all(&mut cluster);
    assert_eq!(images(&cluster), ["v1"; 2]);
    let replica_sets = cluster.list::<ReplicaSet>();
    assert_eq!(replica_sets.len(), 2);
    let back = replica_sets.iter().find(|rs| rs.spec.replicas == Some(2)).expect("one is in use");
    assert_eq!(back.metadata.annotations[REVISION], "3");
    assert_eq!(back.metadata.annotations[REVISION_HISTORY], "1");
    assert_eq!(current(&cluster).metadata.annotations[REVISION], "3");
}

#[test]
fn revisions_past_the_limit_are_forgotten() {
    let mut cluster = cluster(1, rolling());
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        set_image(&mut cluster, image);
        settle_all(&mut cluster);
    }
    let mut revisions: Vec<String> =
        cluster.list::<ReplicaSet>().iter().map(|rs| rs.metadata.annotations[REVISION].clone()).collect();
    revisions.sort();
    assert_eq!(revisions, ["3", "4", "5"]);
}

#[test]
fn a_stuck_rollout_keeps_the_old_pods_and_times_out() {
    let mut cluster = cluster(4, rolling());
    settle_all(&mut cluster);
    set_image(&mut cluster, "broken");
    settle(&mut cluster, |image| image != "broken", |_| {});
    assert_eq!(images(&cluster).iter().filter(|image| *image == "v1").count(), 3);
    let due = decide(&cluster).requeue_at.expect("the deadline is watched");
    assert_eq!(due, at(601));
    cluster.now = due;
    settle(&mut cluster, |image| image != "broken", |_| {});
    assert_eq!(progressing(&cluster), ("False".into(), "ProgressDeadlineExceeded".into()));
    set_image(&mut cluster, "v1");
    settle_all(&mut cluster);
    assert_eq!(progressing(&cluster), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn scaling_amid_a_rollout_is_proportional() {
    let mut cluster = cluster(10, rolling());
    settle_all(&mut cluster);
    set_image(&mut cluster, "broken");
    settle(&mut cluster, |image| image != "broken", |_| {});
    let sizes = |cluster: &Cluster| -> Vec<i32> {
        let mut sizes: Vec<i32> =
            cluster.list::<ReplicaSet>().iter().filter_map(|rs| rs.spec.replicas).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&cluster), [5, 8]);
    cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["replicas"] = 20.into());
    let plan = decide(&cluster);
    cluster.apply(&plan);
    assert_eq!(sizes(&cluster), [10, 15]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = cluster(2, rolling());
    settle_all(&mut cluster);
    cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["paused"] = true.into());
    set_image(&mut cluster, "v2");
    settle_all(&mut cluster);
    assert_eq!(images(&cluster), ["v1"; 2]);
    assert_eq!(progressing(&cluster).1, "DeploymentPaused");
    cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["replicas"] = 3.into());
    settle_all(&mut cluster);
    assert_eq!(images(&cluster), ["v1"; 3]);
    cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["paused"] = false.into());
    settle_all(&mut cluster);
    assert_eq!(images(&cluster), ["v2"; 3]);
}

#[test]
fn a_name_taken_by_another_replica_set_counts_as_a_collision() {
    let mut cluster = cluster(1, rolling());
    let taken = super::template::replica_set(&current(&cluster)).metadata.name;
    cluster.create(
        REPLICA_SETS,
        json!({"metadata": {"name": taken, "namespace": "a"}, "spec": {"replicas": 0}}),
    );
    settle_all(&mut cluster);
    assert_eq!(current(&cluster).status.collision_count, Some(1));
    assert_eq!(images(&cluster), ["v1"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn any_rollout_settles_within_its_limits(
        (before, after) in (0..8i32, 0..8i32), surge in 0..4i32, unavailable in 0..4i32,
    ) {
        let strategy = json!({"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        let mut cluster = cluster(before, strategy);
        settle_all(&mut cluster);
        set_image(&mut cluster, "v2");
        cluster.edit(DEPLOYMENTS, "a", "web", |d| d["spec"]["replicas"] = after.into());
        let most = (before.max(after) + surge) as usize;
        settle(&mut cluster, |_| true, |cluster| assert!(cluster.list::<Pod>().len() <= most));
        proptest::prop_assert_eq!(images(&cluster), vec!["v2"; after as usize]);
        proptest::prop_assert!(decide(&cluster).is_empty());
    }
}
