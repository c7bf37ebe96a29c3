//! What Services get, and what they give back.

use super::*;

fn allocator(cidr: &str, node_ports: RangeInclusive<u16>) -> Allocator {
    let cidr: Cidr = cidr.parse().expect("a range");
    Allocator { state: Arc::new(Mutex::new(State::new(&[cidr], node_ports))), shared: None }
}

fn reserve(
    allocator: &Allocator,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<Reservation, ErrorList> {
    let ranges = allocator.state.lock().addresses.configured().to_vec();
    allocator.reserve_within(ranges, service, old)
}

fn node_port_service() -> Value {
    json!({"spec": {"type": "NodePort", "ports": [
        {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}]}})
}

#[test]
fn a_failed_write_gives_everything_back() {
    let allocator = allocator("10.0.0.0/30", 30000..=30001);
    for _ in 0..5 {
        let mut service = node_port_service();
        let reservation = reserve(&allocator, &mut service, None).expect("there is room");
        assert_eq!(service["spec"]["ports"][0]["nodePort"], service["spec"]["ports"][1]["nodePort"]);
        assert_ne!(service["spec"]["ports"][0]["nodePort"], service["spec"]["ports"][2]["nodePort"]);
        drop(reservation);
    }
    assert!(allocator.state.lock().addresses.is_empty());
}

#[test]
fn an_address_is_given_once_until_its_service_goes() {
    let allocator = allocator("10.0.0.0/30", 30000..=30001);
    let asked = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
    let mut first = asked.clone();
    reserve(&allocator, &mut first, None).expect("is free").keep(Some(&first));
    let errors = reserve(&allocator, &mut asked.clone(), None).expect_err("is taken");
    assert!(
        errors[0].to_string().ends_with("failed to allocate IP 10.0.0.1: provided IP is already allocated"),
        "{}",
        errors[0]
    );
    let mut update = json!({"spec": {}});
    reserve(&allocator, &mut update, Some(&first)).expect("keeps").keep(Some(&update));
    assert_eq!(update["spec"]["clusterIP"], "10.0.0.1");
    allocator.state.lock().give_back(&holding(&update));
    assert!(allocator.state.lock().addresses.is_empty());
}

#[test]
fn a_port_asked_for_is_not_given_to_the_port_before_it() {
    let allocator = allocator("10.0.0.0/24", 30000..=30001);
    let mut service = json!({"spec": {"type": "NodePort", "ports": [
        {"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP", "nodePort": 30000}]}});
    reserve(&allocator, &mut service, None).expect("there is room").keep(Some(&service));
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(service["spec"]["ports"][1]["nodePort"], 30000);
}

#[test]
fn a_local_load_balancer_has_a_port_for_health_checks() {
    let allocator = allocator("10.0.0.0/24", 30000..=30003);
    let mut service = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [
        {"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]}});
    reserve(&allocator, &mut service, None).expect("there is room").keep(Some(&service));
    assert_eq!(service["spec"]["healthCheckNodePort"], 30002);
    let mut other = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30002, "ports": []}});
    let errors = reserve(&allocator, &mut other, None).expect_err("is taken");
    assert_eq!(
        errors[0].to_string(),
        "spec.healthCheckNodePort: Invalid value: 30002: provided port is already allocated"
    );
    let mut same = service.clone();
    reserve(&allocator, &mut same, Some(&service)).expect("keeps").keep(Some(&same));
    allocator.state.lock().give_back(&holding(&same));
    assert!(allocator.state.lock().ports.is_empty());
    let mut anywhere = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}});
    reserve(&allocator, &mut anywhere, None).expect("there is room").keep(Some(&anywhere));
    assert!(anywhere["spec"].get("healthCheckNodePort").is_none());
}

#[test]
fn ports_out_of_range_and_taken_are_named() {
    let allocator = allocator("10.0.0.0/24", 30000..=32767);
    let with = |port: u16| json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let mut taken = with(30080);
    reserve(&allocator, &mut taken, None).expect("is free").keep(Some(&taken));
    let refusal = |port| reserve(&allocator, &mut with(port), None).expect_err("is refused")[0].to_string();
    assert_eq!(
        refusal(30080),
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    assert_eq!(
        refusal(80),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
}
