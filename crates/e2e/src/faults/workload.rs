//! What runs while faults happen, and how it must be afterwards.

use anyhow::ensure;

use crate::{Cluster, Kubectl};

const MANIFEST: &str = include_str!("workload.yaml");
/// What must be rolled out again in the end.
const MUST_RUN: [&str; 3] = ["deployment/web", "statefulset/keeper", "daemonset/everywhere"];
/// How long that may take: a container that was killed often waits up to five minutes before it starts again.
pub const RECOVERY: &str = "--timeout=420s";

/// Starts everything; the port of the node where the application answers.
pub fn start(kubectl: &Kubectl) -> anyhow::Result<u16> {
    kubectl.apply(MANIFEST)?;
    rolls_out(kubectl)?;
    Ok(kubectl.field("service/web", ".spec.ports[0].nodePort")?.parse()?)
}

pub fn rolls_out(kubectl: &Kubectl) -> anyhow::Result<()> {
    let patient = kubectl.patient();
    MUST_RUN.iter().try_for_each(|object| patient.run(&["rollout", "status", object, RECOVERY]).map(drop))
}

pub fn is_well(cluster: &Cluster, kubectl: &Kubectl, port: u16) -> anyhow::Result<()> {
    rolls_out(kubectl)?;
    kubectl.run(&["wait", "nodes", "--all", "--for=condition=Ready", RECOVERY])?;
    let replicas = kubectl.field("deployment/web", ".status.readyReplicas")?;
    ensure!(replicas == "3", "{replicas} of 3 pods are ready");
    let answer = cluster.get(port, "/")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// Everything goes, and is gone.
pub fn remove(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.patient().attempt(&["delete", "-f", "-", "--wait"], MANIFEST)?.success()?;
    kubectl.patient().run(&["delete", "pods", "--all", "--wait"]).map(drop)
}
