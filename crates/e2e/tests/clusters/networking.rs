//! Services from pods and from the node, names, the node itself, and what has no endpoints.

use anyhow::ensure;
use e2e::{Cluster, Kubectl, NODE_IP, Runtime};

const PODS: &str = include_str!("manifests/networking.yaml");

#[test]
fn services_names_and_addresses() -> anyhow::Result<()> {
    services_names_and_addresses_on(Runtime::BuiltIn)
}

#[test]
fn services_names_and_addresses_with_containerd() -> anyhow::Result<()> {
    services_names_and_addresses_on(Runtime::Containerd)
}

fn services_names_and_addresses_on(runtime: Runtime) -> anyhow::Result<()> {
    let cluster = Cluster::start_on(runtime, &["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    kubectl.apply(PODS)?;
    for pod in ["server", "client", "on-node"] {
        kubectl.wait(&format!("pod/{pod}"), "condition=Ready")?;
    }
    let port: u16 = kubectl.field("service/server", ".spec.ports[0].nodePort")?.parse()?;
    cluster.machine().until("the Service answers", || Ok(cluster.get(port, "/").is_ok()))?;
    let server = kubectl.field("pod/server", ".status.podIP")?;
    let cluster_ip = kubectl.field("service/server", ".spec.clusterIP")?;

    let node_port = format!("{NODE_IP}:{port}");
    let names = ["server", "server.default", "server.default.svc.cluster.local", "alone.headless"];
    let addresses = [server.as_str(), cluster_ip.as_str(), node_port.as_str()];
    for target in names.into_iter().chain(addresses) {
        from_pod(&kubectl, "client", target)?;
    }
    // A pod reaches itself through its own Service, and one on the node's network reaches both.
    from_pod(&kubectl, "server", "server")?;
    from_pod(&kubectl, "on-node", &cluster_ip)?;
    from_pod(&kubectl, "on-node", "server.default.svc.cluster.local")?;
    let from_node = cluster.get_from(format!("{cluster_ip}:80").parse()?, "/")?;
    ensure!(from_node.body == "served\n", "{from_node:?}");

    what_has_no_endpoints_refuses(&kubectl)?;
    the_node_is_reached(&kubectl)?;
    names_are_answered_as_kubernetes_does(&kubectl, &cluster_ip)?;
    kubectl.run(&["delete", "pods,services", "--all", "--now"])?;
    cluster.finish()
}

fn in_pod(kubectl: &Kubectl, pod: &str, script: &str) -> anyhow::Result<String> {
    kubectl.run(&["exec", pod, "--", "sh", "-c", script])
}

fn from_pod(kubectl: &Kubectl, pod: &str, target: &str) -> anyhow::Result<()> {
    let answer = in_pod(kubectl, pod, &format!("timeout 5 wget -q -O - http://{target}/"))?;
    ensure!(answer == "served\n", "{pod} asks {target}: {answer}");
    Ok(())
}

/// At once, not after a timeout.
fn what_has_no_endpoints_refuses(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = in_pod(kubectl, "client", "timeout 5 wget -O - http://nobody/ 2>&1 || true")?;
    ensure!(said.contains("refused"), "{said}");
    Ok(())
}

/// A pod on the node's network is reached at the node's address.
fn the_node_is_reached(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = in_pod(kubectl, "client", &format!("echo hello | nc -w 5 {NODE_IP} 7000"))?;
    ensure!(said == "hello\n", "{said:?}");
    Ok(())
}

fn names_are_answered_as_kubernetes_does(kubectl: &Kubectl, cluster_ip: &str) -> anyhow::Result<()> {
    let answer = in_pod(kubectl, "client", "nslookup -type=a server.default.svc.cluster.local")?;
    ensure!(answer.contains(cluster_ip), "{answer}");
    let record = in_pod(kubectl, "client", "nslookup -type=srv _http._tcp.server.default.svc.cluster.local")?;
    ensure!(record.contains("server.default.svc.cluster.local"), "{record}");
    let reverse = in_pod(kubectl, "client", &format!("nslookup {cluster_ip}"))?;
    ensure!(reverse.contains("server.default.svc.cluster.local"), "{reverse}");
    let missing = in_pod(kubectl, "client", "nslookup nosuch.default.svc.cluster.local 2>&1 || true")?;
    ensure!(missing.contains("NXDOMAIN"), "{missing}");
    Ok(())
}
