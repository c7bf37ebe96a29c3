//! NodePorts: a host port belongs to one pod per node.

use api::view::core::hostport::HostPort;

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

struct NodePorts(Vec<HostPort>);

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let wanted: Vec<_> = pod.host_ports().collect();
    (!wanted.is_empty()).then(|| Box::new(NodePorts(wanted)) as _)
}

impl Filter for NodePorts {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = self.0.iter().any(|port| node.is_port_used(port));
        if taken { Err(Rejection::resolvable(REASON)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::{Value, json};

    use crate::testing::{node_info, pod_info};

    fn ports(port: Value) -> Value {
        json!({"containers": [{"ports": [port]}]})
    }

    fn check(used: Value, wanted: Value, fits: bool) {
        let mut node = node_info(json!({}));
        node.add_pod(Arc::new(pod_info(ports(used.clone()))));
        let pod = pod_info(ports(wanted.clone()));
        let snapshot = crate::snapshot::Snapshot::default();
        let result = super::filter(&pod, &snapshot).map_or(Ok(()), |filter| filter.filter(&node));
        assert_eq!(result.is_ok(), fits, "{used} {wanted}");
    }

    #[test]
    fn a_port_conflicts_on_the_same_address_and_protocol() {
        let port = |port: u16, ip: &str, protocol: &str| json!({"hostPort": port, "hostIP": ip, "protocol": protocol});
        check(port(80, "", "TCP"), port(80, "", ""), false);
        check(port(80, "", "TCP"), port(81, "", "TCP"), true);
        check(port(80, "", "TCP"), port(80, "", "UDP"), true);
        check(port(80, "10.0.0.1", "TCP"), port(80, "10.0.0.2", "TCP"), true);
        check(port(80, "10.0.0.1", "TCP"), port(80, "0.0.0.0", "TCP"), false);
        check(port(80, "", "TCP"), port(0, "", "TCP"), true);
    }
}
