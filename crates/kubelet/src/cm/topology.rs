//! Which CPUs share a core, a socket and a NUMA node, and what memory a node has (follows `cpumanager/topology` and
//! cadvisor's `machine`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::cpuset::CpuSet;
use super::topologymanager::NumaNodes;
use crate::hugepages::HugePages;
use crate::node::meminfo_kib;

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// Where a CPU is. Cores are numbered anew in every socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub numa_node: u32,
    pub socket: u32,
    pub core: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology(BTreeMap<u32, Place>);

impl Topology {
    #[cfg(test)]
    pub fn new(places: impl IntoIterator<Item = (u32, Place)>) -> Self {
        Topology(places.into_iter().collect())
    }

    /// What the kernel tells of the CPUs that are there. A machine without NUMA is one node.
    pub fn read() -> Self {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
        let numa = numa_nodes();
        let cpus = numbered(Path::new(CPUS), "cpu").map(|(cpu, dir)| {
            let topology = dir.join("topology");
            let core = number(&topology.join("core_id")).unwrap_or(cpu);
            let socket = number(&topology.join("physical_package_id")).unwrap_or(0);
            (cpu, Place { numa_node: numa.get(&cpu).copied().unwrap_or(0), socket, core })
        });
        let online = online();
        Topology(cpus.filter(|(cpu, _)| online.is_empty() || online.contains(*cpu)).collect())
    }

    pub fn all(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    pub fn place(&self, cpu: u32) -> Option<Place> {
        self.0.get(&cpu).copied()
    }

    pub fn numa_nodes(&self) -> NumaNodes {
        self.0.values().map(|place| place.numa_node).collect()
    }

    /// Those of `cpus` that are in `nodes`.
    pub fn within(&self, nodes: NumaNodes, cpus: &CpuSet) -> CpuSet {
        let inside = |cpu: &u32| self.place(*cpu).is_some_and(|place| nodes.contains(place.numa_node));
        cpus.iter().filter(inside).collect()
    }

    /// How many CPUs a core has at most.
    pub fn threads_per_core(&self) -> usize {
        let mut threads: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for place in self.0.values() {
            *threads.entry((place.socket, place.core)).or_default() += 1;
        }
        threads.into_values().max().unwrap_or(1)
    }

    /// `cpus` grouped by what `of` says of where they are.
    pub fn groups<K: Ord>(&self, cpus: &CpuSet, of: impl Fn(Place) -> K) -> BTreeMap<K, BTreeSet<u32>> {
        let mut groups: BTreeMap<K, BTreeSet<u32>> = BTreeMap::new();
        for (cpu, place) in cpus.iter().filter_map(|cpu| Some((cpu, self.place(cpu)?))) {
            groups.entry(of(place)).or_default().insert(cpu);
        }
        groups
    }
}

/// A NUMA node's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    pub id: u32,
    /// All of it, huge pages among it.
    pub bytes: u64,
    /// Bytes in huge pages, by resource.
    pub huge_pages: BTreeMap<String, u64>,
}

impl NodeMemory {
    /// What the kernel tells of every node. A machine without NUMA is one node.
    pub fn read() -> Vec<NodeMemory> {
        let mut nodes: Vec<NodeMemory> =
            numbered(Path::new(NODES), "node").filter_map(|(id, dir)| NodeMemory::of(id, &dir)).collect();
        if nodes.is_empty() {
            let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            nodes.extend(NodeMemory::new(0, meminfo_kib(&meminfo, "MemTotal"), HugePages::read()));
        }
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// Lines of a node's `meminfo` begin with its name.
    fn of(id: u32, dir: &Path) -> Option<Self> {
        let meminfo = fs::read_to_string(dir.join("meminfo")).ok()?;
        let meminfo = meminfo.replace(&format!("Node {id} "), "");
        NodeMemory::new(id, meminfo_kib(&meminfo, "MemTotal"), HugePages::read_in(&dir.join("hugepages")))
    }

    fn new(id: u32, total_kib: Option<i64>, pages: Vec<HugePages>) -> Option<Self> {
        let bytes = u64::try_from(total_kib?).ok()?.saturating_mul(1024);
        let huge = |pages: &HugePages| (pages.resource(), u64::try_from(pages.bytes()).unwrap_or(0));
        Some(NodeMemory { id, bytes, huge_pages: pages.iter().map(huge).collect() })
    }
}

/// How many CPUs the machine runs on: pods are not in this process's cgroup, which may have less.
pub fn count_cpus() -> usize {
    online().len().max(1)
}

/// Of the whole machine.
pub fn count_cores_and_sockets() -> (usize, usize) {
    let topology = Topology::read();
    let all = topology.all();
    let cores = topology.groups(&all, |place| (place.socket, place.core)).len();
    (cores, topology.groups(&all, |place| place.socket).len())
}

/// The CPUs that the machine runs on, whatever this process may use of them; empty where the kernel does not tell.
fn online() -> CpuSet {
    let online = fs::read_to_string(Path::new(CPUS).join("online")).unwrap_or_default();
    online.parse().unwrap_or_default()
}

fn numa_nodes() -> BTreeMap<u32, u32> {
    let mut nodes = BTreeMap::new();
    for (node, dir) in numbered(Path::new(NODES), "node") {
        let cpus: CpuSet = fs::read_to_string(dir.join("cpulist"))
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        nodes.extend(cpus.iter().map(|cpu| (cpu, node)));
    }
    nodes
}

/// Folders such as `cpu0`, with their numbers.
fn numbered(dir: &Path, prefix: &'static str) -> impl Iterator<Item = (u32, std::path::PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((number, entry.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_at_least_one_cpu_and_every_one_has_a_place() {
        let topology = Topology::read();
        assert!(!topology.all().is_empty());
        assert!(topology.threads_per_core() >= 1);
        assert!(topology.all().iter().all(|cpu| topology.place(cpu).is_some()));
        assert_eq!(topology.within(topology.numa_nodes(), &topology.all()), topology.all());
    }

    #[test]
    fn this_machine_has_memory_on_every_node() {
        let nodes = NodeMemory::read();
        assert!(!nodes.is_empty());
        assert!(nodes.iter().all(|node| node.bytes > node.huge_pages.values().sum()), "{nodes:?}");
    }
}
