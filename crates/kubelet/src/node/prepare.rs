//! Whether the machine is as the configuration wants it, and cgroups that hold pods and system to what they may have
//! (follows `validateSystemRequirements`, `setupKernelTunables` and `enforceNodeAllocatableCgroups`).

use std::fs;
use std::io;

use apimachinery::quantity::Quantity;
use runtime::cgroups::Cgroups;
use runtime::cri::LinuxContainerResources;

use super::capacity::{Capacity, amounts};
use crate::cm::pod_cgroups::apply;
use crate::config::Config;
use crate::eviction;
use crate::kubeletconfig::{KubeletConfiguration, Table};
use crate::resources::{cpu_shares, limit_processes};
use crate::volumes::downward::Allocatable;

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

pub fn prepare(config: &Config, capacity: &Capacity) -> Result<(), Unfit> {
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
    enforce(&cgroups, configuration, capacity)
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

/// Writes the limits of `enforceNodeAllocatable` into the cgroups that it concerns.
fn enforce(cgroups: &Cgroups, of: &KubeletConfiguration, capacity: &Capacity) -> Result<(), Unfit> {
    if of.enforces("pods") {
        let limit = |e| Unfit::Enforce("Node Allocatable Cgroup", of.cgroup_root.clone(), e);
        cgroups.create(&of.cgroup_root).map_err(limit)?;
        apply(cgroups, &of.cgroup_root, &limits(capacity.absolute(), true)).map_err(limit)?;
        let reserved = processes(&of.system_reserved) + processes(&of.kube_reserved);
        let left = eviction::processes().filter(|_| reserved > 0).map(|all| all.capacity - reserved);
        limit_processes(&of.cgroup_root, left.unwrap_or(0)).map_err(limit)?;
    }
    let system = ("System Reserved Cgroup", &of.system_reserved_cgroup, &of.system_reserved);
    let kube = ("Kube Reserved Cgroup", &of.kube_reserved_cgroup, &of.kube_reserved);
    let rows = [
        ("system-reserved", system, true),
        ("system-reserved-compressible", system, false),
        ("kube-reserved", kube, true),
        ("kube-reserved-compressible", kube, false),
    ];
    for (option, (what, cgroup, table), with_memory) in rows {
        if of.enforces(option) {
            let reserved = amounts(table);
            let limit = |e| Unfit::Enforce(what, cgroup.clone(), e);
            exists(cgroups, cgroup).map_err(limit)?;
            apply(cgroups, cgroup, &limits(reserved, with_memory)).map_err(limit)?;
            if with_memory {
                limit_processes(cgroup, processes(table)).map_err(limit)?;
            }
        }
    }
    Ok(())
}

fn processes(reserved: &Table) -> i64 {
    reserved.get("pid").and_then(|text| text.parse::<Quantity>().ok()).map_or(0, |amount| amount.value())
}

/// Cgroups of the system are the operator's to make.
fn exists(cgroups: &Cgroups, cgroup: &str) -> io::Result<()> {
    if cgroups.dirs(cgroup).iter().any(|dir| dir.is_dir()) {
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
}
