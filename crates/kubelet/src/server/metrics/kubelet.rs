//! `/metrics`: the kubelet itself (follows the kubelet's `metrics/metrics.go`).

use std::collections::BTreeMap;

use client::metrics::{head, sample};

use super::labels;
use crate::stats::Filesystem;
use crate::stats::volumes::Volume;

/// What runs, by the runtime's word.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub running_pods: usize,
    /// By the state that upstream names: `created`, `running`, `exited`, `unknown`.
    pub containers: Vec<(&'static str, usize)>,
    /// Those of the API, and static ones.
    pub desired_pods: [usize; 2],
    /// Those of them that are not over.
    pub active_pods: [usize; 2],
    pub mirror_pods: usize,
    pub ephemeral_containers: usize,
    /// Pods whose resize the node has not accepted, by the reason.
    pub pending_resizes: BTreeMap<String, usize>,
    pub resizes_in_progress: usize,
    /// 1 or 2.
    pub cgroup_version: f64,
}

/// A volume of a claim, by namespace and name of the claim.
pub type Claim<'a> = (&'a str, &'a str, &'a Volume);

pub fn kubelet(node_name: &str, version: &str, counts: &Counts, claims: &[Claim<'_>]) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, series: &[(String, f64)]| {
        head(&mut text, name, help, "gauge");
        series.iter().for_each(|(labels, value)| sample(&mut text, name, "", labels, "", *value));
    };
    let one = |labels: String, value: f64| vec![(labels, value)];
    gauge("kubelet_node_name", "The node's name.", &one(labels(&[("node", node_name)]), 1.0));
    let build = labels(&[("git_version", version), ("platform", "linux")]);
    gauge("kubernetes_build_info", "The version that runs.", &one(build, 1.0));
    let provider = one(labels(&[("provider", "cri")]), 1.0);
    gauge("kubelet_metrics_provider", "Who tells what containers use.", &provider);
    gauge(
        "kubelet_cgroup_version",
        "The version of the node's cgroups.",
        &one(String::new(), counts.cgroup_version),
    );
    let pods = one(String::new(), counts.running_pods as f64);
    gauge("kubelet_running_pods", "Pods that have a running sandbox.", &pods);
    let state = |(state, count): &(&str, usize)| (labels(&[("container_state", state)]), *count as f64);
    let containers: Vec<(String, f64)> = counts.containers.iter().map(state).collect();
    gauge("kubelet_running_containers", "Containers by their state.", &containers);
    let by_source = |counts: [usize; 2]| {
        ["", "true"]
            .map(|is_static| labels(&[("static", is_static)]))
            .into_iter()
            .zip(counts.map(|n| n as f64))
    };
    let desired: Vec<(String, f64)> = by_source(counts.desired_pods).collect();
    gauge("kubelet_desired_pods", "Pods that are to run here.", &desired);
    let active: Vec<(String, f64)> = by_source(counts.active_pods).collect();
    gauge("kubelet_active_pods", "Pods that are to run here and are not over.", &active);
    let mirrors = one(String::new(), counts.mirror_pods as f64);
    gauge("kubelet_mirror_pods", "Static pods that the API shows.", &mirrors);
    let ephemeral = one(String::new(), counts.ephemeral_containers as f64);
    gauge("kubelet_managed_ephemeral_containers", "Ephemeral containers of these pods.", &ephemeral);
    let pending = counts.pending_resizes.iter();
    let pending = pending.map(|(reason, count)| (labels(&[("reason", reason)]), *count as f64));
    let help = "Pods whose resize waits, by the reason.";
    gauge("kubelet_pod_pending_resizes", help, &pending.collect::<Vec<_>>());
    let in_progress = one(String::new(), counts.resizes_in_progress as f64);
    gauge("kubelet_pod_in_progress_resizes", "Pods that are being resized.", &in_progress);
    let of_claim = |namespace, claim| labels(&[("namespace", namespace), ("persistentvolumeclaim", claim)]);
    for (name, help, figure) in VOLUME_FIGURES {
        let series = claims
            .iter()
            .map(|(namespace, claim, volume)| (of_claim(namespace, claim), figure(&volume.fs) as f64));
        gauge(name, help, &series.collect::<Vec<_>>());
    }
    let abnormal = claims.iter().filter_map(|(namespace, claim, volume)| {
        Some((of_claim(namespace, claim), f64::from(u8::from(volume.is_abnormal?))))
    });
    let help = "Whether a claim's volume is abnormal (1) or not (0).";
    gauge("kubelet_volume_stats_health_status_abnormal", help, &abnormal.collect::<Vec<_>>());
    text
}

type Figure = fn(&Filesystem) -> u64;

const VOLUME_FIGURES: [(&str, &str, Figure); 6] = [
    ("kubelet_volume_stats_capacity_bytes", "Size of a claim's volume.", |fs| fs.capacity_bytes),
    ("kubelet_volume_stats_available_bytes", "What is free in it.", |fs| fs.available_bytes),
    ("kubelet_volume_stats_used_bytes", "What is used of it.", |fs| fs.used_bytes),
    ("kubelet_volume_stats_inodes", "Inodes of a claim's volume.", |fs| fs.inodes),
    ("kubelet_volume_stats_inodes_free", "Inodes free in it.", |fs| fs.inodes_free),
    ("kubelet_volume_stats_inodes_used", "Inodes used of it.", |fs| fs.inodes_used),
];
