//! Claims of pods, decided and applied in a cluster in memory.

use std::collections::HashSet;
use std::sync::Arc;

use api::resource::{PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS};
use api::view::core::Pod;
use api::view::dynamicresource::{FINALIZER, ResourceClaim};
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::{Subject, claim, is_done, pod, pod_keys};
use crate::plan::Plan;
use crate::testing::Cluster;

fn add_pod(cluster: &mut Cluster, name: &str, claims: Value) {
    let meta = json!({"name": name, "namespace": "n", "uid": name});
    cluster.create(PODS, json!({"metadata": meta, "spec": {"resourceClaims": claims}}));
}

fn add_template(cluster: &mut Cluster) {
    let spec = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"devices": {"requests": []}}});
    cluster
        .create(RESOURCE_CLAIM_TEMPLATES, json!({"metadata": {"name": "t", "namespace": "n"}, "spec": spec}));
}

fn of_template() -> Value {
    json!([{"name": "gpu", "resourceClaimTemplateName": "t"}])
}

fn claims(cluster: &Cluster) -> Vec<Arc<ResourceClaim>> {
    cluster.list()
}

fn plan_for_pod(cluster: &Cluster, name: &str) -> Plan {
    let pod = cluster.get::<Pod>("n", name).expect("the pod is there");
    let of_pod = |claim: &Arc<ResourceClaim>| claim.metadata.is_controlled_by(&pod.metadata.uid);
    // Views are plain data: a copy of what is there stands for the informers.
    let (known, templates) = (claims(cluster), cluster.list());
    pod::reconcile(
        &pod,
        &pod::World {
            claim: &|name| known.iter().find(|claim| claim.metadata.name == name).cloned(),
            template: &|name| {
                templates
                    .iter()
                    .find(|t: &&Arc<api::view::dynamicresource::ResourceClaimTemplate>| {
                        t.metadata.name == name
                    })
                    .cloned()
            },
            made: known.iter().filter(|claim| of_pod(claim)).cloned().collect(),
        },
    )
}

fn plan_for_claim(cluster: &Cluster, name: &str, released: &mut HashSet<String>) -> Plan {
    let found = cluster.get::<ResourceClaim>("n", name).expect("the claim is there");
    let is_user = |name: &str, uid: &str| {
        cluster.get::<Pod>("n", name).is_some_and(|pod| pod.metadata.uid == uid && !is_done(&pod))
    };
    let consumers = found.status.reserved_for.iter().filter(|c| !c.is_pod() || is_user(&c.name, &c.uid));
    let world = claim::World {
        consumers: consumers.cloned().collect(),
        owner: claim::owning_pod(&found).and_then(|owner| cluster.get("n", &owner.name)),
        is_released: released.remove(&found.metadata.uid),
    };
    let (plan, releases) = claim::reconcile(&found, &world);
    if releases {
        released.insert(found.metadata.uid.clone());
    }
    plan
}

/// Lets every pod and claim have its turn until nothing is left to do.
fn settle(cluster: &mut Cluster) {
    let mut released = HashSet::new();
    for _ in 0..10 {
        let mut is_quiet = true;
        for pod in cluster.list::<Pod>() {
            let plan = plan_for_pod(cluster, &pod.metadata.name);
            is_quiet &= plan.is_empty();
            cluster.apply(&plan);
        }
        for claim in claims(cluster) {
            let plan = plan_for_claim(cluster, &claim.metadata.name, &mut released);
            is_quiet &= plan.is_empty();
            cluster.apply(&plan);
        }
        if is_quiet {
            return;
        }
    }
    panic!("it never settles");
}

/// As the scheduler leaves it.
fn allocate(cluster: &mut Cluster, claim: &str, pods: &[&str]) {
    let users: Vec<Value> =
        pods.iter().map(|pod| json!({"resource": "pods", "name": pod, "uid": pod})).collect();
    cluster.edit(RESOURCE_CLAIMS, "n", claim, |object| {
        object["metadata"]["finalizers"] = json!([FINALIZER]);
        object["status"] = json!({"allocation": {"devices": {"results": []}}, "reservedFor": users});
    });
}

#[test]
fn a_claim_is_made_of_its_template_and_told_of_in_the_pods_status() {
    let mut cluster = Cluster::new();
    add_template(&mut cluster);
    add_pod(&mut cluster, "p", of_template());
    settle(&mut cluster);
    let claims = claims(&cluster);
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    let meta = &claim.metadata;
    assert!(meta.name.starts_with("p-gpu-"));
    assert_eq!(meta.labels["a"], "b");
    assert_eq!(
        (meta.annotations["c"].as_str(), meta.annotations["resource.kubernetes.io/pod-claim-name"].as_str()),
        ("d", "gpu")
    );
    assert!(meta.is_controlled_by("p"));
    let pod = cluster.get::<Pod>("n", "p").expect("the pod is there");
    assert_eq!(pod.status.resource_claim_statuses[0].resource_claim_name.as_ref(), Some(&meta.name));
}

#[test]
fn a_pod_without_its_template_is_told_and_waits() {
    let mut cluster = Cluster::new();
    add_pod(&mut cluster, "p", of_template());
    let plan = plan_for_pod(&cluster, "p");
    assert!(plan.steps.is_empty());
    let expect = "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found";
    assert_eq!(plan.events[0].message, expect);
}

#[test]
fn a_claim_that_is_lost_is_made_anew_unless_the_pod_is_over() {
    let mut cluster = Cluster::new();
    add_template(&mut cluster);
    add_pod(&mut cluster, "p", of_template());
    settle(&mut cluster);
    let lost = claims(&cluster)[0].metadata.name.clone();
    cluster.remove(RESOURCE_CLAIMS, "n", &lost);
    settle(&mut cluster);
    assert_ne!(claims(&cluster)[0].metadata.name, lost);
    cluster.edit(PODS, "n", "p", |pod| pod["status"]["phase"] = "Succeeded".into());
    settle(&mut cluster);
    assert!(claims(&cluster).is_empty());
}

