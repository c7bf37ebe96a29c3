//! Claims and volumes find each other, and let go, whatever comes first.

use apimachinery::{Value, json};
use proptest::prelude::*;

use super::*;
use crate::testing::Cluster;

/// More turns than any of these states needs to settle.
const TURNS_MAX: usize = 12;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for (name, mode, provisioner) in [
        ("now", "Immediate", "kubernetes.io/no-provisioner"),
        ("later", "WaitForFirstConsumer", "coxswain.dev/local-path"),
        ("outside", "Immediate", "example.com/csi"),
    ] {
        let class = json!({"metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner,
            "reclaimPolicy": "Delete"});
        cluster.create(STORAGE_CLASSES, class);
    }
    let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"},
        "annotations": {"coxswain.dev/local-path-root": "/data"}}});
    cluster.create(api::resource::NODES, node);
    cluster
}

fn volume(name: &str, size: &str, edit: Value) -> Value {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "now"});
    overlay(&mut spec, edit);
    json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}})
}

fn claim(name: &str, edit: Value) -> Value {
    let mut spec = json!({"resources": {"requests": {"storage": "2Gi"}}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "now"});
    overlay(&mut spec, edit);
    json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec, "status": {"phase": "Pending"}})
}

fn overlay(spec: &mut Value, edit: Value) {
    for (key, value) in edit.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
}

fn plan_for(cluster: &Cluster, key: &Key) -> Plan {
    let claims = cluster.list::<Claim>();
    if key.namespace.is_empty() {
        let Some(found) = cluster.get::<Volume>("", &key.name) else { return Plan::default() };
        let held = found.view.spec.claim_ref.clone().unwrap_or_default();
        let holder = claims.iter().find(|claim| claim.view.metadata.uid == held.uid && !held.uid.is_empty());
        return volume::reconcile(&found, holder.map(AsRef::as_ref));
    }
    let world = World {
        volumes: &cluster.list(),
        classes: &cluster.list(),
        nodes: &cluster.list(),
        pods: &cluster.list(),
    };
    claim::reconcile(&cluster.get(&key.namespace, &key.name).expect("it is there"), &world)
}

/// Carries out plans until no object needs a write.
fn settle(cluster: &mut Cluster) {
    for _ in 0..TURNS_MAX {
        let all: Vec<Key> = keys(&cluster.list::<Volume>()).chain(keys(&cluster.list::<Claim>())).collect();
        let mut is_settled = true;
        for key in all {
            let plan = plan_for(cluster, &key);
            is_settled &= plan.steps.is_empty();
            cluster.apply(&plan);
        }
        if is_settled {
            return;
        }
    }
    panic!("the cluster does not settle");
}

fn volume_in(cluster: &Cluster, name: &str) -> Arc<Volume> {
    cluster.get("", name).expect("the volume is there")
}

fn claim_in(cluster: &Cluster, name: &str) -> Arc<Claim> {
    cluster.get("d", name).expect("the claim is there")
}

fn phases(cluster: &Cluster, volume: &str, claim: &str) -> (String, String) {
    (volume_in(cluster, volume).view.status.phase.clone(), claim_in(cluster, claim).view.status.phase.clone())
}

fn told(cluster: &Cluster, reason: &str) -> bool {
    cluster.told.iter().any(|(told, _)| told == reason)
}

