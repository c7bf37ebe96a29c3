//! Requests and limits as cgroup settings (follows the kubelet's `cm/helpers_linux.go` and `kuberuntime_container_linux.go`).

use std::io;

use api::view::core::{Container, Pod, ResourceList};
use apimachinery::quantity::Quantity;
use runtime::cgroups::Cgroups;
use runtime::cri;

use crate::kubeletconfig::KubeletConfiguration;

const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MILLI_PER_CPU: i64 = 1000;
/// The period of CPU quotas, in microseconds.
const QUOTA_PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1000;

/// `oom_score_adj` by quality of service (upstream: `qos/policy.go`).
const GUARANTEED_OOM_SCORE_ADJ: i64 = -997;
const BEST_EFFORT_OOM_SCORE_ADJ: i64 = 1000;

fn amount(list: &ResourceList, name: &str) -> Option<Quantity> {
    list.get(name)?.parse().ok()
}

pub fn milli(list: &ResourceList, name: &str) -> i64 {
    amount(list, name).map_or(0, |q| q.milli_value())
}

pub fn whole(list: &ResourceList, name: &str) -> i64 {
    amount(list, name).map_or(0, |q| q.value())
}

pub fn cpu_shares(milli_cpu: i64) -> i64 {
    (milli_cpu * SHARES_PER_CPU / MILLI_PER_CPU).clamp(SHARES_MIN, SHARES_MAX)
}

fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * QUOTA_PERIOD / MILLI_PER_CPU).max(QUOTA_MIN) }
}

/// The cgroup settings of one container.
pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> cri::LinuxContainerResources {
    let resources = &container.resources;
    let requested =
        if resources.requests.contains_key("cpu") { &resources.requests } else { &resources.limits };
    cri::LinuxContainerResources {
        cpu_period: QUOTA_PERIOD,
        cpu_quota: cpu_quota(milli(&resources.limits, "cpu")),
        cpu_shares: cpu_shares(milli(requested, "cpu")),
        memory_limit_in_bytes: whole(&resources.limits, "memory"),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..Default::default()
    }
}

/// Fits a container's quota to the node's: in another period, or none.
pub fn fit_quota(resources: &mut cri::LinuxContainerResources, of: &KubeletConfiguration) {
    if !of.cpu_cfs_quota {
        (resources.cpu_period, resources.cpu_quota) = (0, 0);
        return;
    }
    let period = i64::try_from(of.cpu_cfs_quota_period.signed().as_micros()).unwrap_or(QUOTA_PERIOD);
    if resources.cpu_quota > 0 {
        resources.cpu_quota = (resources.cpu_quota * period / QUOTA_PERIOD).max(QUOTA_MIN);
    }
    resources.cpu_period = period;
}

/// Holds all containers of a pod together to so many processes (`podPidsLimit`); none for -1.
pub fn limit_processes(cgroup: &str, limit: i64) -> io::Result<()> {
    if limit <= 0 {
        return Ok(());
    }
    let files = Cgroups::detect()?.dirs(cgroup).into_iter().map(|dir| dir.join("pids.max"));
    files.filter(|file| file.exists()).try_for_each(|file| std::fs::write(file, limit.to_string()))
}

/// The smaller a container's share of the node's memory, the sooner it is killed.
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    match pod.status.qos_class.as_str() {
        "Guaranteed" => GUARANTEED_OOM_SCORE_ADJ,
        "BestEffort" => BEST_EFFORT_OOM_SCORE_ADJ,
        _ => {
            let request = whole(&container.resources.requests, "memory");
            let adjust = 1000 - (1000 * i128::from(request) / i128::from(memory_capacity.max(1))) as i64;
            adjust.clamp(1000 + GUARANTEED_OOM_SCORE_ADJ, BEST_EFFORT_OOM_SCORE_ADJ - 1)
        }
    }
}

/// The cgroup of a pod: below the root by quality of service, guaranteed pods directly.
pub fn pod_cgroup(root: &str, pod: &Pod) -> String {
    let tier = match pod.status.qos_class.as_str() {
        "BestEffort" => "/besteffort",
        "Burstable" => "/burstable",
        _ => "",
    };
    format!("{root}{tier}/pod{}", pod.metadata.uid)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::kubeletconfig::Duration;

    fn settings(qos: &str, resources: apimachinery::Value) -> cri::LinuxContainerResources {
        let pod: Pod = serde_json::from_value(json!({"status": {"qosClass": qos},
            "spec": {"containers": [{"name": "a", "resources": resources}]}}))
        .expect("a pod");
        linux_resources(&pod, &pod.spec.containers[0], 4 << 30)
    }

    #[test]
    fn requests_become_shares_and_limits_become_quotas() {
        let it = settings(
            "Burstable",
            json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "2Gi"}}),
        );
        assert_eq!((it.cpu_shares, it.cpu_quota, it.cpu_period), (256, 150_000, 100_000));
        assert_eq!((it.memory_limit_in_bytes, it.oom_score_adj), (2 << 30, 750));
    }

    #[test]
    fn quotas_follow_the_nodes_period() {
        let check = |of: KubeletConfiguration, expect: (i64, i64)| {
            let mut it = settings("Burstable", json!({"limits": {"cpu": "1500m"}}));
            fit_quota(&mut it, &of);
            assert_eq!((it.cpu_quota, it.cpu_period), expect);
        };
        let own = KubeletConfiguration::default();
        check(own.clone(), (150_000, 100_000));
        check(
            KubeletConfiguration { cpu_cfs_quota_period: Duration::from_millis(5), ..own.clone() },
            (7_500, 5_000),
        );
        check(KubeletConfiguration { cpu_cfs_quota: false, ..own }, (0, 0));
    }

    #[test]
    fn without_requests_the_least_is_given_and_the_limit_counts_as_request() {
        let it = settings("BestEffort", json!({}));
        assert_eq!(
            (it.cpu_shares, it.cpu_quota, it.memory_limit_in_bytes, it.oom_score_adj),
            (2, 0, 0, 1000)
        );
        assert_eq!(settings("Guaranteed", json!({"limits": {"cpu": "2"}})).cpu_shares, 2048);
    }
}
