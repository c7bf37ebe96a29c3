//! What a configuration must not say, in upstream's words (follows `ValidateKubeletConfiguration`). Pure.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use api::validation::is_huge_page_resource;
use apimachinery::names;
use apimachinery::quantity::Quantity;

use super::KubeletConfiguration;
use crate::userns::IDS_PER_POD;

const PORTS: std::ops::RangeInclusive<i32> = 1..=65_535;
const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Everything that is wrong.
pub fn validate(of: &KubeletConfiguration) -> Vec<String> {
    let groups = [
        numbers(of),
        pulls(of),
        images(of),
        ports(of),
        times(of),
        choices(of),
        enforcement(of),
        reserved(of),
    ];
    let rest = [reserved_memory(of), taints(of), logs(of), paths(of), thresholds(of)];
    let errors = groups.into_iter().chain(rest).flatten();
    errors.map(|why| format!("invalid configuration: {why}")).collect()
}

/// The errors whose condition holds.
fn those<const N: usize>(conditions: [(bool, String); N]) -> Vec<String> {
    conditions.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect()
}

fn negative(name: &str, value: i64) -> (bool, String) {
    (value < 0, format!("{name} {value} must not be a negative number"))
}

fn numbers(of: &KubeletConfiguration) -> Vec<String> {
    let bit = |name: &str, bit: i32| {
        (!(0..=31).contains(&bit), format!("{name} {bit} must be between 0 and 31, inclusive"))
    };
    let factor = of.memory_throttling_factor;
    let ids = of.user_namespaces.as_ref().map_or(IDS_PER_POD.into(), |users| users.ids_per_pod);
    let is_whole = u32::try_from(ids).is_ok_and(|ids| ids > 0 && ids.is_multiple_of(IDS_PER_POD));
    those([
        (of.node_lease_duration_seconds <= 0, "nodeLeaseDurationSeconds must be greater than 0".to_owned()),
        negative("eventBurst (--event-burst)", of.event_burst.into()),
        negative("eventRecordQPS (--event-qps)", of.event_record_qps.into()),
        bit("iptablesDropBit (--iptables-drop-bit)", of.iptables_drop_bit),
        bit("iptablesMasqueradeBit (--iptables-masquerade-bit)", of.iptables_masquerade_bit),
        negative("kubeAPIBurst (--kube-api-burst)", of.kube_api_burst.into()),
        negative("kubeAPIQPS (--kube-api-qps)", of.kube_api_qps.into()),
        (
            of.node_status_max_images < -1,
            format!(
                "nodeStatusMaxImages (--node-status-max-images) {} must be -1 or greater",
                of.node_status_max_images
            ),
        ),
        negative("maxOpenFiles (--max-open-files)", of.max_open_files),
        negative("maxPods (--max-pods)", of.max_pods.into()),
        (
            !(-1000..=1000).contains(&of.oom_score_adj),
            format!(
                "oomScoreAdj (--oom-score-adj) {} must be between -1000 and 1000, inclusive",
                of.oom_score_adj
            ),
        ),
        negative("podsPerCore (--pods-per-core)", of.pods_per_core.into()),
        (
            of.run_once,
            "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set".to_owned(),
        ),
        (!is_whole, format!("kubelet user namespace length {ids} is not a multiple of {IDS_PER_POD}")),
        (
            factor <= 0.0 || factor > 1.0,
            format!("memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"),
        ),
    ])
}

fn pulls(of: &KubeletConfiguration) -> Vec<String> {
    let parallel = of.max_parallel_image_pulls;
    those([
        negative("registryBurst (--registry-burst)", of.registry_burst.into()),
        negative("registryPullQPS (--registry-qps)", of.registry_pull_qps.into()),
        (
            parallel.is_some_and(|max| max < 1),
            format!("maxParallelImagePulls {} must be a positive number", parallel.unwrap_or_default()),
        ),
        (
            of.serialize_image_pulls && parallel.is_some_and(|max| max > 1),
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false".to_owned(),
        ),
    ])
}

fn images(of: &KubeletConfiguration) -> Vec<String> {
    let (high, low) = (of.image_gc_high_threshold_percent, of.image_gc_low_threshold_percent);
    let (age_min, age_max) = (of.image_minimum_gc_age, of.image_maximum_gc_age);
    let none = super::Duration::default();
    let percent = |name: &str, value: i32| {
        (!(0..=100).contains(&value), format!("{name} {value} must be between 0 and 100, inclusive"))
    };
    those([
        percent("imageGCHighThresholdPercent (--image-gc-high-threshold)", high),
        percent("imageGCLowThresholdPercent (--image-gc-low-threshold)", low),
        (
            low >= high,
            format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            ),
        ),
        (age_min < none, format!("imageMinimumGCAge {age_min} must not be negative")),
        (age_max < none, format!("imageMaximumGCAge {age_max} must not be negative")),
        (
            age_max > none && age_max <= age_min,
            format!("imageMaximumGCAge {age_max} must be greater than imageMinimumGCAge {age_min}"),
        ),
    ])
}

