//! What the machine has, and how much of it pods may have (follows `GetNodeAllocatableReservation`).

use std::fs;

use apimachinery::quantity::Quantity;

use super::Error;
use crate::cm::count_cpus;
use crate::config::Config;
use crate::eviction::{Signal, Threshold};
use crate::hugepages::HugePages;
use crate::kubeletconfig::{KubeletConfiguration, Table, cpus_of};
use crate::volumes::downward::Allocatable;

#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    pub pods: u32,
    /// Kept for the system and for Kubernetes.
    reserved: Allocatable,
    /// Kept free by hard eviction thresholds.
    kept_free: Allocatable,
    /// Memory that is set aside in huge pages, of which pods ask by name.
    huge_pages_bytes: i64,
    /// None of it is memory that pods may request.
    pub swap_bytes: i64,
}

impl Capacity {
    /// What all pods together may request.
    pub fn allocatable(&self) -> Allocatable {
        let huge = Allocatable { memory_bytes: self.huge_pages_bytes, ..Allocatable::default() };
        less(less(self.absolute(), self.kept_free), huge)
    }

    /// Bytes of memory that are kept from pods by reservations and eviction thresholds.
    pub fn withheld_memory(&self) -> i64 {
        self.reserved.memory_bytes.saturating_add(self.kept_free.memory_bytes)
    }

    /// What all pods together may use: of what is kept free they may take, until they are evicted.
    pub fn absolute(&self) -> Allocatable {
        less(self.whole(), self.reserved)
    }

    /// All there is.
    pub fn whole(&self) -> Allocatable {
        Allocatable {
            milli_cpu: self.cpus * 1000,
            memory_bytes: self.memory_bytes,
            ephemeral_storage_bytes: self.storage_bytes,
        }
    }
}

fn less(from: Allocatable, kept: Allocatable) -> Allocatable {
    let rest = |from: i64, kept: i64| from.saturating_sub(kept).max(0);
    Allocatable {
        milli_cpu: rest(from.milli_cpu, kept.milli_cpu),
        memory_bytes: rest(from.memory_bytes, kept.memory_bytes),
        ephemeral_storage_bytes: rest(from.ephemeral_storage_bytes, kept.ephemeral_storage_bytes),
    }
}

pub fn capacity(config: &Config, thresholds: &[Threshold]) -> Result<Capacity, Error> {
    const MEMINFO: &str = "/proc/meminfo";
    let meminfo = fs::read_to_string(MEMINFO).map_err(|e| Error::Read(MEMINFO, e))?;
    let memory_kib = meminfo_kib(&meminfo, "MemTotal").ok_or(Error::Line(MEMINFO, "MemTotal"))?;
    fs::create_dir_all(&config.root_dir).map_err(|e| Error::Read("kubelet root directory", e))?;
    let disk = nix::sys::statvfs::statvfs(&config.root_dir)
        .map_err(|e| Error::Read("kubelet root directory", e.into()))?;
    let storage = disk.blocks().saturating_mul(disk.fragment_size());
    let cpus = i64::try_from(count_cpus()).unwrap_or(i64::MAX);
    let storage_bytes = i64::try_from(storage).unwrap_or(i64::MAX);
    let huge_pages_bytes = HugePages::read().iter().map(HugePages::bytes).sum();
    let capacity = of(&config.kubelet, thresholds, [cpus, memory_kib * 1024, storage_bytes]);
    let swap_bytes = meminfo_kib(&meminfo, "SwapTotal").unwrap_or(0) * 1024;
    Ok(Capacity { huge_pages_bytes, swap_bytes, ..capacity })
}

