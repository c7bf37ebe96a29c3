//! Every controller in one table.

use std::sync::Arc;

use client::{Client, Informers, QueueMetrics};
use ipnet::IpNet;
use jiff::SignedDuration;

use crate::controller::Controller;
use crate::nodeipam::NodeCidrMaskSizes;
use crate::{
    attachdetach, bootstrap, certificates, clusterroleaggregation, cronjob, daemonset, deployment,
    devicetainteviction, disruption, endpoint, endpointslice, endpointslicemirroring, ephemeral, expand,
    garbagecollector, ingress, job, namespace, nodeipam, nodelifecycle, persistentvolume, podautoscaler,
    podgc, pvcprotection, pvprotection, replicaset, resourceclaim, resourcequota, rootca, serviceaccount,
    servicecidrs, serviceloadbalancer, statefulset, tainteviction, ttlafterfinished, vacprotection,
    validatingadmissionpolicystatus,
};

/// What controllers need to know about the cluster.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The certificate bundle, PEM, that `kube-root-ca.crt` publishes.
    pub root_ca: String,
    /// Who signs requests for certificates; none where others do.
    pub signing: Option<SigningAuthority>,
    /// Where pods' addresses come from, one CIDR per family; none leaves `spec.podCIDR` of nodes to others.
    pub cluster_cidrs: Vec<IpNet>,
    /// How much of them a node gets.
    pub node_cidr_mask_sizes: NodeCidrMaskSizes,
    /// Controllers of the catalogue that are not to run.
    pub disabled: Vec<&'static str>,
    /// What their queues are measured by.
    pub queues: Arc<QueueMetrics>,
    /// What the syncs of Jobs are measured by.
    pub jobs: Arc<job::JobMetrics>,
}

/// An authority's certificate and key, PEM.
#[derive(Clone)]
pub struct SigningAuthority {
    pub certificate: String,
    pub key: String,
    /// How long what it signs holds at most (upstream: `--cluster-signing-duration`).
    pub duration: SignedDuration,
}

impl std::fmt::Debug for SigningAuthority {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningAuthority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// One controller.
pub struct Row {
    /// Also the source of its events.
    pub name: &'static str,
    /// Its service account in kube-system, whose rights are those of the ClusterRole `system:controller:ACCOUNT`.
    pub account: &'static str,
    pub new: fn(&Config, &Informers, &Client) -> Box<dyn Controller>,
    /// How many keys are worked on at once (upstream: the `--concurrent-*-syncs` flags).
    pub workers: usize,
}

const fn row(
    name: &'static str,
    account: &'static str,
    new: fn(&Config, &Informers, &Client) -> Box<dyn Controller>,
    workers: usize,
) -> Row {
    Row { name, account, new, workers }
}

#[rustfmt::skip]
pub static CATALOGUE: &[Row] = &[
    row("namespace-controller", "namespace-controller", namespace::new, 10),
    row("service-account-controller", "service-account-controller", serviceaccount::new, 1),
    row("root-ca-cert-publisher", "root-ca-cert-publisher", rootca::new, 1),
    row("deployment-controller", "deployment-controller", deployment::new, 5),
    row("replicaset-controller", "replicaset-controller", replicaset::new, 5),
    row("replicationcontroller-controller", "replication-controller", replicaset::replication_controllers, 5),
    row("daemonset-controller", "daemon-set-controller", daemonset::new, 2),
    row("statefulset-controller", "statefulset-controller", statefulset::new, 5),
    row("disruption-controller", "disruption-controller", disruption::new, 1),
    row("stale-pod-disruption-controller", "disruption-controller", disruption::stale, 1),
    row("ttl-after-finished-controller", "ttl-after-finished-controller", ttlafterfinished::new, 5),
    row("horizontal-pod-autoscaler", "horizontal-pod-autoscaler", podautoscaler::new, 5),
    // Upstream: `--concurrent-resource-claim-syncs`.
    row("resourceclaim-controller", "resource-claim-controller", resourceclaim::new, 50),
    row("resourcequota-controller", "resourcequota-controller", resourcequota::new, 5),
    row("cronjob-controller", "cronjob-controller", cronjob::new, 5),
    // One at a time, as upstream: two claims could ask for one volume.
    row("persistentvolume-controller", "persistent-volume-binder", persistentvolume::new, 1),
    row("attachdetach-controller", "attachdetach-controller", attachdetach::new, 5),
    row("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral::new, 5),
    row("persistentvolume-expander-controller", "expand-controller", expand::new, 1),
    row("pvc-protection-controller", "pvc-protection-controller", pvcprotection::new, 1),
    row("pv-protection-controller", "pv-protection-controller", pvprotection::new, 1),
    row("volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", vacprotection::new, 1),
    row("job-controller", "job-controller", job::new, 5),
    row("endpoint-controller", "endpoint-controller", endpoint::new, 5),
    row("endpointslice-controller", "endpointslice-controller", endpointslice::new, 5),
    row("endpointslicemirroring-controller", "endpointslicemirroring-controller", endpointslicemirroring::new, 5),
    row("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", clusterroleaggregation::new, 5),
    row("garbage-collector-controller", "generic-garbage-collector", garbagecollector::new, 20),
    row("node-controller", "node-controller", nodelifecycle::new, 8),
    row("taint-eviction-controller", "node-controller", tainteviction::new, 8),
    row("device-taint-eviction-controller", "device-taint-eviction-controller", devicetainteviction::new, 8),
    // One at a time: two could give out the same CIDR.
    row("cidrAllocator", "node-controller", nodeipam::new, 1),
    row("service-cidr-controller", "service-cidrs-controller", servicecidrs::new, 1),
    row("service-lb-controller", "service-controller", serviceloadbalancer::new, 1),
    row("certificatesigningrequest-approving-controller", "certificate-controller", certificates::approving, 1),
    row("certificatesigningrequest-signing-controller", "certificate-controller", certificates::signing, 5),
    row("certificatesigningrequest-cleaner-controller", "certificate-controller", certificates::cleaning, 1),
    row("bootstrap-signer-controller", "bootstrap-signer", bootstrap::signer, 1),
    row("token-cleaner-controller", "token-cleaner", bootstrap::cleaner, 1),
    row("ingress-controller", "ingress-controller", ingress::new, 1),
    row("pod-garbage-collector", "pod-garbage-collector", podgc::new, 1),
    row(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        validatingadmissionpolicystatus::new,
        5,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_a_name_of_its_own_and_workers() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        assert!(CATALOGUE.iter().all(|row| row.workers > 0));
    }
}
