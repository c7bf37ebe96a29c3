//! Whether the machine is as the configuration wants it, and cgroups that hold pods and system to what they may have
//! (follows `validateSystemRequirements`, `setupKernelTunables` and `enforceNodeAllocatableCgroups`).

use std::fs;
use std::io;
use std::time::Duration;

use api::view::core::ObjectReference;
use client::EventRecorder;
use client::event::EventType;
use runtime::cgroups::Cgroups;
use runtime::cri::{HugepageLimit, LinuxContainerResources};

use super::capacity::{Capacity, amount, amounts};
use crate::cm::pod_cgroups::apply;
use crate::config::Config;
use crate::eviction;
use crate::hugepages::{HugePages, page_size_name};
use crate::kubeletconfig::KubeletConfiguration;
use crate::resources::{cpu_shares, limit_processes};
use crate::volumes::downward::Allocatable;

/// The reason of events about limits that are in force.
pub const ENFORCED: &str = "NodeAllocatableEnforced";

/// What keeps the kubelet from running on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("cgroups cannot be found: {0}")]
    Cgroups(io::Error),
    #[error(
        "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release; set failCgroupV1 to false to run here all the same"
    )]
    CgroupV1,
    #[error(
        "invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1"
    )]
    GroupKill,
    #[error(
        "running with swap on is not supported, please disable swap or set failSwapOn to false in the KubeletConfiguration. /proc/swaps contained: {0:?}"
    )]
    Swap(Vec<String>),
    #[error("invalid kernel flag: {0}, expected value: {1}, actual value: {2}")]
    KernelFlag(&'static str, i64, String),
    #[error("Failed to enforce {0} Limits on {1:?}: {2}")]
    Enforce(&'static str, String, io::Error),
}

/// What was enforced on the system's cgroups, in upstream's words.
pub fn prepare(config: &Config) -> Result<Vec<String>, Unfit> {
    let configuration = &config.kubelet;
    let cgroups = Cgroups::detect().map_err(Unfit::Cgroups)?;
    if configuration.fail_cgroup_v1 && !cgroups.is_v2() {
        return Err(Unfit::CgroupV1);
    }
    if configuration.single_process_oom_kill == Some(false) && !cgroups.is_v2() {
        return Err(Unfit::GroupKill);
    }
    if configuration.fail_swap_on {
        check_swap(&fs::read_to_string("/proc/swaps").unwrap_or_default())?;
    }
    if configuration.protect_kernel_defaults {
        check_kernel(|path| fs::read_to_string(path).unwrap_or_default())?;
    }
    hold_system(&cgroups, configuration)
}

/// The first line is the heading.
fn check_swap(swaps: &str) -> Result<(), Unfit> {
    let used: Vec<String> = swaps.lines().skip(1).map(str::to_owned).collect();
    if used.is_empty() { Ok(()) } else { Err(Unfit::Swap(used)) }
}

/// What upstream's kubelet wants of the kernel.
const KERNEL_FLAGS: [(&str, &str, i64); 6] = [
    ("vm/overcommit_memory", "/proc/sys/vm/overcommit_memory", 1),
    ("vm/panic_on_oom", "/proc/sys/vm/panic_on_oom", 0),
    ("kernel/panic", "/proc/sys/kernel/panic", 10),
    ("kernel/panic_on_oops", "/proc/sys/kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", "/proc/sys/kernel/keys/root_maxbytes", 25_000_000),
];

fn check_kernel(read: impl Fn(&str) -> String) -> Result<(), Unfit> {
    for (name, path, expected) in KERNEL_FLAGS {
        let actual = read(path).trim().to_owned();
        if actual.parse() != Ok(expected) {
            return Err(Unfit::KernelFlag(name, expected, actual));
        }
    }
    Ok(())
}

/// Writes the limits of `enforceNodeAllocatable` into the cgroups of the system and of Kubernetes.
fn hold_system(cgroups: &Cgroups, of: &KubeletConfiguration) -> Result<Vec<String>, Unfit> {
    let mut told = Vec::new();
    let system = ("system", "System Reserved Cgroup", &of.system_reserved_cgroup, &of.system_reserved);
    let kube = ("kube", "Kube Reserved Cgroup", &of.kube_reserved_cgroup, &of.kube_reserved);
    let rows = [
        ("system-reserved", system, true),
        ("system-reserved-compressible", system, false),
        ("kube-reserved", kube, true),
        ("kube-reserved-compressible", kube, false),
    ];
    for (option, (whose, what, cgroup, table), with_memory) in rows {
        if of.enforces(option) {
            let reserved = amounts(table);
            let limit = |e| Unfit::Enforce(what, cgroup.clone(), e);
            exists(cgroups, cgroup).map_err(limit)?;
            apply(cgroups, cgroup, &limits(reserved, with_memory)).map_err(limit)?;
            if with_memory {
                limit_processes(cgroup, amount(table, "pid")).map_err(limit)?;
            }
            told.push(format!("Updated limits on {whose} reserved cgroup {cgroup}"));
        }
    }
    Ok(told)
}

/// What all pods together may use: what is not reserved, or all there is where nothing is to be enforced. What a cgroup has
/// of the CPU by itself would be too little for them.
#[derive(Debug)]
pub struct PodLimits {
    cgroup: String,
    resources: LinuxContainerResources,
    /// None where the kernel does not tell how many there may be.
    processes: Option<i64>,
}

impl PodLimits {
    pub fn of(configuration: &KubeletConfiguration, capacity: &Capacity) -> Self {
        let pages = HugePages::read();
        let processes = eviction::processes().map(|processes| processes.capacity);
        PodLimits::among(configuration, capacity, &pages, processes)
    }

    fn among(
        of: &KubeletConfiguration,
        capacity: &Capacity,
        pages: &[HugePages],
        processes: Option<i64>,
    ) -> Self {
        let reserved = amount(&of.system_reserved, "pid") + amount(&of.kube_reserved, "pid");
        let (most, reserved) =
            if of.enforces("pods") { (capacity.absolute(), reserved) } else { (capacity.whole(), 0) };
        // None of them can be reserved.
        let pages = pages.iter().map(|pages| HugepageLimit {
            page_size: page_size_name(pages.size),
            limit: u64::try_from(pages.bytes()).unwrap_or(0),
        });
        PodLimits {
            cgroup: of.cgroup_root.clone(),
            resources: LinuxContainerResources { hugepage_limits: pages.collect(), ..limits(most, true) },
            processes: processes.map(|all| all - reserved),
        }
    }

    /// Pods that are here already may use more than they may: then evictions make room until it works.
    pub async fn enforce(self, recorder: EventRecorder, node: ObjectReference) {
        const RETRY: Duration = Duration::from_secs(60);
        while let Err(error) = self.write() {
            let message = format!("Failed to update Node Allocatable Limits {:?}: {error}", self.cgroup);
            recorder.event(&node, EventType::Warning, "FailedNodeAllocatableEnforcement", message);
            tokio::time::sleep(RETRY).await;
        }
        recorder.event(
            &node,
            EventType::Normal,
            ENFORCED,
            "Updated Node Allocatable limit across pods".to_owned(),
        );
    }

    fn write(&self) -> io::Result<()> {
        let cgroups = Cgroups::detect()?;
        cgroups.create(&self.cgroup)?;
        apply(&cgroups, &self.cgroup, &self.resources)?;
        limit_processes(&self.cgroup, self.processes.unwrap_or(0))
    }
}

/// Cgroups of the system are the operator's to make.
fn exists(cgroups: &Cgroups, cgroup: &str) -> io::Result<()> {
    if cgroups.exists(cgroup) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "cgroup does not exist"))
}

