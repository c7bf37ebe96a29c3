//! Requests and limits as cgroup settings (follows the kubelet's `cm/helpers_linux.go` and `kuberuntime_container_linux.go`).

use std::collections::BTreeMap;
use std::io;

use api::core::pod::resources::{Counted, aggregate_requests, pod_limits, pod_requests};
use api::view::core::{Container, Pod, ResourceList};
use apimachinery::json;
use apimachinery::quantity::Quantity;
use runtime::cgroups::Cgroups;
use runtime::cri;

use crate::cm::Pinned;
use crate::eviction::is_critical;
use crate::hugepages::{self, HugePages};
use crate::kubeletconfig::KubeletConfiguration;
use crate::pod::is_sidecar;

const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MILLI_PER_CPU: i64 = 1000;
/// The period of CPU quotas, in microseconds.
const QUOTA_PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1000;
/// As the kernel writes that there is none.
pub const NO_QUOTA: i64 = -1;
const KIB: i64 = 1024;

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

/// Shares as weight of version 2 (1..10000), as the kubelet does it for its own cgroups (`getCPUWeight`).
pub fn cpu_weight(shares: i64) -> i64 {
    1 + (shares.clamp(SHARES_MIN, SHARES_MAX) - SHARES_MIN) * 9999 / (SHARES_MAX - SHARES_MIN)
}

fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * QUOTA_PERIOD / MILLI_PER_CPU).max(QUOTA_MIN) }
}

/// What the machine has, as far as the settings of a container depend on it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub memory_bytes: i64,
    pub swap_bytes: i64,
    pub swap_behavior: SwapBehavior,
    pub cgroup_v2: bool,
    /// Whether the kernel ends but one process of a container that runs out of memory, and not all: with version 1 it does
    /// always.
    pub single_process_oom_kill: bool,
    /// Sizes of huge pages in bytes.
    pub huge_page_sizes: Vec<i64>,
}

/// What of the node's swap its pods may use (upstream: `memorySwap.swapBehavior`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwapBehavior {
    #[default]
    NoSwap,
    /// Containers of burstable pods get the share of it that they request of the memory.
    LimitedSwap,
}

impl Machine {
    /// Reads what the kernel tells of swap and huge pages.
    pub fn read(
        memory_bytes: i64,
        cgroup_v2: bool,
        swap_behavior: SwapBehavior,
        of: &KubeletConfiguration,
    ) -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let swap_kib = crate::node::meminfo_kib(&meminfo, "SwapTotal").unwrap_or(0);
        Machine {
            memory_bytes,
            swap_bytes: swap_kib * KIB,
            swap_behavior,
            cgroup_v2,
            single_process_oom_kill: of.single_process_oom_kill.unwrap_or(!cgroup_v2),
            huge_page_sizes: HugePages::read().into_iter().map(|pages| pages.size).collect(),
        }
    }
}