#[test]
fn a_claim_takes_the_smallest_volume_that_suits_and_both_say_so() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUMES, volume("big", "9Gi", json!({})));
    cluster.create(PERSISTENT_VOLUMES, volume("mid", "3Gi", json!({})));
    settle(&mut cluster);
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({})));
    settle(&mut cluster);
    assert_eq!(phases(&cluster, "mid", "c"), ("Bound".into(), "Bound".into()));
    assert_eq!(volume_in(&cluster, "big").view.status.phase, "Available");
    let (claim, volume) = (claim_in(&cluster, "c"), volume_in(&cluster, "mid"));
    assert_eq!(claim.object["status"]["capacity"]["storage"], "3Gi");
    assert_eq!(claim.object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(claim.object["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(volume.object["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(volume.view.spec.claim_ref.as_ref().expect("held").uid, claim.view.metadata.uid);
}

#[test]
fn a_promise_by_either_side_binds_without_the_controllers_mark() {
    for (volume_edit, claim_edit) in [
        (json!({"claimRef": {"namespace": "d", "name": "c"}}), json!({})),
        (json!({}), json!({"volumeName": "v"})),
    ] {
        let mut cluster = cluster();
        cluster.create(PERSISTENT_VOLUMES, volume("v", "5Gi", volume_edit.clone()));
        cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", claim_edit.clone()));
        settle(&mut cluster);
        assert_eq!(phases(&cluster, "v", "c"), ("Bound".into(), "Bound".into()));
        let marked = |object: &Value| {
            object["metadata"]["annotations"].get("pv.kubernetes.io/bound-by-controller").is_some()
        };
        assert_eq!(marked(&volume_in(&cluster, "v").object), claim_edit != json!({}));
        assert_eq!(marked(&claim_in(&cluster, "c").object), volume_edit != json!({}));
    }
}

#[test]
fn a_named_volume_that_does_not_suit_or_is_taken_leaves_the_claim_pending() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUMES, volume("small", "1Gi", json!({})));
    cluster.create(
        PERSISTENT_VOLUMES,
        volume("taken", "9Gi", json!({"claimRef": {"namespace": "d", "name": "other"}})),
    );
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("a", json!({"volumeName": "small"})));
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("b", json!({"volumeName": "taken"})));
    settle(&mut cluster);
    assert!(told(&cluster, "VolumeMismatch") && told(&cluster, "FailedBinding"));
    for name in ["a", "b"] {
        assert_eq!(claim_in(&cluster, name).view.status.phase, "Pending");
    }
}

#[test]
fn a_volume_whose_claim_goes_is_reclaimed_as_its_policy_says() {
    for (policy, expect) in [("Retain", "Released"), ("Recycle", "Failed"), ("Delete", "Failed")] {
        let mut cluster = cluster();
        cluster
            .create(PERSISTENT_VOLUMES, volume("v", "5Gi", json!({"persistentVolumeReclaimPolicy": policy})));
        cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({"volumeName": "v"})));
        settle(&mut cluster);
        cluster.remove(PERSISTENT_VOLUME_CLAIMS, "d", "c");
        settle(&mut cluster);
        assert_eq!(volume_in(&cluster, "v").view.status.phase, expect, "{policy}");
    }
}

#[test]
fn a_bound_claim_without_its_volume_is_lost() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUMES, volume("v", "5Gi", json!({})));
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({"volumeName": "v"})));
    settle(&mut cluster);
    cluster.remove(PERSISTENT_VOLUMES, "", "v");
    settle(&mut cluster);
    assert_eq!(claim_in(&cluster, "c").view.status.phase, "Lost");
    assert!(told(&cluster, "ClaimLost"));
    assert_eq!(claim_in(&cluster, "c").object["status"].get("capacity"), None);
}

#[test]
fn a_claim_without_class_gets_the_default_one_when_there_is_one() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({"storageClassName": null})));
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("none", json!({"storageClassName": ""})));
    settle(&mut cluster);
    assert!(told(&cluster, "FailedBinding"));
    cluster.edit(STORAGE_CLASSES, "", "outside", |class| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] = "true".into();
    });
    settle(&mut cluster);
    let claim = claim_in(&cluster, "c");
    assert_eq!(claim.view.class(), "outside");
    assert_eq!(claim_in(&cluster, "none").view.class(), "");
    let by = &claim.object["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"];
    assert_eq!(by, "example.com/csi");
    assert!(told(&cluster, "ExternalProvisioning"));
}