/// Zero leaves a limit as it is.
fn limits(of: Allocatable, with_memory: bool) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: if of.milli_cpu == 0 { 0 } else { cpu_shares(of.milli_cpu) },
        memory_limit_in_bytes: if with_memory { of.memory_bytes } else { 0 },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_found_below_the_heading() {
        let heading = "Filename\tType\tSize\tUsed\tPriority\n";
        assert!(check_swap(heading).is_ok());
        let swaps = format!("{heading}/dev/sda2 partition 1 0 -2\n");
        assert!(check_swap(&swaps).is_err());
    }

    #[test]
    fn the_kernel_must_be_as_upstream_wants_it() {
        let good = |path: &str| {
            let row = KERNEL_FLAGS.iter().find(|(_, known, _)| *known == path).expect("a known path");
            format!("{}\n", row.2)
        };
        assert!(check_kernel(good).is_ok());
        let bad =
            |path: &str| if path.ends_with("overcommit_memory") { "0\n".to_owned() } else { good(path) };
        let error = check_kernel(bad).expect_err("refuses").to_string();
        assert_eq!(error, "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0");
    }

    #[test]
    fn pods_may_use_what_is_not_reserved_or_all_where_nothing_is_enforced() {
        const GIB: i64 = 1 << 30;
        let reserved = [("memory", "1Gi"), ("cpu", "500m"), ("pid", "100")];
        let check = |enforced: &[&str], expect: (i64, i64, u64, Option<i64>)| {
            let given = KubeletConfiguration {
                system_reserved: reserved.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
                enforce_node_allocatable: enforced.iter().map(|&name| name.to_owned()).collect(),
                ..Default::default()
            };
            let capacity = super::super::capacity::of(&given, &[], [2, 4 * GIB, 0]);
            let pages = [HugePages { size: 2 << 20, count: 5 }];
            let limits = PodLimits::among(&given, &capacity, &pages, Some(1000));
            let LinuxContainerResources { memory_limit_in_bytes, cpu_shares, hugepage_limits, .. } =
                limits.resources;
            assert_eq!(
                (memory_limit_in_bytes, cpu_shares, hugepage_limits[0].limit, limits.processes),
                expect
            );
        };
        check(&["pods"], (3 * GIB, 1536, 10 << 20, Some(900)));
        check(&["none"], (4 * GIB, 2048, 10 << 20, Some(1000)));
    }
}
