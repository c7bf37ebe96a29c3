//! Who may be on a node, by example.

use apimachinery::Value;

use super::*;

fn pod(spec: Value) -> Pod {
    apimachinery::from_value(json!({"spec": spec})).expect("a pod")
}

fn node() -> Node {
    let status = json!({"allocatable": {"example.com/gpu": "2", "hugepages-2Mi": "0"}});
    let metadata = json!({"name": "n", "labels": {"disk": "ssd"}});
    apimachinery::from_value(json!({"metadata": metadata, "status": status})).expect("a node")
}

/// Judges a pod beside others on a node with 2 CPUs, 1000 bytes of memory, 100 of storage and places for 3 pods.
fn judge(pod: &Pod, others: &[Value], node: &Node) -> Result<(), Refusal> {
    let others: Vec<Claim> = others.iter().map(|spec| Claim::of(&super::tests::pod(spec.clone()))).collect();
    let allocatable = Allocatable { milli_cpu: 2000, memory_bytes: 1000, ephemeral_storage_bytes: 100 };
    admit(pod, &Claim::of(pod), node, others.iter(), &Room { allocatable, pods_max: 3 })
}

fn requests(requests: Value) -> Value {
    json!({"containers": [{"name": "a", "resources": {"requests": requests}}]})
}

fn check(spec: Value, others: &[Value], expect: Option<(&str, &str)>) {
    let refused = judge(&pod(spec), others, &node()).err();
    assert_eq!(refused.as_ref().map(|r| (r.reason.as_str(), r.message.as_str())), expect);
}

#[test]
fn a_pod_fits_up_to_the_last_bit_and_no_further() {
    check(requests(json!({"cpu": "1"})), &[requests(json!({"cpu": "1"}))], None);
    check(
        requests(json!({"cpu": "1001m"})),
        &[requests(json!({"cpu": "1"}))],
        Some((
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 1001, used: 1000, capacity: 2000",
        )),
    );
    check(
        requests(json!({"memory": "1"})),
        &[requests(json!({"memory": "1000"}))],
        Some((
            "OutOfmemory",
            "Node didn't have enough resource: memory, requested: 1, used: 1000, capacity: 1000",
        )),
    );
}

#[test]
fn what_asks_for_nothing_needs_a_place_only() {
    let full = requests(json!({"cpu": "3", "memory": "2000"}));
    check(requests(json!({})), std::slice::from_ref(&full), None);
    check(
        requests(json!({})),
        &[full, requests(json!({})), requests(json!({}))],
        Some(("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3")),
    );
}

#[test]
fn devices_count_where_the_node_has_them() {
    let gpus = |count: &str| requests(json!({"example.com/gpu": count, "example.com/other": "1"}));
    check(gpus("1"), &[gpus("1")], None);
    let why = "Node didn't have enough resource: example.com/gpu, requested: 2, used: 1, capacity: 2";
    check(gpus("2"), &[gpus("1")], Some(("OutOfexample.com/gpu", why)));
    let why = "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0";
    check(requests(json!({"hugepages-2Mi": "2Mi"})), &[], Some(("OutOfhugepages-2Mi", why)));
}

#[test]
fn the_node_selector_holds_at_the_node_too() {
    check(json!({"nodeSelector": {"disk": "ssd"}}), &[], None);
    let why = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    check(json!({"nodeSelector": {"disk": "hdd"}}), &[], Some(("NodeAffinity", why)));
}

#[test]
fn a_host_port_is_given_once() {
    let port = |number: u16| json!({"containers": [{"name": "a", "ports": [{"hostPort": number}]}]});
    check(port(80), &[port(81)], None);
    let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    check(port(80), &[port(80)], Some(("NodePorts", why)));
}

#[test]
fn a_taint_that_evicts_keeps_out_who_does_not_tolerate_it() {
    let mut node = node();
    node.spec.taints = apimachinery::from_value(json!([
        {"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoSchedule"}]))
    .expect("taints");
    let why = |spec: Value| judge(&pod(spec), &[], &node).err().map(|refusal| refusal.reason);
    assert_eq!(why(json!({})).as_deref(), Some("TaintToleration"));
    assert_eq!(why(json!({"tolerations": [{"key": "a", "operator": "Exists"}]})), None);
}

#[test]
fn a_pod_for_another_system_is_refused() {
    let why = "Failed to admit pod as the OS field doesn't match node OS";
    check(json!({"os": {"name": "windows"}}), &[], Some(("PodOSNotSupported", why)));
    check(json!({"os": {"name": "linux"}}), &[], None);
    let mut labelled = Pod::default();
    labelled.metadata.labels.insert(OS_LABEL.into(), "windows".into());
    let refused = judge(&labelled, &[], &node()).expect_err("another system");
    assert_eq!(refused.reason, "PodOSSelectorNodeLabelDoesNotMatch");
}
