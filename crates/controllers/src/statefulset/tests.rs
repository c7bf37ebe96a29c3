//! StatefulSets in a simulated cluster.

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use api::view::apps::{ControllerRevision, StatefulSet};
use api::view::core::Pod;
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::*;
use crate::testing::Cluster;

fn cluster(changes: &[(&str, Value)]) -> Cluster {
    let mut set = json!({"metadata": {"namespace": "n", "name": "web"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "serviceName": "s", "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    for (field, value) in changes {
        set["spec"][field] = value.clone();
    }
    let mut cluster = Cluster::new();
    cluster.create(STATEFUL_SETS, set);
    cluster
}

fn world(cluster: &Cluster) -> World {
    let claims = cluster.values(PERSISTENT_VOLUME_CLAIMS);
    World {
        pods: cluster.list::<Pod>(),
        revisions: cluster.list::<ControllerRevision>(),
        claims: claims
            .into_iter()
            .map(|c| Arc::new(apimachinery::from_value(c.clone()).expect("a view")))
            .collect(),
        may_adopt: true,
    }
}

fn set(cluster: &Cluster) -> Arc<StatefulSet> {
    cluster.get("n", "web").expect("is there")
}

fn turn(cluster: &mut Cluster) -> bool {
    let plan = reconcile(&set(cluster), &world(cluster), cluster.now);
    cluster.apply(&plan);
    !plan.is_empty()
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.list::<Pod>().iter().map(|pod| pod.metadata.name.clone()).collect()
}

fn make_ready(cluster: &mut Cluster) {
    for name in names(cluster) {
        let ready =
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": cluster.now.to_string()}]);
        cluster
            .edit(PODS, "n", &name, |pod| pod["status"] = json!({"phase": "Running", "conditions": ready}));
    }
}

fn settle(cluster: &mut Cluster) {
    for _ in 0..60 {
        if !turn(cluster) {
            return;
        }
        make_ready(cluster);
    }
    panic!("does not come to rest: {:?}", cluster.told);
}

fn set_image(cluster: &mut Cluster, image: &str) {
    cluster.edit(STATEFUL_SETS, "n", "web", |set| {
        set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    });
}

fn images(cluster: &Cluster) -> Vec<&str> {
    let pods = cluster.values(PODS);
    pods.into_iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().expect("an image")).collect()
}

#[test]
fn pods_come_one_after_the_other_with_their_claims() {
    let mut cluster = cluster(&[]);
    turn(&mut cluster);
    assert_eq!(names(&cluster), ["web-0"]);
    turn(&mut cluster);
    assert_eq!(names(&cluster), ["web-0"], "the second waits until the first is ready");
    make_ready(&mut cluster);
    settle(&mut cluster);
    assert_eq!(names(&cluster), ["web-0", "web-1", "web-2"]);
    let pod = cluster.value(PODS, "n", "web-1").expect("is there");
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-1"), &json!("s")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-web-1");
    assert_eq!(cluster.values(PERSISTENT_VOLUME_CLAIMS).len(), 3);
    let status = &set(&cluster).status;
    assert_eq!(
        (status.replicas, status.ready_replicas, status.current_replicas, status.updated_replicas),
        (3, 3, 3, 3)
    );
}

#[test]
fn parallel_pods_come_at_once() {
    let mut cluster =
        cluster(&[("podManagementPolicy", json!("Parallel")), ("ordinals", json!({"start": 5}))]);
    turn(&mut cluster);
    assert_eq!(names(&cluster), ["web-5", "web-6", "web-7"]);
}

#[test]
fn the_highest_goes_first_and_its_claim_stays() {
    let mut cluster = cluster(&[]);
    settle(&mut cluster);
    cluster.edit(STATEFUL_SETS, "n", "web", |set| set["spec"]["replicas"] = 1.into());
    turn(&mut cluster);
    assert_eq!(names(&cluster), ["web-0", "web-1"]);
    settle(&mut cluster);
    assert_eq!(
        (names(&cluster), cluster.values(PERSISTENT_VOLUME_CLAIMS).len()),
        (vec!["web-0".to_owned()], 3)
    );
}