/// The machine's CPUs and bytes of memory and storage, by what the configuration says. Pure.
pub(super) fn of(
    configuration: &KubeletConfiguration,
    thresholds: &[Threshold],
    [cpus, memory_bytes, storage_bytes]: [i64; 3],
) -> Capacity {
    let kept_free = |signal: Signal, capacity: i64| {
        let hard = thresholds.iter().find(|of| of.signal == signal && of.grace_period.is_none());
        hard.map_or(0, |threshold| threshold.amount.of(capacity))
    };
    let kept_free = Allocatable {
        milli_cpu: 0,
        memory_bytes: kept_free(Signal::MemoryAvailable, memory_bytes),
        ephemeral_storage_bytes: kept_free(Signal::NodeFsAvailable, storage_bytes),
    };
    Capacity {
        cpus,
        memory_bytes,
        storage_bytes,
        pods: pods(configuration, cpus),
        reserved: reserved(configuration),
        kept_free,
        huge_pages_bytes: 0,
        swap_bytes: 0,
    }
}

fn pods(configuration: &KubeletConfiguration, cpus: i64) -> u32 {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let max = number(configuration.max_pods);
    match number(configuration.pods_per_core) {
        0 => max,
        per_core => max.min(per_core.saturating_mul(u32::try_from(cpus).unwrap_or(u32::MAX))),
    }
}

/// CPUs that are named as reserved count instead of amounts of CPU.
fn reserved(configuration: &KubeletConfiguration) -> Allocatable {
    let (system, kube) = (amounts(&configuration.system_reserved), amounts(&configuration.kube_reserved));
    let named = cpus_of(&configuration.reserved_system_cpus).and_then(|cpus| i64::try_from(cpus).ok());
    Allocatable {
        milli_cpu: named.map_or(system.milli_cpu + kube.milli_cpu, |cpus| cpus * 1000),
        memory_bytes: system.memory_bytes.saturating_add(kube.memory_bytes),
        ephemeral_storage_bytes: system.ephemeral_storage_bytes.saturating_add(kube.ephemeral_storage_bytes),
    }
}

/// The amounts of a table that is validated.
pub fn amounts(table: &Table) -> Allocatable {
    Allocatable {
        milli_cpu: quantity(table, "cpu").map_or(0, |amount| amount.milli_value()),
        memory_bytes: amount(table, "memory"),
        ephemeral_storage_bytes: amount(table, "ephemeral-storage"),
    }
}

/// One amount of such a table, in whole units.
pub fn amount(table: &Table, name: &str) -> i64 {
    quantity(table, name).map_or(0, |amount| amount.value())
}

fn quantity(table: &Table, name: &str) -> Option<Quantity> {
    table.get(name)?.parse().ok()
}

pub fn meminfo_kib(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn check(given: &KubeletConfiguration, expect: (i64, i64, i64), pods: u32) {
        let thresholds = given.thresholds().expect("thresholds");
        let capacity = of(given, &thresholds, [4, 8 * GIB, 1000]);
        let found = capacity.allocatable();
        assert_eq!((found.milli_cpu, found.memory_bytes, found.ephemeral_storage_bytes), expect);
        assert_eq!(capacity.pods, pods);
    }

    fn table(rows: &[(&str, &str)]) -> Table {
        rows.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        let text = "MemTotal:       24689316 kB\nMemFree:        1 kB\n";
        assert_eq!(meminfo_kib(text, "MemTotal"), Some(24_689_316));
        assert_eq!(meminfo_kib(text, "Mem"), None);
    }

    #[test]
    fn pods_get_what_the_machine_has_less_the_eviction_thresholds() {
        check(&KubeletConfiguration::default(), (4000, 8 * GIB - (100 << 20), 900), 110);
    }

    #[test]
    fn what_is_reserved_for_system_and_kubernetes_is_not_for_pods() {
        let mut given = KubeletConfiguration {
            system_reserved: table(&[("cpu", "500m"), ("memory", "1Gi")]),
            kube_reserved: table(&[("cpu", "1"), ("memory", "1Gi"), ("ephemeral-storage", "100")]),
            pods_per_core: 5,
            ..Default::default()
        };
        check(&given, (2500, 6 * GIB - (100 << 20), 800), 20);
        given.reserved_system_cpus = "0,2-3".to_owned();
        check(&given, (1000, 6 * GIB - (100 << 20), 800), 20);
        given.system_reserved = table(&[("memory", "100Gi")]);
        check(&given, (1000, 0, 800), 20);
    }
}
