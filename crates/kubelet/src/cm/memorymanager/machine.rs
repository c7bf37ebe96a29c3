//! How much memory each NUMA node has, and how much of it is given (follows `memorymanager/state`). Pure.
//!
//! A node serves either containers that fit on it alone, or those of one group of nodes: its `cells`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::topology::NodeMemory;
use super::super::topologymanager::{Hint, NumaNodes};
use super::MEMORY;

/// Bytes by resource.
pub type Amounts = BTreeMap<String, u64>;

/// Memory of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    pub numa_affinity: Vec<u32>,
    #[serde(rename = "type")]
    pub resource: String,
    pub size: u64,
}

impl Block {
    pub fn new(nodes: NumaNodes, resource: &str, size: u64) -> Self {
        Block { numa_affinity: nodes.iter().collect(), resource: resource.to_owned(), size }
    }

    pub fn nodes(&self) -> NumaNodes {
        self.numa_affinity.iter().copied().collect()
    }

    pub fn is(&self, nodes: NumaNodes, resource: &str) -> bool {
        self.resource == resource && self.nodes() == nodes
    }

    pub fn is_like(&self, other: &Block) -> bool {
        self.is(other.nodes(), &other.resource)
    }
}

/// `free + reserved == allocatable == total - system_reserved`, less huge pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryTable {
    total: u64,
    system_reserved: u64,
    allocatable: u64,
    /// Given to containers.
    reserved: u64,
    free: u64,
}

impl MemoryTable {
    fn new(total: u64, system_reserved: u64, huge_pages: u64) -> Self {
        let allocatable = total.saturating_sub(system_reserved).saturating_sub(huge_pages);
        MemoryTable { total, system_reserved, allocatable, reserved: 0, free: allocatable }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    /// Blocks of which some may be here.
    number_of_assignments: u64,
    memory_map: BTreeMap<String, MemoryTable>,
    cells: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineState(BTreeMap<u32, NodeState>);

impl MachineState {
    /// Nothing of it is given yet.
    pub fn new(nodes: &[NodeMemory], reserved: &BTreeMap<u32, Amounts>) -> Self {
        let state = |node: &NodeMemory| {
            let reserved = |resource: &str| {
                reserved.get(&node.id).and_then(|amounts| amounts.get(resource)).copied().unwrap_or(0)
            };
            let pages = node.huge_pages.iter();
            let mut memory_map: BTreeMap<String, MemoryTable> = pages
                .map(|(name, bytes)| (name.clone(), MemoryTable::new(*bytes, reserved(name), 0)))
                .collect();
            let huge_pages = node.huge_pages.values().sum();
            memory_map.insert(MEMORY.to_owned(), MemoryTable::new(node.bytes, reserved(MEMORY), huge_pages));
            NodeState { number_of_assignments: 0, memory_map, cells: vec![node.id] }
        };
        MachineState(nodes.iter().map(|node| (node.id, state(node))).collect())
    }

    /// Whether both have the same nodes, with as much memory for containers.
    pub fn has_capacity_of(&self, other: &MachineState) -> bool {
        let capacity = |state: &MachineState| -> Vec<(u32, String, [u64; 3])> {
            let tables = state.0.iter().flat_map(|(id, node)| node.memory_map.iter().map(move |m| (*id, m)));
            tables
                .map(|(id, (name, t))| (id, name.clone(), [t.total, t.system_reserved, t.allocatable]))
                .collect()
        };
        capacity(self) == capacity(other)
    }

    /// Whether there are such nodes, with such memory.
    pub fn knows(&self, block: &Block) -> bool {
        let has = |id| self.0.get(id).is_some_and(|node| node.memory_map.contains_key(&block.resource));
        block.numa_affinity.iter().all(has)
    }

    pub fn allocatable(&self) -> Vec<Block> {
        let of = |(id, node): (&u32, &NodeState)| {
            let block = |(name, table): (&String, &MemoryTable)| Block {
                numa_affinity: vec![*id],
                resource: name.clone(),
                size: table.allocatable,
            };
            node.memory_map.iter().filter(|(_, table)| table.allocatable > 0).map(block).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    fn nodes(&self) -> NumaNodes {
        self.0.keys().copied().collect()
    }

    fn sum(&self, nodes: NumaNodes, resource: &str, of: impl Fn(&MemoryTable) -> u64) -> u64 {
        let tables = nodes.iter().filter_map(|id| self.0.get(&id)?.memory_map.get(resource));
        tables.map(of).sum()
    }

    pub fn has_free(&self, nodes: NumaNodes, requested: &Amounts) -> bool {
        requested.iter().all(|(resource, size)| self.sum(nodes, resource, |table| table.free) >= *size)
    }

    /// Whether no node serves containers alone, or as one of another group.
    pub fn can_group(&self, nodes: NumaNodes) -> bool {
        let can = |id| {
            self.0.get(&id).is_some_and(|node| {
                let group: NumaNodes = node.cells.iter().copied().collect();
                node.number_of_assignments == 0 || group == nodes
            })
        };
        nodes.iter().all(can)
    }

    /// Whether the node is of no group.
    fn is_alone(&self, id: u32) -> bool {
        self.0.get(&id).is_some_and(|node| node.cells.len() <= 1)
    }

    /// The sets of nodes that have what is requested; `reusable` is what there is on a set beyond what is free.
    pub fn hints(&self, requested: &Amounts, reusable: impl Fn(NumaNodes, &str) -> u64) -> Vec<Hint> {
        if requested.is_empty() {
            return Vec::new();
        }
        let large_enough = |nodes: &NumaNodes| {
            requested.iter().all(|(name, size)| self.sum(*nodes, name, |table| table.allocatable) >= *size)
        };
        let subsets: Vec<NumaNodes> = self.nodes().subsets().into_iter().filter(large_enough).collect();
        let fewest = subsets.iter().map(|nodes| nodes.count()).min();
        let usable = |nodes: &NumaNodes| match nodes.count() {
            1 => nodes.iter().all(|id| self.is_alone(id)),
            _ => self.can_group(*nodes),
        };
        let fits = |nodes: &NumaNodes| {
            requested.iter().all(|(name, size)| {
                self.sum(*nodes, name, |table| table.free) + reusable(*nodes, name) >= *size
            })
        };
        let hints = subsets.into_iter().filter(usable).filter(fits);
        hints.map(|nodes| Hint { nodes: Some(nodes), preferred: Some(nodes.count()) == fewest }).collect()
    }

    /// Counts a block in, of which `size` bytes are taken from what is free, from the first nodes first.
    pub fn take(&mut self, block: &Block, mut size: u64) {
        for id in &block.numa_affinity {
            let Some(node) = self.0.get_mut(id) else { continue };
            node.number_of_assignments += 1;
            node.cells.clone_from(&block.numa_affinity);
            let Some(table) = node.memory_map.get_mut(&block.resource) else { continue };
            let taken = table.free.min(size);
            table.free -= taken;
            table.reserved += taken;
            size -= taken;
        }
    }

    /// Undoes `take` of the whole block.
    pub fn give_back(&mut self, block: &Block) {
        let mut size = block.size;
        for id in &block.numa_affinity {
            let Some(node) = self.0.get_mut(id) else { continue };
            node.number_of_assignments = node.number_of_assignments.saturating_sub(1);
            if node.number_of_assignments == 0 {
                node.cells = vec![*id];
            }
            let Some(table) = node.memory_map.get_mut(&block.resource) else { continue };
            let returned = table.reserved.min(size);
            table.reserved -= returned;
            table.free += returned;
            size -= returned;
        }
    }
}
