//! Services from pods and from the node, names, the node itself, and what has no endpoints.

use anyhow::ensure;
use e2e::{Cluster, Kubectl, NODE_IP, Runtime};

const PODS: &str = include_str!("manifests/networking.yaml");
/// A range of Service addresses beside the cluster's own, and a Service with one of them.
const RANGE: &str = include_str!("manifests/servicecidr.yaml");

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
    cluster.until_served(port)?;
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
    another_range_gives_addresses_and_stays_while_they_are_held(&cluster, &kubectl)?;
    rules_that_others_flush_come_back(&cluster, &cluster_ip)?;
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

fn another_range_gives_addresses_and_stays_while_they_are_held(
    cluster: &Cluster,
    kubectl: &Kubectl,
) -> anyhow::Result<()> {
    let (range, service) = RANGE.split_once("---\n").expect("it holds two objects");
    kubectl.apply(range)?;
    kubectl.wait("servicecidr/more", "condition=Ready")?;
    kubectl.apply(service)?;
    cluster
        .machine()
        .until("the Service answers", || Ok(from_pod(kubectl, "client", "203.0.113.10").is_ok()))?;
    kubectl.run(&["delete", "servicecidr", "more", "--wait=false"])?;
    kubectl.wait_for_field("servicecidr/more", ".status.conditions[0].reason", "Terminating")?;
    let refusal = kubectl
        .attempt(&["apply", "-f", "-"], &service.replace("113.10", "113.11").replace("more", "late"))?;
    let refusal = refusal.failure()?;
    ensure!(refusal.contains("failed to allocate IP 203.0.113.11"), "{refusal}");
    Ok(())
}

fn rules_that_others_flush_come_back(cluster: &Cluster, cluster_ip: &str) -> anyhow::Result<()> {
    let machine = cluster.machine();
    let rules = |what: &[&str]| machine.run("nft", what)?.success();
    let own = format!("coxswain-{}", cluster.name());
    let is_own = |table: &&str| table.split(' ').any(|word| word.starts_with(&own));
    // CNI plugins make tables too, which are theirs. What is in sets and maps has no order.
    let all = || -> anyhow::Result<Vec<String>> {
        let listed = rules(&["list", "ruleset"])?;
        let tables = listed.split("\ntable ").filter(is_own);
        let words = tables.flat_map(str::split_whitespace).map(|word| word.trim_matches(','));
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.sort_unstable();
        Ok(words)
    };
    let before = all()?;
    ensure!(!before.is_empty(), "the cluster has no rules");
    let proxy = format!("{own}-proxy");
    for harm in [&["flush", "ruleset"][..], &["delete", "table", "inet", &proxy]] {
        rules(harm)?;
        machine.until("the rules are back", || Ok(all()? == before))?;
        ensure!(cluster.get_from(format!("{cluster_ip}:80").parse()?, "/")?.body == "served\n");
    }
    Ok(())
}
