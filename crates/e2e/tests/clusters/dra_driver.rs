//! The example DRA driver on a cluster: devices shared, made for a pod, waited for and given back, over the death of the
//! node's process.

use anyhow::ensure;
use e2e::{Cluster, Kubectl};

use crate::drivers;

const CLASS: &str = include_str!("../../../dra-example/deploy.yaml");
const PODS: &str = include_str!("manifests/dra-driver.yaml");
const GREEDY: &str = include_str!("manifests/dra-greedy.yaml");
const EXTENDED: &str = include_str!("manifests/dra-extended.yaml");
/// Of three devices, two are in use.
const NO_ROOM: &str = "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, \
    preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[test]
fn a_dra_driver_serves_shared_claims_and_pods_own() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    let driver = drivers::start(&cluster, "dra-example", ["--devices", "3"])?;
    kubectl.apply(CLASS)?;
    kubectl.apply(PODS)?;
    for pod in ["pod/one", "pod/two"] {
        kubectl.wait(pod, "condition=Ready")?;
    }
    containers_see_their_devices(&kubectl)?;
    kubectl.apply(GREEDY)?;
    kubectl.wait_for_field("pod/greedy", ".status.conditions[0].message", NO_ROOM)?;
    cluster.kill()?;
    cluster.up(&[])?;
    containers_see_their_devices(&kubectl)?;
    kubectl.run(&["delete", "pod/two"])?;
    kubectl.wait("pod/greedy", "condition=Ready")?;
    everything_goes_with_its_users(&cluster, &kubectl)?;
    drop(driver);
    cluster.finish()
}

/// The only large one of three is `device-1`; the next for whoever takes any is `device-0`.
fn containers_see_their_devices(kubectl: &Kubectl) -> anyhow::Result<()> {
    let shared = kubectl.field("resourceclaim/shared", ".metadata.uid")?;
    let seen = |pod: &str, container: &str| {
        let script = "echo ${DEVICE_0:+own} $DEVICE_1 $(ls /dev | grep -c device-)";
        kubectl.run(&["exec", pod, "-c", container, "--", "sh", "-c", script])
    };
    let (one, two, without) = (seen("one", "main")?, seen("two", "main")?, seen("one", "without")?);
    ensure!(one.trim() == format!("{shared} 1"), "{one}");
    ensure!(two.trim() == format!("own {shared} 2"), "{two}");
    ensure!(without.trim() == "0", "{without}");
    Ok(())
}

fn everything_goes_with_its_users(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run(&["delete", "pod/one", "pod/greedy"])?;
    kubectl.wait_for_field("resourceclaim/shared", ".status", "{}")?;
    kubectl.run(&["delete", "resourceclaim/shared"])?;
    an_extended_resource_is_a_device(kubectl)?;
    kubectl.run(&["wait", "--for=delete", "resourceclaims", "--all", "--timeout=60s"])?;
    let state = std::fs::read_to_string(cluster.data().join("kubelet/dra_manager_state"))?;
    ensure!(state == r#"{"claims":{}}"#, "{state}");
    Ok(())
}

/// Its claim is the pod's own; only the container that asks for the resource sees the device.
fn an_extended_resource_is_a_device(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.apply(EXTENDED)?;
    kubectl.wait("pod/extended", "condition=Ready")?;
    let status = ".status.extendedResourceClaimStatus";
    let claim = kubectl.field("pod/extended", &format!("{status}.resourceClaimName"))?;
    ensure!(claim.starts_with("extended-extended-resources-"), "{claim}");
    let request = kubectl.field("pod/extended", &format!("{status}.requestMappings[*].requestName"))?;
    ensure!(request == "container-1-request-0", "{request}");
    let uid = kubectl.field(&format!("resourceclaim/{claim}"), ".metadata.uid")?;
    let seen = |container: &str| {
        let script = "echo $DEVICE_0$DEVICE_1$DEVICE_2 $(ls /dev | grep -c device-)";
        kubectl.run(&["exec", "extended", "-c", container, "--", "sh", "-c", script])
    };
    let (without, main) = (seen("without")?, seen("main")?);
    ensure!(main.trim() == format!("{uid} 1"), "{main}");
    ensure!(without.trim() == "0", "{without}");
    kubectl.run(&["delete", "pod/extended"]).map(drop)
}
