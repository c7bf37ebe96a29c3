//! Which port of a pod a Service's port means (follows upstream's `FindPort`).

use api::view::core::{Pod, Service, ServicePort};
use api::view::discovery::EndpointPort;
use apimachinery::Value;

/// A number as it is; a name as the pod's container port of that name and protocol, init containers that go on
/// running included.
pub fn find_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        Value::Number(number) => match number.as_u64() {
            // Unset: the port's own number.
            Some(0) => Some(port.port),
            number => number.and_then(|n| u16::try_from(n).ok()),
        },
        Value::String(name) => named(pod, name, protocol(&port.protocol)),
        _ => Some(port.port),
    }
}

fn named(pod: &Pod, name: &str, wanted: &str) -> Option<u16> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    ports.find(|p| p.name == name && protocol(&p.protocol) == wanted).map(|p| p.container_port)
}

fn protocol(written: &str) -> &str {
    if written.is_empty() { "TCP" } else { written }
}

/// The ports at which this pod serves the Service; those it does not have are left out.
pub fn named_ports_of(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone()),
                protocol: Some(protocol(&port.protocol).to_owned()),
                port: Some(find_port(pod, port)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}
