//! What containers and pods use, in the CRI's terms.

mod tree;

use std::fs;
use std::path::Path;

use crate::Result;
use crate::cgroups::Stats;
use crate::container_spec::uses_node_network;
use crate::cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemIdentifier,
    FilesystemUsage, IoUsage, LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter, ProcessUsage, SwapUsage, UInt64Value,
};
use crate::record::{ContainerRecord, SandboxRecord};
use crate::runtime::{Runtime, now};
pub(crate) use tree::Trees;

/// The interface pods reach the network by.
const DEFAULT_INTERFACE: &str = "eth0";

impl Runtime {
    pub(crate) fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        Ok(self.stats_of(&self.container(id)?))
    }

    pub(crate) fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Vec<ContainerStats> {
        let matching: Vec<ContainerRecord> = {
            let state = self.state.lock();
            let matches = |container: &&ContainerRecord| {
                container.is_running()
                    && container.id.starts_with(&filter.id)
                    && container.sandbox_id.starts_with(&filter.pod_sandbox_id)
                    && filter.label_selector.iter().all(|(k, v)| container.config.labels.get(k) == Some(v))
            };
            state.containers.values().filter(matches).cloned().collect()
        };
        matching.iter().map(|container| self.stats_of(container)).collect()
    }

    pub(crate) fn sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        Ok(self.stats_of_sandbox(&self.sandbox(id)?))
    }

    pub(crate) fn list_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Vec<PodSandboxStats> {
        let matching: Vec<SandboxRecord> = {
            let state = self.state.lock();
            let matches = |sandbox: &&SandboxRecord| {
                sandbox.ready
                    && sandbox.id.starts_with(&filter.id)
                    && filter.label_selector.iter().all(|(k, v)| sandbox.config.labels.get(k) == Some(v))
            };
            state.sandboxes.values().filter(matches).cloned().collect()
        };
        matching.iter().map(|sandbox| self.stats_of_sandbox(sandbox)).collect()
    }

    fn stats_of(&self, container: &ContainerRecord) -> ContainerStats {
        let stats = self.cgroups.stats(&container.cgroup);
        let memory_limit = container.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        let memory_limit = memory_limit.map_or(0, |resources| resources.memory_limit_in_bytes.max(0) as u64);
        let upper = self.container_dir(&container.id).join("upper");
        let (bytes, inodes) = self.trees.usage(&upper);
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: Some(cpu_usage(&stats)),
            memory: Some(memory_usage(&stats, memory_limit)),
            writable_layer: Some(filesystem_usage(&upper, bytes, inodes)),
            swap: swap_usage(&stats),
            io: io_usage(&stats),
        }
    }

    fn stats_of_sandbox(&self, sandbox: &SandboxRecord) -> PodSandboxStats {
        let stats = self.cgroups.stats(&sandbox.cgroup);
        let filter = ContainerStatsFilter { pod_sandbox_id: sandbox.id.clone(), ..Default::default() };
        let network = (!uses_node_network(&sandbox.config)).then(|| network_usage(sandbox.shim)).flatten();
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(cpu_usage(&stats)),
                memory: Some(memory_usage(&stats, 0)),
                network,
                process: Some(ProcessUsage { timestamp: now(), process_count: value(stats.processes) }),
                containers: self.list_container_stats(&filter),
                io: io_usage(&stats),
            }),
            windows: None,
        }
    }
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu_usage(stats: &Stats) -> CpuUsage {
    // The rate is for the reader to compute: it takes two readings.
    CpuUsage {
        timestamp: now(),
        usage_core_nano_seconds: value(stats.cpu_nanos),
        usage_nano_cores: None,
        psi: stats.pressure[0],
    }
}

fn memory_usage(stats: &Stats, limit: u64) -> MemoryUsage {
    MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(stats.memory_working_set),
        // Without a limit of its own a container has what the node has, which is not for it to tell.
        available_bytes: (limit > 0).then(|| limit.saturating_sub(stats.memory_working_set)).and_then(value),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.memory_rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: stats.pressure[1],
    }
}

fn io_usage(stats: &Stats) -> Option<IoUsage> {
    let psi = stats.pressure[2]?;
    Some(IoUsage { timestamp: now(), psi: Some(psi) })
}

pub(crate) fn filesystem_usage(path: &Path, bytes: u64, inodes: u64) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: now(),
        fs_id: Some(FilesystemIdentifier { mountpoint: path.display().to_string() }),
        used_bytes: value(bytes),
        inodes_used: value(inodes),
    }
}

/// Swap is the node's to share out: how much is left for one container cannot be told.
fn swap_usage(stats: &Stats) -> Option<SwapUsage> {
    let used = stats.swap_usage?;
    Some(SwapUsage { timestamp: now(), swap_available_bytes: None, swap_usage_bytes: value(used) })
}

/// Counters of the interfaces in the network namespace of a process.
fn network_usage(pid: i32) -> Option<NetworkUsage> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let mut interfaces = parse_interfaces(&table);
    let default = interfaces.iter().position(|interface| interface.name == DEFAULT_INTERFACE);
    let default_interface = default.map(|index| interfaces.swap_remove(index));
    Some(NetworkUsage { timestamp: now(), default_interface, interfaces })
}

fn parse_interfaces(table: &str) -> Vec<NetworkInterfaceUsage> {
    table
        .lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> = counters.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let at = |index: usize| counters.get(index).copied().map(|value| UInt64Value { value });
            let name = name.trim().to_owned();
            let (rx_bytes, rx_errors, tx_bytes, tx_errors) = (at(0), at(2), at(8), at(10));
            (name != "lo").then_some(NetworkInterfaceUsage { name, rx_bytes, rx_errors, tx_bytes, tx_errors })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read() {
        let table = "Inter-|   Receive\n face |bytes\n  lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n\
            eth0: 100 2 3 0 0 0 0 0 200 2 4 0 0 0 0 0\n";
        let found = parse_interfaces(table);
        assert_eq!(found.len(), 1);
        let value = |v: &Option<UInt64Value>| v.as_ref().unwrap().value;
        let eth0 = &found[0];
        assert_eq!(
            [&eth0.rx_bytes, &eth0.rx_errors, &eth0.tx_bytes, &eth0.tx_errors].map(value),
            [100, 3, 200, 4]
        );
    }
}
