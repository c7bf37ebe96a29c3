//! Statuses, warnings, and the class.

use api::resource::{INGRESS_CLASSES, INGRESSES, NODES, SECRETS, SERVICES};
use api::view::networking::{Ingress, IngressClass};
use apimachinery::{Value, json};

use super::reconcile::{World, named_secrets, named_services, new_class, reconcile};
use crate::controller::Key;
use crate::testing::Cluster;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for (name, ip, ready) in
        [("a", "192.0.2.1", "True"), ("b", "192.0.2.2", "True"), ("c", "192.0.2.3", "False")]
    {
        cluster.create(
            NODES,
            json!({"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": ip}],
                "conditions": [{"type": "Ready", "status": ready}]}}),
        );
    }
    let plan = new_class(&cluster.list());
    cluster.apply(&plan);
    assert!(new_class(&cluster.list::<IngressClass>()).is_empty());
    cluster
}

fn ingress(spec: Value) -> Value {
    json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec})
}

fn world(cluster: &Cluster, ingress: &Ingress) -> World {
    let service = |name: &Key| Some((name.clone(), cluster.get(&name.namespace, &name.name)?));
    let secret = |name: &Key| Some((name.clone(), cluster.get(&name.namespace, &name.name)?));
    World {
        classes: cluster.list(),
        services: named_services(ingress).iter().filter_map(service).collect(),
        secrets: named_secrets(ingress).iter().filter_map(secret).collect(),
        nodes: cluster.list(),
    }
}

/// Reasons of all warnings, and the addresses the Ingress then has.
fn settle(cluster: &mut Cluster) -> (Vec<&'static str>, Vec<String>) {
    let decide = |cluster: &Cluster| {
        let ingress = cluster.get::<Ingress>("default", "web").expect("the Ingress");
        reconcile(&ingress, &world(cluster, &ingress))
    };
    let plan = decide(cluster);
    cluster.apply(&plan);
    assert!(decide(cluster).steps.is_empty());
    let ingress = cluster.get::<Ingress>("default", "web").expect("the Ingress");
    let addresses = ingress.status.load_balancer.ingress.iter().map(|one| one.ip.clone()).collect();
    (plan.events.iter().map(|event| event.reason).collect(), addresses)
}

fn check(spec: Value, warnings: &[&str], addresses: &[&str]) {
    let mut cluster = cluster();
    cluster.create(
        INGRESS_CLASSES,
        json!({"metadata": {"name": "other"}, "spec": {"controller": "example.org/x"}}),
    );
    cluster.create(
        SERVICES,
        json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}),
    );
    cluster.create(
        SERVICES,
        json!({"metadata": {"namespace": "default", "name": "away"},
            "spec": {"type": "ExternalName", "externalName": "example.org"}}),
    );
    cluster.create(
        SECRETS,
        json!({"metadata": {"namespace": "default", "name": "half"}, "data": {"tls.crt": "eA=="}}),
    );
    cluster.create(INGRESSES, ingress(spec.clone()));
    assert_eq!(
        settle(&mut cluster),
        (warnings.to_vec(), addresses.iter().map(|a| (*a).to_owned()).collect()),
        "{spec}"
    );
}

fn to(service: &str, port: Value) -> Value {
    json!({"ingressClassName": "cox", "defaultBackend": {"service": {"name": service, "port": port}}})
}

#[test]
fn an_ingress_has_the_addresses_of_ready_nodes() {
    let addresses = ["192.0.2.1", "192.0.2.2"];
    check(to("web", json!({"number": 80})), &[], &addresses);
    check(to("web", json!({"name": "http"})), &[], &addresses);
    check(to("away", json!({"number": 8080})), &[], &addresses);
}

#[test]
fn what_an_ingress_names_in_vain_is_told() {
    let addresses = ["192.0.2.1", "192.0.2.2"];
    check(to("none", json!({"number": 80})), &["ServiceNotFound"], &addresses);
    check(to("web", json!({"name": "grpc"})), &["ServicePortNotFound"], &addresses);
    let mut with_tls = to("web", json!({"number": 80}));
    with_tls["tls"] = json!([{"secretName": "none"}, {"secretName": "half"}, {"hosts": ["a.example.org"]}]);
    check(with_tls, &["SecretInvalid", "SecretNotFound"], &addresses);
}

#[test]
fn ingresses_of_other_classes_are_left_alone() {
    for class in [json!("other"), json!("nobody"), Value::Null] {
        let mut spec = to("none", json!({"number": 80}));
        spec["ingressClassName"] = class;
        check(spec, &[], &[]);
    }
}

#[test]
fn the_class_is_the_default_unless_another_one_is() {
    let mut cluster = Cluster::new();
    let default = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let is_default = |cluster: &Cluster| {
        let class = cluster.get::<IngressClass>("", "cox").expect("the class");
        assert!(class.is_built_in());
        !class.metadata.annotations.is_empty()
    };
    let plan = new_class(&cluster.list());
    cluster.apply(&plan);
    assert!(is_default(&cluster));
    cluster.remove(INGRESS_CLASSES, "", "cox");
    cluster.create(
        INGRESS_CLASSES,
        json!({"metadata": {"name": "nginx", "annotations": default}, "spec": {"controller": "k8s.io/ingress-nginx"}}),
    );
    let plan = new_class(&cluster.list());
    cluster.apply(&plan);
    assert!(!is_default(&cluster));
}
