//! What a KubeletConfiguration says, the node does; what it cannot do is refused by name.

use std::fs;

use anyhow::ensure;
use e2e::{Cluster, Kubectl};
use serde_json::Value;

const CONFIGURATION: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 40
readOnlyPort: 10255
serverTLSBootstrap: true
systemReserved: {memory: 512Mi}
registerWithTaints: [{key: team, value: a, effect: PreferNoSchedule}]
podPidsLimit: 300
";

const DROP_IN: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 33
";

#[test]
fn a_node_goes_by_its_kubelet_configuration() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let folder = cluster.scratch()?;
    let (file, drop_ins) = (folder.join("kubelet.yaml"), folder.join("conf.d"));
    fs::create_dir_all(&drop_ins)?;
    fs::write(&file, format!("{CONFIGURATION}maxPod: 1\n"))?;
    let (file_flag, dir_flag) = (file.display().to_string(), drop_ins.display().to_string());
    let flags = ["--kubelet-config", &file_flag, "--kubelet-config-dir", &dir_flag];
    let refused = cluster.cox(&["up"], &flags)?.failure()?;
    ensure!(refused.contains(r#"strict decoding error: unknown field "maxPod""#), "{refused}");

    fs::write(&file, CONFIGURATION)?;
    fs::write(drop_ins.join("10-pods.conf"), DROP_IN)?;
    cluster.up(&flags)?;
    let kubectl = cluster.kubectl()?;
    let node = kubectl.field("nodes", ".items[0].metadata.name")?;
    the_node_shows_it(&kubectl, &node)?;
    the_cluster_signs_the_serving_certificate(&kubectl, &node)?;
    let pods = cluster.get(10255, "/pods")?;
    ensure!(pods.status == 200 && pods.body.contains("PodList"), "{}", pods.body);
    ensure!(cluster.get(10255, "/configz")?.status == 404, "the configuration is shown to anybody");
    cluster.finish()
}

fn the_node_shows_it(kubectl: &Kubectl, node: &str) -> anyhow::Result<()> {
    ensure!(kubectl.field(&format!("node/{node}"), ".status.allocatable.pods")? == "33");
    ensure!(kubectl.field(&format!("node/{node}"), ".spec.taints[0].key")? == "team");
    let shown = kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/configz")])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let shown = &shown["kubeletconfig"];
    ensure!(shown["maxPods"] == 33 && shown["systemReserved"]["memory"] == "512Mi", "{shown}");
    ensure!(shown["evictionHard"]["memory.available"] == "100Mi", "{shown}");
    Ok(())
}

fn the_cluster_signs_the_serving_certificate(kubectl: &Kubectl, node: &str) -> anyhow::Result<()> {
    let request = kubectl.json(&["get", "csr"])?["items"][0].take();
    let name = request["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure!(request["spec"]["signerName"] == "kubernetes.io/kubelet-serving", "{request}");
    ensure!(request["spec"]["username"] == format!("system:node:{node}"), "{request}");
    kubectl.wait(&format!("csr/{name}"), "condition=Approved")
}
