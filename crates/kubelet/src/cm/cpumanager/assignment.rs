//! Which CPUs to take so that few sockets and cores are shared (follows `takeByTopologyNUMAPacked`).

use std::collections::{BTreeMap, BTreeSet};

use crate::cm::cpuset::CpuSet;
use crate::cm::topology::{Place, Topology};

/// Takes `count` of `free`: whole sockets, then whole NUMA nodes, then whole cores, then what is left, always from
/// where the least is free. `None` when there are too few.
pub fn take(topology: &Topology, free: &CpuSet, count: usize) -> Option<CpuSet> {
    if free.len() < count {
        return None;
    }
    let mut take = Take { topology, left: free.clone(), needed: count, taken: CpuSet::default() };
    take.whole(|place| place.socket);
    take.whole(|place| place.numa_node);
    take.cores();
    take.singles();
    Some(take.taken)
}

struct Take<'a> {
    topology: &'a Topology,
    left: CpuSet,
    needed: usize,
    taken: CpuSet,
}

impl Take<'_> {
    fn accept(&mut self, cpus: &CpuSet) {
        self.taken.extend(cpus);
        self.left = self.left.without(cpus);
        self.needed -= cpus.len();
    }

    /// Groups that are free altogether, as long as all of one is needed.
    fn whole<K: Ord + Copy>(&mut self, of: impl Fn(Place) -> K + Copy) {
        let sizes: BTreeMap<K, usize> = sizes(self.topology.groups(&self.topology.all(), of));
        for (key, cpus) in self.topology.groups(&self.left, of) {
            if sizes.get(&key) == Some(&cpus.len()) && cpus.len() <= self.needed {
                self.accept(&cpus.into_iter().collect());
            }
        }
    }

    fn cores(&mut self) {
        let core = |place: Place| (place.socket, place.core);
        let sizes = sizes(self.topology.groups(&self.topology.all(), core));
        let mut free: Vec<_> = self
            .topology
            .groups(&self.left, core)
            .into_iter()
            .filter(|(key, cpus)| sizes.get(key) == Some(&cpus.len()))
            .collect();
        free.sort_by_cached_key(|(_, cpus)| (self.crowding(cpus), cpus.first().copied()));
        for (_, cpus) in free {
            if cpus.len() <= self.needed {
                self.accept(&cpus.into_iter().collect());
            }
        }
    }

    fn singles(&mut self) {
        let core = |place: Place| (place.socket, place.core);
        let mut groups: Vec<_> = self.topology.groups(&self.left, core).into_values().collect();
        groups.sort_by_cached_key(|cpus| (self.crowding(cpus), cpus.len(), cpus.first().copied()));
        let chosen: CpuSet = groups.into_iter().flatten().take(self.needed).collect();
        self.accept(&chosen);
    }

    /// What comes first in an order: sockets of which something is taken already, then those with the least left.
    fn crowding(&self, cpus: &BTreeSet<u32>) -> (bool, usize, usize) {
        let socket = cpus.first().and_then(|cpu| self.topology.place(*cpu)).map(|place| place.socket);
        let node = cpus.first().and_then(|cpu| self.topology.place(*cpu)).map(|place| place.numa_node);
        let at = |set: &CpuSet, of: &dyn Fn(Place) -> bool| {
            set.iter().filter_map(|cpu| self.topology.place(cpu)).filter(|place| of(*place)).count()
        };
        let in_socket = |place: Place| Some(place.socket) == socket;
        let in_node = |place: Place| Some(place.numa_node) == node;
        let begun = at(&self.taken, &in_socket) > 0;
        (!begun, at(&self.left, &in_socket), at(&self.left, &in_node))
    }
}

fn sizes<K: Ord>(groups: BTreeMap<K, BTreeSet<u32>>) -> BTreeMap<K, usize> {
    groups.into_iter().map(|(key, cpus)| (key, cpus.len())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two sockets of four cores with two threads each; thread n of core c is CPU c + 8n, each socket a NUMA node.
    fn topology() -> Topology {
        Topology::new((0..16).map(|cpu| {
            let core = cpu % 8;
            (cpu, Place { numa_node: core / 4, socket: core / 4, core: core % 4 })
        }))
    }

    fn check(free: &str, count: usize, expect: Option<&str>) {
        let free: CpuSet = free.parse().expect("a list");
        let taken = take(&topology(), &free, count).map(|cpus| cpus.to_string());
        assert_eq!(taken.as_deref(), expect, "{count} of {free}");
    }

    #[test]
    fn sockets_come_before_cores_and_cores_before_threads() {
        check("0-15", 8, Some("0-3,8-11"));
        check("0-15", 2, Some("0,8"));
        check("0-15", 3, Some("0-1,8"));
        check("0-15", 10, Some("0-4,8-12"));
        check("1-15", 1, Some("8"));
        check("0-1", 3, None);
        check("", 0, Some(""));
    }

    #[test]
    fn the_fuller_socket_is_filled_first() {
        check("0-3,5-11,13-15", 2, Some("5,13"));
        check("0-15", 16, Some("0-15"));
    }

    proptest! {
        #[test]
        fn exactly_what_is_asked_for_is_taken_of_what_is_free(free in prop::collection::btree_set(0..16_u32, 0..16), count in 0..17_usize) {
            let free: CpuSet = free.into_iter().collect();
            let taken = take(&topology(), &free, count);
            prop_assert_eq!(taken.is_some(), count <= free.len());
            if let Some(taken) = taken {
                prop_assert_eq!(taken.len(), count);
                prop_assert!(taken.without(&free).is_empty());
            }
        }
    }
}