/// The cgroup settings of one container. Where it has no limit of its own the pod's holds.
pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    pinned: Option<&Pinned>,
    machine: &Machine,
) -> cri::LinuxContainerResources {
    let resources = &container.resources;
    let limits = effective_limits(pod, container);
    let requested = if resources.requests.contains_key("cpu") { &resources.requests } else { &limits };
    let mut settings = cri::LinuxContainerResources {
        cpu_period: QUOTA_PERIOD,
        cpu_quota: cpu_quota(milli(&limits, "cpu")),
        cpu_shares: cpu_shares(milli(requested, "cpu")),
        memory_limit_in_bytes: whole(&limits, "memory"),
        oom_score_adj: oom_score_adj(pod, container, machine.memory_bytes),
        hugepage_limits: hugepages::limits(&limits, &machine.huge_page_sizes),
        ..Default::default()
    };
    if let Some(pinned) = pinned {
        settings.cpuset_cpus.clone_from(&pinned.cpus);
        settings.cpuset_mems.clone_from(&pinned.memory_nodes);
        settings.cpu_quota = if pinned.own { NO_QUOTA } else { settings.cpu_quota };
    }
    if machine.cgroup_v2 && !machine.single_process_oom_kill {
        settings.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    limit_swap(&mut settings, pod, container, machine);
    settings
}

/// A container's limits of CPU, memory and huge pages, where it has none those of the pod as a whole.
pub fn effective_limits(pod: &Pod, container: &Container) -> ResourceList {
    let mut limits = container.resources.limits.clone();
    for (name, amount) in pod.spec.resources.iter().flat_map(|resources| &resources.limits) {
        if limits.get(name).is_none_or(|own| is_zero(own)) {
            limits.insert(name.clone(), amount.clone());
        }
    }
    limits
}

fn is_zero(amount: &str) -> bool {
    amount.parse::<Quantity>().is_ok_and(|amount| amount.is_zero())
}

/// Follows `configureContainerSwapResources`: with version 1 of cgroups no memory may be swapped beyond the limit.
fn limit_swap(
    settings: &mut cri::LinuxContainerResources,
    pod: &Pod,
    container: &Container,
    machine: &Machine,
) {
    if !machine.cgroup_v2 {
        settings.memory_swap_limit_in_bytes = settings.memory_limit_in_bytes;
        return;
    }
    let request = whole(&container.resources.requests, "memory");
    let limited = machine.swap_behavior == SwapBehavior::LimitedSwap
        && pod.status.qos_class == "Burstable"
        && !is_critical(pod)
        && request > 0
        && request != whole(&container.resources.limits, "memory");
    let share =
        i128::from(request) * i128::from(machine.swap_bytes) / i128::from(machine.memory_bytes.max(1));
    let swap = if limited { share } else { 0 };
    settings.unified.insert("memory.swap.max".to_owned(), swap.to_string());
}

/// That of `system-node-critical`.
const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;

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

/// The smaller a container's share of the node's memory, the sooner it is killed. What the pod requests beyond its
/// containers is theirs in equal parts; a sidecar goes no sooner than those it serves.
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod.spec.priority.is_some_and(|p| p >= NODE_CRITICAL_PRIORITY) {
        return GUARANTEED_OOM_SCORE_ADJ;
    }
    match pod.status.qos_class.as_str() {
        "Guaranteed" => GUARANTEED_OOM_SCORE_ADJ,
        "BestEffort" => BEST_EFFORT_OOM_SCORE_ADJ,
        _ => {
            let request = |container: &Container| whole(&container.resources.requests, "memory");
            let mut counted = request(container);
            let sidecar = pod.spec.init_containers.iter().any(|c| c.name == container.name && is_sidecar(c));
            if sidecar && let Some(least) = pod.spec.containers.iter().map(request).min() {
                counted = counted.max(least);
            }
            let counted = counted + memory_beyond_containers(pod);
            let adjust = 1000 - (1000 * i128::from(counted) / i128::from(memory_capacity.max(1))) as i64;
            adjust.clamp(1000 + GUARANTEED_OOM_SCORE_ADJ, BEST_EFFORT_OOM_SCORE_ADJ - 1)
        }
    }
}

/// Each container's part of the memory that the pod requests as a whole and no container by itself.
fn memory_beyond_containers(pod: &Pod) -> i64 {
    let of_pod = pod.spec.resources.as_ref().map_or(0, |resources| whole(&resources.requests, "memory"));
    if of_pod == 0 {
        return 0;
    }
    let of_containers = aggregate_requests(&json!(pod.spec)).get("memory").map_or(0, |sum| sum.value());
    let containers = pod.spec.containers.len() + pod.spec.init_containers.len();
    (of_pod - of_containers) / i64::try_from(containers.max(1)).unwrap_or(i64::MAX)
}

/// What a pod asks for as a whole, and what its cgroup is set to for that (follows `ResourceConfigForPod`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodResources {
    pub requests: ResourceList,
    pub limits: ResourceList,
    pub cgroup: cri::LinuxContainerResources,
}

