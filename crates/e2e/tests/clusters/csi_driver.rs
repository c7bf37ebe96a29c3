//! The example CSI driver on a cluster: volumes made, attached, mounted, grown, modified and deleted, over the death of
//! the node's process.

use anyhow::ensure;
use e2e::{Cluster, Kubectl};

use crate::drivers;

const DRIVER: &str = include_str!("../../../csi-hostpath/deploy.yaml");
const PODS: &str = include_str!("manifests/csi-driver.yaml");

#[test]
fn a_csi_driver_serves_claims_devices_and_pods_own_volumes() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    let volumes = cluster.scratch()?.join("volumes").display().to_string();
    let driver = drivers::start(&cluster, "csi-hostpath", ["--state-dir", &volumes])?;
    kubectl.apply(DRIVER)?;
    kubectl.apply(PODS)?;
    kubectl.wait("pod/writer", "condition=Ready")?;
    containers_see_their_volumes(&kubectl)?;
    claims_grow(&kubectl)?;
    attributes_change(&kubectl)?;
    cluster.kill()?;
    cluster.up(&[])?;
    ensure!(in_writer(&kubectl, "cat /files/x")? == "hello\n");
    everything_goes_with_its_users(&kubectl)?;
    drop(driver);
    cluster.finish()
}

fn in_writer(kubectl: &Kubectl, script: &str) -> anyhow::Result<String> {
    kubectl.run(&["exec", "writer", "--", "sh", "-c", script])
}

fn containers_see_their_volumes(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said =
        in_writer(kubectl, "cat /files/x; stat -c %g /files; head -c 5 /dev/disk; echo mine > /own/y")?;
    ensure!(said == "hello\n2000\nblock", "{said}");
    let attached =
        kubectl.run(&["get", "volumeattachments", "-o", "jsonpath={.items[*].status.attached}"])?;
    ensure!(attached == "true true", "{attached}");
    Ok(())
}

fn claims_grow(kubectl: &Kubectl) -> anyhow::Result<()> {
    for claim in ["pvc/files", "pvc/disk"] {
        let patch = r#"{"spec": {"resources": {"requests": {"storage": "20Mi"}}}}"#;
        kubectl.run(&["patch", claim, "-p", patch])?;
        kubectl.wait_for_field(claim, ".status.capacity.storage", "20Mi")?;
    }
    let size = in_writer(kubectl, "blockdev --getsize64 /dev/disk")?;
    ensure!(size.trim() == (20 << 20).to_string(), "the device has {size} bytes");
    Ok(())
}

fn attributes_change(kubectl: &Kubectl) -> anyhow::Result<()> {
    let wish = |class: &str| {
        let patch = format!(r#"{{"spec": {{"volumeAttributesClassName": "{class}"}}}}"#);
        kubectl.run(&["patch", "pvc/files", "-p", &patch])
    };
    wish("impossible")?;
    kubectl.wait_for_field("pvc/files", ".status.modifyVolumeStatus.status", "Infeasible")?;
    wish("fast")?;
    kubectl.wait_for_field("pvc/files", ".status.currentVolumeAttributesClassName", "fast")?;
    let volume = kubectl.field("pvc/files", ".spec.volumeName")?;
    ensure!(kubectl.field(&format!("pv/{volume}"), ".spec.volumeAttributesClassName")? == "fast");
    Ok(())
}

fn everything_goes_with_its_users(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run(&["delete", "pod/writer", "pvc/files", "pvc/disk"])?;
    for kind in ["volumeattachments", "persistentvolumes"] {
        kubectl.run(&["wait", "--for=delete", kind, "--all", "--timeout=60s"])?;
    }
    Ok(())
}
