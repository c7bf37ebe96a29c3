//! Ports that pods take of their node's (follows the scheduler's `HostPortInfo` and `GetHostPorts`).

use super::{ContainerPort, PodSpec};

/// The address that means every address of the node.
const ANY_ADDRESS: &str = "0.0.0.0";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    address: String,
    protocol: String,
    port: u16,
}

impl HostPort {
    fn new(port: &ContainerPort) -> Self {
        let or = |value: &str, default: &str| if value.is_empty() { default } else { value }.to_owned();
        HostPort {
            address: or(&port.host_ip, ANY_ADDRESS),
            protocol: or(&port.protocol, "TCP"),
            port: port.host_port,
        }
    }

    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY_ADDRESS || other.address == ANY_ADDRESS)
    }
}

/// What a pod takes for as long as it runs.
pub fn host_ports(spec: &PodSpec) -> impl Iterator<Item = HostPort> {
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports.filter(|port| port.host_port > 0).map(HostPort::new)
}