#[test]
fn claims_go_with_pods_that_are_scaled_away_when_told_so() {
    let mut cluster = cluster(&[(
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenScaled": "Delete", "whenDeleted": "Delete"}),
    )]);
    settle(&mut cluster);
    let owner = |cluster: &Cluster, claim: &str| {
        let claim = cluster.value(PERSISTENT_VOLUME_CLAIMS, "n", claim).expect("is there");
        claim["metadata"]["ownerReferences"][0]["kind"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(owner(&cluster, "data-web-1"), "StatefulSet");
    cluster.edit(STATEFUL_SETS, "n", "web", |set| set["spec"]["replicas"] = 1.into());
    turn(&mut cluster);
    assert_eq!(owner(&cluster, "data-web-2"), "Pod");
}

#[test]
fn a_pod_waits_until_the_claim_of_its_predecessor_is_gone() {
    let mut cluster = cluster(&[(
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenScaled": "Delete", "whenDeleted": "Retain"}),
    )]);
    settle(&mut cluster);
    cluster.edit(STATEFUL_SETS, "n", "web", |set| set["spec"]["replicas"] = 2.into());
    settle(&mut cluster);
    cluster.edit(STATEFUL_SETS, "n", "web", |set| set["spec"]["replicas"] = 3.into());
    settle(&mut cluster);
    assert!(cluster.value(PODS, "n", "web-2").is_none());
    cluster.remove(PERSISTENT_VOLUME_CLAIMS, "n", "data-web-2");
    settle(&mut cluster);
    assert!(cluster.value(PODS, "n", "web-2").is_some());
}

#[test]
fn a_rollout_stops_at_the_partition() {
    let mut cluster =
        cluster(&[("updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))]);
    settle(&mut cluster);
    set_image(&mut cluster, "i:2");
    settle(&mut cluster);
    assert_eq!(images(&cluster), ["i:1", "i:1", "i:2"]);
    let status = &set(&cluster).status;
    assert_eq!((status.current_replicas, status.updated_replicas), (2, 1));
    assert_ne!(status.current_revision, status.update_revision);
    cluster.edit(STATEFUL_SETS, "n", "web", |set| {
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0.into();
    });
    settle(&mut cluster);
    assert_eq!(images(&cluster), ["i:2", "i:2", "i:2"]);
    let status = &set(&cluster).status;
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut cluster = cluster(&[("updateStrategy", json!({"type": "OnDelete"}))]);
    settle(&mut cluster);
    set_image(&mut cluster, "i:2");
    settle(&mut cluster);
    assert_eq!(images(&cluster), ["i:1", "i:1", "i:1"]);
    cluster.remove(PODS, "n", "web-1");
    settle(&mut cluster);
    assert_eq!(images(&cluster), ["i:1", "i:2", "i:1"]);
}

#[test]
fn a_failed_pod_is_made_anew() {
    let mut cluster = cluster(&[]);
    settle(&mut cluster);
    cluster.edit(PODS, "n", "web-0", |pod| pod["status"] = json!({"phase": "Failed"}));
    let before = cluster.value(PODS, "n", "web-0").expect("is there")["metadata"]["uid"].clone();
    settle(&mut cluster);
    assert_ne!(cluster.value(PODS, "n", "web-0").expect("is there")["metadata"]["uid"], before);
    let told = ("SuccessfulDelete".to_owned(), "Delete Pod web-0 in StatefulSet web successful".to_owned());
    assert!(cluster.told.contains(&told));
}

proptest! {
    #[test]
    fn any_size_is_reached_and_at_most_one_pod_is_away_during_a_rollout(first in 0_i64..6, second in 0_i64..6) {
        let mut cluster = cluster(&[("replicas", json!(first))]);
        settle(&mut cluster);
        prop_assert_eq!(names(&cluster).len() as i64, first);
        cluster.edit(STATEFUL_SETS, "n", "web", |set| set["spec"]["replicas"] = second.into());
        settle(&mut cluster);
        prop_assert_eq!(names(&cluster).len() as i64, second);
        set_image(&mut cluster, "i:2");
        for _ in 0..60 {
            if !turn(&mut cluster) {
                break;
            }
            let ready = cluster.list::<Pod>().iter().filter(|pod| pod.is_ready()).count() as i64;
            prop_assert!(ready >= second - 1);
            make_ready(&mut cluster);
        }
        prop_assert_eq!(images(&cluster), vec!["i:2"; usize::try_from(second).expect("is positive")]);
    }
}
