//! Ingresses: class, addresses, warnings, and traffic from a port of the node to a pod.

use anyhow::ensure;
use e2e::{Cluster, NODE_IP};

/// Of a cluster beside the default one, which all clusters of tests are.
const HTTP_PORT: u16 = 10081;

const OBJECTS: &str = include_str!("manifests/ingress.yaml");

#[test]
fn ingresses_lead_from_the_nodes_port_to_pods() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    cluster
        .machine()
        .until("the class is there", || Ok(kubectl.run(&["get", "ingressclass", "cox"]).is_ok()))?;
    kubectl.apply(OBJECTS)?;
    kubectl.wait("pod/server", "condition=Ready")?;
    let class = kubectl.field("ingress/server", ".spec.ingressClassName")?;
    ensure!(class == "cox", "the default class is {class:?}");
    kubectl.wait_for_field("ingress/server", ".status.loadBalancer.ingress[0].ip", NODE_IP)?;
    cluster.machine().until("the Ingress leads to the pod", || {
        Ok(cluster.get(HTTP_PORT, "/by/path/").is_ok_and(|answer| answer.status == 200))
    })?;
    ensure!(cluster.get(HTTP_PORT, "/by/path/")?.body == "served\n");
    ensure!(cluster.get(HTTP_PORT, "/elsewhere")?.status == 404);
    let by_host =
        format!("timeout 5 wget -q -O - --header 'Host: www.example.org' http://{NODE_IP}:{HTTP_PORT}/");
    let answer = kubectl.run(&["exec", "server", "--", "sh", "-c", &by_host])?;
    ensure!(answer == "served\n", "{answer}");
    for reason in ["ServiceNotFound", "SecretNotFound"] {
        let events = format!("reason={reason},involvedObject.name=vain,type=Warning");
        cluster.machine().until("the warning is there", || {
            Ok(!kubectl.run(&["get", "events", "-o", "name", "--field-selector", &events])?.is_empty())
        })?;
    }
    kubectl.run(&["delete", "ingresses", "--all"])?;
    cluster
        .machine()
        .until("nothing is routed any more", || Ok(cluster.get(HTTP_PORT, "/by/path/")?.status == 404))?;
    kubectl.run(&["delete", "pods,services", "--all", "--now"])?;
    cluster.finish()
}
