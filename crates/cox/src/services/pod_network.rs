//! The runtime's view of the pod network: the built-in one, or that of CNI plugins.

use std::net::IpAddr;

use network::Protocol;
use network::cni::Cni;
use network::pod_network::{Attach, Bandwidth, HostPort};
use runtime::{PodNetwork, PodNetworkRequest, PodPortMapping};

/// Connects sandboxes once the node's addresses are known; until then it makes them wait.
pub struct BuiltIn {
    network: tokio::sync::watch::Receiver<Option<network::PodNetwork>>,
}

impl BuiltIn {
    pub fn new(network: tokio::sync::watch::Receiver<Option<network::PodNetwork>>) -> Self {
        BuiltIn { network }
    }

    async fn network(&self) -> Result<network::PodNetwork, String> {
        let mut network = self.network.clone();
        let ready = network
            .wait_for(Option::is_some)
            .await
            .map_err(|_| "the pod network did not start".to_owned())?;
        Ok(ready.clone().expect("waited for it"))
    }
}

#[async_trait::async_trait]
impl PodNetwork for BuiltIn {
    async fn attach(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        let host_ports = pod.port_mappings.iter().map(host_port).collect::<Result<_, _>>()?;
        let bandwidth = Bandwidth::of(&pod.annotations).map_err(|e| e.to_string())?;
        let attach =
            Attach { sandbox_id: pod.sandbox_id.clone(), netns: pod.netns.clone(), host_ports, bandwidth };
        self.network().await?.attach(attach).await.map_err(|e| e.to_string())
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), String> {
        self.network().await?.detach(sandbox_id).await.map_err(|e| e.to_string())
    }
}

/// Pods connected by plugins.
pub struct Plugins(pub Cni);

#[async_trait::async_trait]
impl PodNetwork for Plugins {
    async fn attach(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        let request = network::cni::Attach {
            sandbox_id: pod.sandbox_id.clone(),
            netns: pod.netns.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            host_ports: pod.port_mappings.iter().map(host_port).collect::<Result<_, _>>()?,
            bandwidth: Bandwidth::of(&pod.annotations).map_err(|e| e.to_string())?,
        };
        self.0.attach(&request).await.map_err(|e| e.to_string())
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), String> {
        self.0.detach(sandbox_id).await.map_err(|e| e.to_string())
    }
}

fn host_port(mapping: &PodPortMapping) -> Result<HostPort, String> {
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("hostIP {text:?} is not an address"))?),
    };
    Ok(HostPort {
        host_ip,
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: match mapping.protocol {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
    })
}

/// For a runtime that is only to remove what it has: links go with the network's own teardown.
pub struct Detached;

#[async_trait::async_trait]
impl PodNetwork for Detached {
    async fn attach(&self, _: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        Err("the cluster is being stopped".to_owned())
    }

    async fn detach(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