#[test]
fn a_volume_is_made_on_the_node_that_the_scheduler_chose_and_goes_with_its_claim() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({"storageClassName": "later"})));
    settle(&mut cluster);
    assert!(told(&cluster, "WaitForFirstConsumer"));
    assert!(cluster.list::<Volume>().is_empty());
    cluster.edit(PERSISTENT_VOLUME_CLAIMS, "d", "c", |claim| {
        claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = "n".into();
    });
    settle(&mut cluster);
    let claim = claim_in(&cluster, "c");
    let name = format!("pvc-{}", claim.view.metadata.uid);
    assert_eq!(phases(&cluster, &name, "c"), ("Bound".into(), "Bound".into()));
    assert!(told(&cluster, "ProvisioningSucceeded"));
    let made = volume_in(&cluster, &name);
    assert_eq!(made.view.spec.local.as_ref().expect("local").path, format!("/data/{name}"));
    let on =
        |host: &str| made.view.allows_node(&[("kubernetes.io/hostname".to_owned(), host.to_owned())].into());
    assert!(on("n") && !on("other"));
    cluster.remove(PERSISTENT_VOLUME_CLAIMS, "d", "c");
    settle(&mut cluster);
    assert!(cluster.list::<Volume>().is_empty());
}

#[test]
fn what_cannot_be_made_is_said_and_another_node_may_be_chosen() {
    for (edit, node) in [
        (json!({"accessModes": ["ReadWriteMany"]}), "n"),
        (json!({"volumeMode": "Block"}), "n"),
        (json!({}), "absent"),
    ] {
        let mut cluster = cluster();
        let mut object = claim("c", edit);
        object["spec"]["storageClassName"] = "later".into();
        object["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": node});
        cluster.create(PERSISTENT_VOLUME_CLAIMS, object);
        let plan = plan_for(&cluster, &Key::new("d", "c"));
        cluster.apply(&plan);
        assert!(told(&cluster, "ProvisioningFailed"));
        let annotations = &claim_in(&cluster, "c").view.metadata.annotations.clone();
        assert!(!annotations.contains_key("volume.kubernetes.io/selected-node"));
    }
}

#[test]
fn a_volume_held_for_a_claim_that_took_another_is_given_back() {
    let mut cluster = cluster();
    cluster.create(PERSISTENT_VOLUMES, volume("v", "5Gi", json!({})));
    cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("c", json!({"volumeName": "v"})));
    settle(&mut cluster);
    let uid = claim_in(&cluster, "c").view.metadata.uid.clone();
    let mut other = volume("w", "5Gi", json!({"claimRef": {"namespace": "d", "name": "c", "uid": uid}}));
    other["metadata"]["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    cluster.create(PERSISTENT_VOLUMES, other);
    settle(&mut cluster);
    let given_back = volume_in(&cluster, "w");
    assert_eq!(
        (given_back.view.status.phase.as_str(), &given_back.view.spec.claim_ref),
        ("Available", &None)
    );
}

proptest! {
    #[test]
    fn no_volume_serves_two_claims_and_everything_settles(
        volumes in proptest::collection::vec((1..6u8, any::<bool>(), any::<bool>()), 0..5),
        claims in proptest::collection::vec((1..6u8, any::<bool>(), 0..6usize), 0..5),
    ) {
        let mut cluster = cluster();
        for (n, (size, promised, later)) in volumes.iter().enumerate() {
            let mut edit = json!({"storageClassName": if *later { "later" } else { "now" }});
            if *promised {
                edit["claimRef"] = json!({"namespace": "d", "name": format!("c{n}")});
            }
            cluster.create(PERSISTENT_VOLUMES, volume(&format!("v{n}"), &format!("{size}Gi"), edit));
        }
        for (n, (size, later, named)) in claims.iter().enumerate() {
            let mut edit = json!({"resources": {"requests": {"storage": format!("{size}Gi")}},
                "storageClassName": if *later { "later" } else { "now" }});
            if *named < 3 {
                edit["volumeName"] = format!("v{named}").into();
            }
            cluster.create(PERSISTENT_VOLUME_CLAIMS, claim(&format!("c{n}"), edit));
        }
        settle(&mut cluster);
        let mut taken = Vec::new();
        for claim in cluster.list::<Claim>() {
            if claim.view.status.phase == "Bound" {
                let name = claim.view.spec.volume_name.clone();
                let held = volume_in(&cluster, &name).view.spec.claim_ref.clone().expect("held");
                prop_assert_eq!(&held.uid, &claim.view.metadata.uid);
                prop_assert!(!taken.contains(&name));
                taken.push(name);
            }
        }
    }
}
