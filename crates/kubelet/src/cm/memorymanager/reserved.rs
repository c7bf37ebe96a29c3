//! Which memory of which NUMA node is kept from containers (follows `getSystemReservedMemory`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::quantity::{Format, Quantity};

use super::super::topology::NodeMemory;
use super::MEMORY;
use super::machine::Amounts;
use crate::kubeletconfig::MemoryReservation;

/// What an operator says of it; both must come to the same.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Node by node.
    pub reserved: Vec<MemoryReservation>,
    /// In all: what the system and Kubernetes have, and what hard eviction thresholds keep free.
    pub withheld: Amounts,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the reserved memory configuration references a NUMA node {0} that does not exist on this machine"
    )]
    NoSuchNode(i32),
    #[error(
        "the total amount {reserved:?} of type {resource:?} is not equal to the value {withheld:?} determined by Node Allocatable feature"
    )]
    Unequal { resource: String, reserved: String, withheld: String },
    #[error("[memorymanager] you should specify the system reserved memory")]
    Nothing,
}

/// What is kept of each node.
pub fn by_node(nodes: &[NodeMemory], options: &Options) -> Result<BTreeMap<u32, Amounts>, Error> {
    let mut reserved: BTreeMap<u32, Amounts> = nodes.iter().map(|node| (node.id, Amounts::new())).collect();
    for reservation in &options.reserved {
        let missing = || Error::NoSuchNode(reservation.numa_node);
        let id = u32::try_from(reservation.numa_node).map_err(|_| missing())?;
        let amounts = reserved.get_mut(&id).ok_or_else(missing)?;
        let limits = reservation.limits.iter();
        amounts.extend(limits.map(|(name, size)| (name.clone(), u64::try_from(size.value()).unwrap_or(0))));
    }
    let kinds: BTreeSet<&String> = reserved.values().flatten().map(|(name, _)| name).collect();
    for name in kinds.into_iter().chain(options.withheld.keys()) {
        let total: u64 = reserved.values().filter_map(|amounts| amounts.get(name)).sum();
        let withheld = options.withheld.get(name).copied().unwrap_or(0);
        if total != withheld {
            let (resource, reserved, withheld) = (name.clone(), text(total), text(withheld));
            return Err(Error::Unequal { resource, reserved, withheld });
        }
    }
    if reserved.values().all(|amounts| !amounts.contains_key(MEMORY)) {
        return Err(Error::Nothing);
    }
    Ok(reserved)
}

fn text(bytes: u64) -> String {
    Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi).to_string()
}