impl PodResources {
    pub fn of(pod: &Pod) -> Self {
        let value = json!({"spec": pod.spec});
        let (requests, limits) = (pod_requests(&value, Counted::Spec), pod_limits(&value, Counted::Spec));
        let milli = |list: &BTreeMap<String, Quantity>| list.get("cpu").map_or(0, |q| q.milli_value());
        let mut cgroup = cri::LinuxContainerResources {
            cpu_shares: cpu_shares(milli(&requests)),
            hugepage_limits: pod_huge_pages(&requests),
            ..Default::default()
        };
        if pod.status.qos_class == "BestEffort" {
            cgroup.cpu_shares = SHARES_MIN;
        }
        if is_limited(pod, "cpu") {
            (cgroup.cpu_period, cgroup.cpu_quota) = (QUOTA_PERIOD, cpu_quota(milli(&limits)));
        }
        if is_limited(pod, "memory") {
            cgroup.memory_limit_in_bytes = limits.get("memory").map_or(0, |q| q.value());
        }
        PodResources { requests: shown(&requests), limits: shown(&limits), cgroup }
    }
}

/// Whether the pod as a whole, or every single container of it, has such a limit.
fn is_limited(pod: &Pod, name: &str) -> bool {
    let has = |limits: &ResourceList| limits.get(name).is_some_and(|amount| !is_zero(amount));
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    pod.spec.resources.as_ref().is_some_and(|resources| has(&resources.limits))
        || containers.into_iter().all(|container| has(&container.resources.limits))
}

fn pod_huge_pages(requests: &BTreeMap<String, Quantity>) -> Vec<cri::HugepageLimit> {
    let pages = requests.iter().filter_map(|(name, amount)| Some((hugepages::size_of(name)?, amount)));
    pages
        .map(|(size, amount)| cri::HugepageLimit {
            page_size: hugepages::page_size_name(size),
            limit: u64::try_from(amount.value()).unwrap_or(0),
        })
        .collect()
}

fn shown(list: &BTreeMap<String, Quantity>) -> ResourceList {
    list.iter().map(|(name, amount)| (name.clone(), amount.to_string())).collect()
}

/// The cgroup of a pod: below the root by quality of service, guaranteed pods directly.
pub fn pod_cgroup(root: &str, pod: &Pod) -> String {
    format!("{root}{}/pod{}", tier(&pod.status.qos_class), pod.metadata.uid)
}

