//! Groups addresses that serve the same ports, and keeps to the capacity (follows `RepackSubsets` and
//! `truncateEndpoints`).

use std::collections::{BTreeMap, BTreeSet};

use api::view::core::{EndpointAddress, EndpointSubset, EndpointsPort};

/// Addresses that one Endpoints object holds (upstream: `maxCapacity`).
pub const ADDRESSES_MAX: usize = 1000;

/// One pod: where, whether it is ready, and the ports it serves.
pub struct Target {
    pub address: EndpointAddress,
    pub is_ready: bool,
    pub ports: BTreeSet<EndpointsPort>,
}

/// One subset per distinct set of ports, ordered, addresses by IP.
pub fn pack(targets: Vec<Target>) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<BTreeSet<EndpointsPort>, EndpointSubset> = BTreeMap::new();
    for target in targets {
        let ports = target.ports.iter().cloned().collect();
        let subset = by_ports
            .entry(target.ports)
            .or_insert_with(|| EndpointSubset { ports, ..EndpointSubset::default() });
        let addresses = if target.is_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        addresses.push(target.address);
    }
    let by_place = |a: &EndpointAddress| (a.ip.clone(), a.target_ref.as_ref().map(|t| t.uid.clone()));
    let mut subsets: Vec<EndpointSubset> = by_ports.into_values().collect();
    for subset in &mut subsets {
        subset.addresses.sort_by_key(by_place);
        subset.not_ready_addresses.sort_by_key(by_place);
    }
    subsets
}

/// Drops addresses past the capacity, in proportion to each subset's share, those not ready first; says whether it
/// had to.
pub fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let ready: usize = subsets.iter().map(|s| s.addresses.len()).sum();
    let not_ready: usize = subsets.iter().map(|s| s.not_ready_addresses.len()).sum();
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    if ready > ADDRESSES_MAX {
        subsets.iter_mut().for_each(|subset| subset.not_ready_addresses.clear());
        share(subsets.iter_mut().map(|s| &mut s.addresses).collect(), ready, ADDRESSES_MAX);
    } else {
        let room = ADDRESSES_MAX - ready;
        share(subsets.iter_mut().map(|s| &mut s.not_ready_addresses).collect(), not_ready, room);
    }
    true
}

fn share(lists: Vec<&mut Vec<EndpointAddress>>, total: usize, room: usize) {
    let mut left = room;
    for list in lists {
        let part = (list.len() * room).div_ceil(total).min(left);
        list.truncate(part);
        left -= list.len();
    }
}