fn ports(of: &KubeletConfiguration) -> Vec<String> {
    let (port, healthz, read_only) = (of.port, of.healthz_port, of.read_only_port);
    let optional = |port: i32| port == 0 || PORTS.contains(&port);
    those([
        (
            !optional(healthz),
            format!("healthzPort (--healthz-port) {healthz} must be between 1 and 65535, inclusive"),
        ),
        (!PORTS.contains(&port), format!("port (--port) {port} must be between 1 and 65535, inclusive")),
        (
            !optional(read_only),
            format!("readOnlyPort (--read-only-port) {read_only} must be between 0 and 65535, inclusive"),
        ),
    ])
}

fn times(of: &KubeletConfiguration) -> Vec<String> {
    use super::Duration;
    let (total, critical) = (of.shutdown_grace_period, of.shutdown_grace_period_critical_pods);
    let (none, second) = (Duration::default(), Duration::from_secs(1));
    let too_short = |period: Duration| period < none || period > none && period < second;
    let quota = of.cpu_cfs_quota_period;
    let restart = of.crash_loop_back_off.max_container_restart_period;
    let by_priority = &of.shutdown_grace_period_by_pod_priority;
    those([
        (
            !(Duration::from_millis(1)..=second).contains(&quota),
            format!(
                "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {quota} must be between 1ms and 1sec, inclusive"
            ),
        ),
        (
            critical > total,
            format!("shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {total}"),
        ),
        (too_short(total), format!("shutdownGracePeriod {total} must be either zero or otherwise >= 1 sec")),
        (
            too_short(critical),
            format!("shutdownGracePeriodCriticalPods {critical} must be either zero or otherwise >= 1 sec"),
        ),
        (
            !by_priority.is_empty() && (total > none || critical > none),
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
                .to_owned(),
        ),
        (
            !(second..=Duration::from_secs(300)).contains(&restart),
            format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {} seconds) must be set between 1s and 300s",
                restart.signed().as_secs_f64()
            ),
        ),
    ])
}

fn choices(of: &KubeletConfiguration) -> Vec<String> {
    let swap = of.memory_swap.swap_behavior.as_str();
    let (hairpin, policy) = (of.hairpin_mode.as_str(), of.memory_reservation_policy.as_str());
    those([
        (
            !["", "NoSwap", "LimitedSwap"].contains(&swap),
            format!(r#"memorySwap.swapBehavior {swap:?} must be one of: "", "LimitedSwap" or "NoSwap""#),
        ),
        (
            !["none", "hairpin-veth", "promiscuous-bridge"].contains(&hairpin),
            format!(
                r#"option {hairpin:?} specified for hairpinMode (--hairpin-mode). Valid options are "none", "hairpin-veth" or "promiscuous-bridge""#
            ),
        ),
        (
            !["None", "TieredReservation"].contains(&policy),
            format!(
                r#"option {policy:?} specified for memoryReservationPolicy. Valid options are "None" or "TieredReservation""#
            ),
        ),
        (
            of.enable_system_log_query && !of.enable_system_log_handler,
            "enableSystemLogHandler is required for enableSystemLogQuery".to_owned(),
        ),
    ])
}

/// `enforceNodeAllocatable` and the cgroups that it needs.
fn enforcement(of: &KubeletConfiguration) -> Vec<String> {
    const FLAG: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";
    const OPTIONS: [&str; 6] = [
        "pods",
        "system-reserved",
        "system-reserved-compressible",
        "kube-reserved",
        "kube-reserved-compressible",
        "none",
    ];
    let mut errors = Vec::new();
    for [all, part] in [[OPTIONS[2], OPTIONS[1]], [OPTIONS[4], OPTIONS[3]]] {
        if of.enforces(all) && of.enforces(part) {
            errors.push(format!("both {all:?} and {part:?} cannot be specified together in {FLAG}"));
        }
    }
    let mut seen = BTreeSet::new();
    for option in &of.enforce_node_allocatable {
        if !seen.insert(option) {
            errors.push(format!("duplicated enforcements {option:?} in {FLAG}"));
            continue;
        }
        let needs = |cgroup: &str, field: &str, [one, other]: [&str; 2]| {
            cgroup
                .is_empty()
                .then(|| format!("{field} must be specified when {one:?} or {other:?} included in {FLAG}"))
        };
        match option.as_str() {
            "pods" => {}
            "system-reserved" | "system-reserved-compressible" => {
                let field = "systemReservedCgroup (--system-reserved-cgroup)";
                errors.extend(needs(&of.system_reserved_cgroup, field, [OPTIONS[1], OPTIONS[2]]));
            }
            "kube-reserved" | "kube-reserved-compressible" => {
                let field = "kubeReservedCgroup (--kube-reserved-cgroup)";
                errors.extend(needs(&of.kube_reserved_cgroup, field, [OPTIONS[3], OPTIONS[4]]));
            }
            "none" if of.enforce_node_allocatable.len() > 1 => {
                errors.push(format!(
                    "{FLAG} may not contain additional enforcements when \"none\" is specified"
                ));
            }
            "none" => {}
            _ => {
                let [first @ .., last] = OPTIONS.map(|option| format!("{option:?}"));
                let options = first.join(", ");
                errors.push(format!(
                    "option {option:?} specified for {FLAG}. Valid options are {options} or {last}"
                ));
            }
        }
    }
    errors
}

/// What is kept from pods.
fn reserved(of: &KubeletConfiguration) -> Vec<String> {
    let mut errors = Vec::new();
    let cpus = &of.reserved_system_cpus;
    if !cpus.is_empty() {
        if !of.system_reserved_cgroup.is_empty() || !of.kube_reserved_cgroup.is_empty() {
            errors.push("can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)".to_owned());
        }
        if super::cpus_of(cpus).is_none() {
            errors.push(format!(
                "unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: no list of CPUs"
            ));
        }
    }
    for (field, table) in [("systemReserved", &of.system_reserved), ("kubeReserved", &of.kube_reserved)] {
        for (name, amount) in table {
            errors.extend(reserved_amount(field, name, amount));
        }
    }
    errors
}

/// Upstream's `parseResourceList`.
fn reserved_amount(field: &str, name: &str, amount: &str) -> Option<String> {
    if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name) {
        return Some(format!("{field}: cannot reserve {name:?} resource"));
    }
    match amount.parse::<Quantity>() {
        Err(error) => {
            Some(format!("{field}: failed to parse quantity {amount:?} for {name:?} resource: {error}"))
        }
        Ok(quantity) if quantity.sign() < 0 => {
            Some(format!("{field}: resource quantity for {name:?} cannot be negative: {amount}"))
        }
        Ok(_) => None,
    }
}