/// The part of the path that says the quality of service.
pub fn tier(qos_class: &str) -> &'static str {
    match qos_class {
        "BestEffort" => "/besteffort",
        "Burstable" => "/burstable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::kubeletconfig::Duration;

    fn machine(cgroup_v2: bool) -> Machine {
        Machine {
            memory_bytes: 4 << 30,
            swap_bytes: 1 << 30,
            swap_behavior: SwapBehavior::LimitedSwap,
            cgroup_v2,
            single_process_oom_kill: false,
            huge_page_sizes: vec![2 << 20, 1 << 30],
        }
    }

    fn pod(qos: &str, spec: Value) -> Pod {
        apimachinery::from_value(json!({"status": {"qosClass": qos}, "spec": spec})).expect("a pod")
    }

    fn settings(qos: &str, resources: Value) -> cri::LinuxContainerResources {
        let pod = pod(qos, json!({"containers": [{"name": "a", "resources": resources}]}));
        linux_resources(&pod, &pod.spec.containers[0], None, &machine(false))
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

    #[test]
    fn a_container_with_cpus_of_its_own_has_no_quota() {
        let pod =
            pod("Guaranteed", json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "2"}}}]}));
        let settings = |own| {
            let pinned = Pinned { cpus: "2-3".into(), own, memory_nodes: "1".into() };
            linux_resources(&pod, &pod.spec.containers[0], Some(&pinned), &machine(false))
        };
        assert_eq!((settings(true).cpuset_cpus.as_str(), settings(true).cpu_quota), ("2-3", NO_QUOTA));
        assert_eq!((settings(false).cpuset_mems.as_str(), settings(false).cpu_quota), ("1", 200_000));
    }

    #[test]
    fn burstable_containers_get_the_share_of_swap_that_they_request_of_the_memory() {
        let check = |qos: &str, resources: Value, expect: &str| {
            let pod = pod(qos, json!({"containers": [{"name": "a", "resources": resources}]}));
            let it = linux_resources(&pod, &pod.spec.containers[0], None, &machine(true));
            assert_eq!(it.unified["memory.swap.max"], expect, "{qos} {resources}");
        };
        check("Burstable", json!({"requests": {"memory": "1Gi"}}), "268435456");
        check("Burstable", json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}), "0");
        check("Burstable", json!({"requests": {"cpu": "1"}}), "0");
        check("Guaranteed", json!({"requests": {"memory": "1Gi"}}), "0");
        let v1 = settings("Burstable", json!({"limits": {"memory": "1Gi"}}));
        assert_eq!(v1.memory_swap_limit_in_bytes, 1 << 30);
    }

    #[test]
    fn all_of_a_container_ends_for_want_of_memory_unless_the_node_wants_one_process_to() {
        let pod = pod("BestEffort", json!({"containers": [{"name": "a"}]}));
        let check = |machine: Machine, expect: Option<&str>| {
            let it = linux_resources(&pod, &pod.spec.containers[0], None, &machine);
            assert_eq!(it.unified.get("memory.oom.group").map(String::as_str), expect);
        };
        check(machine(true), Some("1"));
        check(Machine { single_process_oom_kill: true, ..machine(true) }, None);
        check(machine(false), None);
    }

    #[test]
    fn shares_become_weights_of_version_2() {
        let weights = [0, 2, 102, 1024, 2048, 262_144].map(cpu_weight);
        assert_eq!(weights, [1, 1, 4, 39, 79, 10_000]);
    }

    #[test]
    fn what_the_pod_has_as_a_whole_holds_for_containers_that_say_nothing() {
        let pod = pod(
            "Burstable",
            json!({"resources": {"requests": {"memory": "3Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
                "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}},
                    {"name": "b"}]}),
        );
        let of = |index: usize| linux_resources(&pod, &pod.spec.containers[index], None, &machine(false));
        assert_eq!((of(0).cpu_quota, of(0).memory_limit_in_bytes), (100_000, 3 << 30));
        assert_eq!((of(1).cpu_quota, of(1).memory_limit_in_bytes), (200_000, 3 << 30));
        // Of 2Gi that no container requests each has half.
        assert_eq!((of(0).oom_score_adj, of(1).oom_score_adj), (500, 750));
        let whole = PodResources::of(&pod).cgroup;
        assert_eq!((whole.cpu_quota, whole.memory_limit_in_bytes), (200_000, 3 << 30));
    }

    #[test]
    fn a_pod_is_limited_when_all_its_containers_are() {
        let check = |second: Value, expect: (i64, i64, i64)| {
            let first = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}});
            let containers = json!([{"name": "a", "resources": first}, {"name": "b", "resources": second}]);
            let it = PodResources::of(&pod("Burstable", json!({"containers": containers}))).cgroup;
            assert_eq!((it.cpu_shares, it.cpu_quota, it.memory_limit_in_bytes), expect);
        };
        check(json!({}), (512, 0, 0));
        check(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), (1536, 200_000, 0));
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}});
        check(full, (1536, 200_000, 2 << 30));
    }

    #[test]
    fn a_sidecar_is_killed_no_sooner_than_those_it_serves() {
        let pod = pod(
            "Burstable",
            json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]}),
        );
        assert_eq!(
            linux_resources(&pod, &pod.spec.init_containers[0], None, &machine(false)).oom_score_adj,
            750
        );
    }
}
