//! A range from its creation to its end.

use api::networking::servicecidr::FINALIZER;
use api::resource::{SERVICE_CIDRS, SERVICES};
use api::view::networking::ServiceCIDR;
use apimachinery::{Value, json};

use super::reconcile::reconcile;
use crate::testing::{Cluster, at};

/// Decides about a range until nothing is left to do; tells when to look again.
fn settle(cluster: &mut Cluster, name: &str) -> Option<jiff::Timestamp> {
    loop {
        let range = cluster.get::<ServiceCIDR>("", name).expect("the range is there");
        let plan = reconcile(&range, &cluster.list(), &cluster.list(), cluster.now);
        if plan.is_empty() {
            return plan.requeue_at;
        }
        cluster.apply(&plan);
    }
}

fn range(cluster: &mut Cluster, name: &str, cidrs: &[&str]) {
    cluster
        .create(SERVICE_CIDRS, json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}, "status": {}}));
    settle(cluster, name);
}

fn service(cluster: &mut Cluster, name: &str, addresses: &[&str]) {
    let spec = json!({"clusterIP": addresses[0], "clusterIPs": addresses});
    cluster.create(SERVICES, json!({"metadata": {"namespace": "n", "name": name}, "spec": spec}));
}

fn delete(cluster: &mut Cluster, name: &str) {
    let now = cluster.now.to_string();
    cluster.edit(SERVICE_CIDRS, "", name, |range| range["metadata"]["deletionTimestamp"] = now.into());
}

fn ready(cluster: &Cluster, name: &str) -> Value {
    cluster.value(SERVICE_CIDRS, "", name).expect("the range is there")["status"]["conditions"][0].clone()
}

fn finalizers(cluster: &Cluster, name: &str) -> Value {
    cluster.value(SERVICE_CIDRS, "", name).expect("the range is there")["metadata"]["finalizers"].clone()
}

#[test]
fn a_new_range_is_held_and_ready_beside_what_others_say_of_it() {
    let mut cluster = Cluster::new();
    let metadata = json!({"name": "a", "finalizers": ["x/y"]});
    cluster.create(
        SERVICE_CIDRS,
        json!({"metadata": metadata, "spec": {"cidrs": ["10.1.0.0/24"]},
        "status": {"conditions": [{"type": "Seen", "status": "True"}]}}),
    );
    assert_eq!(settle(&mut cluster, "a"), None);
    assert_eq!(finalizers(&cluster, "a"), json!(["x/y", FINALIZER]));
    assert_eq!(ready(&cluster, "a")["type"], "Seen");
    let status = cluster.value(SERVICE_CIDRS, "", "a").expect("is there")["status"].clone();
    assert_eq!(
        status["conditions"][1],
        json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
            "lastTransitionTime": at(0).to_string()})
    );
}

#[test]
fn a_range_that_nobody_uses_goes_after_the_grace_period() {
    let mut cluster = Cluster::new();
    range(&mut cluster, "a", &["10.1.0.0/24"]);
    service(&mut cluster, "elsewhere", &["10.2.0.7"]);
    delete(&mut cluster, "a");
    assert_eq!(settle(&mut cluster, "a"), Some(at(10)));
    assert_eq!(ready(&cluster, "a")["status"], "True");
    cluster.now = at(10);
    assert_eq!(settle(&mut cluster, "a"), None);
    assert_eq!(finalizers(&cluster, "a"), json!([]));
}

#[test]
fn an_address_that_no_other_range_has_keeps_a_range() {
    let mut cluster = Cluster::new();
    range(&mut cluster, "a", &["10.1.0.0/24", "fd00::/112"]);
    service(&mut cluster, "s", &["10.1.0.7", "fd00::7"]);
    delete(&mut cluster, "a");
    cluster.now = at(30);
    assert_eq!(settle(&mut cluster, "a"), None);
    assert_eq!(finalizers(&cluster, "a"), json!([FINALIZER]));
    let condition = ready(&cluster, "a");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Terminating")));
    assert_eq!(condition["lastTransitionTime"], at(30).to_string());
    range(&mut cluster, "half", &["10.1.0.0/28"]);
    settle(&mut cluster, "a");
    assert_eq!(finalizers(&cluster, "a"), json!([FINALIZER]), "nobody else has fd00::7");
    range(&mut cluster, "rest", &["fd00::/120"]);
    settle(&mut cluster, "a");
    assert_eq!(finalizers(&cluster, "a"), json!([]));
}

#[test]
fn a_range_within_others_goes_whoever_holds_its_addresses() {
    let mut cluster = Cluster::new();
    range(&mut cluster, "a", &["10.1.0.0/24"]);
    range(&mut cluster, "wide", &["10.1.0.0/16"]);
    service(&mut cluster, "s", &["10.1.0.7"]);
    delete(&mut cluster, "a");
    cluster.now = at(10);
    settle(&mut cluster, "a");
    assert_eq!(finalizers(&cluster, "a"), json!([]));
}

#[test]
fn the_first_and_last_address_of_a_range_are_not_its_own_to_give() {
    let mut cluster = Cluster::new();
    range(&mut cluster, "a", &["10.1.0.0/16"]);
    range(&mut cluster, "b", &["10.1.1.0/24"]);
    service(&mut cluster, "s", &["10.1.1.255"]);
    delete(&mut cluster, "a");
    cluster.now = at(10);
    settle(&mut cluster, "a");
    assert_eq!(ready(&cluster, "a")["status"], "False", "b cannot give 10.1.1.255");
}