fn taints(of: &KubeletConfiguration) -> Vec<String> {
    let wrong = |taint: &&api::view::core::Taint| {
        !names::is_qualified_name(&taint.key).is_empty()
            || !names::is_label_value(&taint.value).is_empty()
            || !TAINT_EFFECTS.contains(&taint.effect.as_str())
    };
    let wrong = of.register_with_taints.iter().filter(wrong);
    let wrong = wrong.map(|taint| format!("invalid taint: {}={}:{}", taint.key, taint.value, taint.effect));
    let timed = of.register_with_taints.iter().filter(|taint| taint.time_added.is_some());
    wrong.chain(timed.map(|_| "taint.TimeAdded is not nil".to_owned())).collect()
}

/// Follows `validateReservedMemoryConfiguration`.
fn reserved_memory(of: &KubeletConfiguration) -> Vec<String> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for reservation in &of.reserved_memory {
        let node = reservation.numa_node;
        for (name, amount) in &reservation.limits {
            if name != "memory" && !is_huge_page_resource(name) {
                errors.push(format!(
                    "the limit type {name:?} for NUMA node {node} is not supported, only [memory hugepages-<HugePageSize>] is accepted"
                ));
            }
            if amount.sign() == 0 {
                errors.push(format!(
                    "reserved memory may not be zero for NUMA node {node} and resource {name:?}"
                ));
            }
            if !seen.insert((node, name)) {
                errors.push(format!(
                    "the reserved memory has a duplicate value for NUMA node {node} and resource {name:?}"
                ));
            }
        }
    }
    errors
}

fn logs(of: &KubeletConfiguration) -> Vec<String> {
    let size = of.container_log_max_size.parse::<Quantity>();
    let mut errors = those([
        (
            of.container_log_max_workers < 1,
            "containerLogMaxWorkers must be greater than or equal to 1".to_owned(),
        ),
        (
            of.container_log_monitor_interval < super::Duration::from_secs(3),
            "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
                .to_owned(),
        ),
        (of.container_log_max_files <= 1, "containerLogMaxFiles must be greater than 1".to_owned()),
    ]);
    match size {
        Err(error) => errors
            .push(format!("failed to parse container log max size {:?}: {error}", of.container_log_max_size)),
        Ok(size) if size.sign() <= 0 => {
            errors.push(format!("containerLogMaxSize {:?} must be positive", of.container_log_max_size));
        }
        Ok(_) => {}
    }
    errors
}

fn paths(of: &KubeletConfiguration) -> Vec<String> {
    let dir = of.pod_logs_dir.as_str();
    let path = Path::new(dir);
    let clean: std::path::PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let is_clean =
        clean.as_os_str() == path.as_os_str() && !path.components().any(|part| part == Component::ParentDir);
    those([
        (!path.is_absolute(), format!("pod logs path {dir:?} must be absolute path")),
        (!is_clean, format!("pod logs path {dir:?} must be normalized")),
        (!dir.is_ascii(), format!("pod logs path {dir:?} mut contains ASCII characters only")),
    ])
}

fn thresholds(of: &KubeletConfiguration) -> Vec<String> {
    of.thresholds().err().map(|error| error.to_string()).into_iter().collect()
}