#[test]
fn a_shared_claim_loses_users_that_are_over_and_its_devices_with_the_last() {
    let mut cluster = Cluster::new();
    cluster.create(RESOURCE_CLAIMS, json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {}}));
    for name in ["p", "q"] {
        add_pod(&mut cluster, name, json!([{"name": "gpu", "resourceClaimName": "c"}]));
    }
    allocate(&mut cluster, "c", &["p", "q"]);
    let end = |cluster: &mut Cluster, name: &str| {
        cluster.edit(PODS, "n", name, |pod| pod["status"]["phase"] = "Failed".into());
        settle(cluster);
        cluster.get::<ResourceClaim>("n", "c").expect("the claim stays")
    };
    let claim = end(&mut cluster, "p");
    assert!(claim.status.allocation.is_some() && claim.is_reserved_for("q") && !claim.is_reserved_for("p"));
    let claim = end(&mut cluster, "q");
    assert_eq!((claim.status.allocation.as_ref(), claim.status.reserved_for.len()), (None, 0));
    assert!(claim.metadata.finalizers.is_empty());
}

#[test]
fn a_finalizer_stays_where_the_scheduler_may_be_about_to_allocate() {
    let mut cluster = Cluster::new();
    let meta = json!({"name": "c", "namespace": "n", "finalizers": [FINALIZER]});
    cluster.create(RESOURCE_CLAIMS, json!({"metadata": meta, "spec": {}}));
    assert!(plan_for_claim(&cluster, "c", &mut HashSet::new()).is_empty());
    cluster.edit(RESOURCE_CLAIMS, "n", "c", |claim| {
        claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    settle(&mut cluster);
    assert!(cluster.get::<ResourceClaim>("n", "c").expect("there").metadata.finalizers.is_empty());
}

#[test]
fn a_pod_that_others_have_placed_is_entered_as_a_user() {
    let mut cluster = Cluster::new();
    cluster.create(RESOURCE_CLAIMS, json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {}}));
    for name in ["p", "q"] {
        add_pod(&mut cluster, name, json!([{"name": "gpu", "resourceClaimName": "c"}]));
    }
    allocate(&mut cluster, "c", &["q"]);
    cluster.edit(PODS, "n", "p", |pod| pod["spec"]["nodeName"] = "m".into());
    settle(&mut cluster);
    let claim = cluster.get::<ResourceClaim>("n", "c").expect("there");
    assert!(claim.is_reserved_for("p") && claim.is_reserved_for("q"));
}

proptest! {
    #[test]
    fn a_generated_name_leaves_room_for_what_makes_it_unique(pod in "[a-z0-9]{1,253}", claim in "[a-z0-9]{1,63}") {
        let name = pod::generate_name(&pod, &claim);
        prop_assert!(name.len() <= 57);
        prop_assert!(name.contains('-'));
    }

    #[test]
    fn pods_in_any_state_leave_claims_settled(phases in proptest::collection::vec((0..3u8, any::<bool>(), any::<bool>()), 1..5)) {
        let mut cluster = Cluster::new();
        add_template(&mut cluster);
        for (n, (phase, is_placed, is_ending)) in phases.iter().enumerate() {
            let name = format!("p{n}");
            add_pod(&mut cluster, &name, of_template());
            settle(&mut cluster);
            cluster.edit(PODS, "n", &name, |pod| {
                pod["status"]["phase"] = ["Pending", "Running", "Succeeded"][usize::from(*phase)].into();
                if *is_placed {
                    pod["spec"]["nodeName"] = "m".into();
                }
                if *is_ending {
                    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                }
            });
        }
        settle(&mut cluster);
        let needed = cluster.list::<Pod>().iter().filter(|pod| !is_done(pod)).count();
        prop_assert_eq!(claims(&cluster).len(), needed);
    }
}

#[test]
fn the_claim_for_a_pods_extended_resources_has_its_turn_when_the_pod_is_over_and_goes_with_it() {
    let mut cluster = Cluster::new();
    add_pod(&mut cluster, "p", json!([]));
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true});
    let meta = json!({"name": "p-extended-resources-x", "namespace": "n", "ownerReferences": [owner],
        "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}});
    cluster.create(RESOURCE_CLAIMS, json!({"metadata": meta, "spec": {"devices": {"requests": []}}}));
    allocate(&mut cluster, "p-extended-resources-x", &["p"]);
    let keys = |cluster: &Cluster| {
        let pod = cluster.get::<Pod>("n", "p").expect("the pod is there");
        (pod_keys(&pod, false), pod_keys(&pod, true))
    };
    let set = |cluster: &mut Cluster, phase: &str| {
        cluster.edit(PODS, "n", "p", |pod| {
            pod["status"] = json!({"phase": phase, "extendedResourceClaimStatus":
                {"resourceClaimName": "p-extended-resources-x", "requestMappings": []}});
        });
    };
    let claim = vec![Subject::Claim("p-extended-resources-x".to_owned()).key("n")];
    set(&mut cluster, "Running");
    assert_eq!(keys(&cluster), (Vec::new(), claim.clone()));
    settle(&mut cluster);
    assert_eq!(claims(&cluster).len(), 1);
    set(&mut cluster, "Succeeded");
    assert_eq!(keys(&cluster), (claim.clone(), claim));
    settle(&mut cluster);
    assert!(claims(&cluster).is_empty());
}
