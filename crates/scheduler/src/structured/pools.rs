//! Pools of devices: each as its newest generation has it, and which of its devices a node reaches (follows upstream's
//! `GatherPools`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::view::core::{Node, nodeselector};
use api::view::dynamicresource::{CounterSet, Device, Reach, ResourceSlice};

use super::{DeviceId, counters};

/// All pools, whoever reaches them.
pub struct Generations<'a>(BTreeMap<(&'a str, &'a str), Generation<'a>>);

/// The slices of a pool's newest generation, by name.
struct Generation<'a> {
    number: i64,
    slices: Vec<&'a ResourceSlice>,
}

/// A pool as one node sees it.
pub struct Pool<'a> {
    pub state: State,
    /// Driver and name.
    pub id: (&'a str, &'a str),
    /// Those that the node reaches.
    pub devices: Vec<Candidate<'a>>,
    /// All of the pool's, for what they share.
    pub slices: Vec<&'a ResourceSlice>,
    pub counter_sets: BTreeMap<&'a str, &'a CounterSet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Its driver is still publishing.
    Incomplete,
    /// Its slices contradict each other.
    Invalid,
}

#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub id: DeviceId<'a>,
    pub device: &'a Device,
    pub slice: &'a ResourceSlice,
}

impl Candidate<'_> {
    pub fn is_shared(&self) -> bool {
        self.device.allow_multiple_allocations == Some(true)
    }

    /// Whose word on nodes counts.
    pub fn reach(&self) -> &Reach {
        if is_per_device(self.slice) { &self.device.reach } else { &self.slice.spec.reach }
    }
}

impl<'a> Generations<'a> {
    pub fn new(slices: impl Iterator<Item = &'a Arc<ResourceSlice>>) -> Self {
        let mut pools: BTreeMap<(&str, &str), Generation<'_>> = BTreeMap::new();
        for slice in slices {
            let (driver, pool) = (slice.spec.driver.as_str(), &slice.spec.pool);
            let known = pools
                .entry((driver, &pool.name))
                .or_insert(Generation { number: pool.generation, slices: Vec::new() });
            if pool.generation > known.number {
                *known = Generation { number: pool.generation, slices: Vec::new() };
            }
            if pool.generation == known.number {
                known.slices.push(slice);
            }
        }
        for pool in pools.values_mut() {
            pool.slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        }
        Generations(pools)
    }

    /// By driver and name; those with devices that take their time to be ready come last.
    pub fn reached_from(&self, node: &Node) -> Vec<Pool<'a>> {
        let pools = self.0.iter().filter_map(|(id, generation)| generation.reached_from(*id, node));
        let (late, mut ready): (Vec<_>, Vec<_>) = pools.partition(Pool::has_binding_conditions);
        ready.extend(late);
        ready
    }
}

impl<'a> Generation<'a> {
    fn reached_from(&self, id: (&'a str, &'a str), node: &Node) -> Option<Pool<'a>> {
        let is_relevant =
            |slice: &&ResourceSlice| !slice.spec.shared_counters.is_empty() || is_reached(slice, node);
        if !self.slices.iter().any(is_relevant) {
            return None;
        }
        let devices: Vec<_> = self.slices.iter().flat_map(|slice| candidates(slice, node)).collect();
        let mut pool = Pool {
            state: State::Ready,
            id,
            devices,
            slices: self.slices.clone(),
            counter_sets: BTreeMap::new(),
        };
        pool.state = self.state(&mut pool);
        Some(pool)
    }

    fn state(&self, pool: &mut Pool<'a>) -> State {
        let published = i64::try_from(self.slices.len()).unwrap_or(i64::MAX);
        if self.slices.iter().any(|slice| slice.spec.pool.resource_slice_count != published) {
            return State::Incomplete;
        }
        let mut names = BTreeSet::new();
        let are_unique = pool.devices.iter().all(|candidate| names.insert(candidate.id));
        let sets = || self.slices.iter().flat_map(|slice| &slice.spec.shared_counters);
        pool.counter_sets.extend(sets().map(|set| (set.name.as_str(), set)));
        let are_sets_unique = pool.counter_sets.len() == sets().count();
        if are_unique && are_sets_unique && counters::are_known(pool) { State::Ready } else { State::Invalid }
    }
}

impl Pool<'_> {
    fn has_binding_conditions(&self) -> bool {
        self.devices.iter().any(|candidate| !candidate.device.binding_conditions.is_empty())
    }
}

fn is_per_device(slice: &ResourceSlice) -> bool {
    slice.spec.per_device_node_selection == Some(true)
}

fn is_reached(slice: &ResourceSlice, node: &Node) -> bool {
    if is_per_device(slice) {
        slice.spec.devices.iter().any(|device| reaches(&device.reach, node))
    } else {
        reaches(&slice.spec.reach, node)
    }
}

fn candidates<'a>(slice: &'a ResourceSlice, node: &Node) -> Vec<Candidate<'a>> {
    let (driver, pool) = (slice.spec.driver.as_str(), slice.spec.pool.name.as_str());
    let all = slice.spec.devices.iter().map(|device| {
        let id = DeviceId { driver, pool, device: &device.name };
        Candidate { id, device, slice }
    });
    all.filter(|candidate| reaches(candidate.reach(), node)).collect()
}

/// Upstream: `NodeMatches`.
fn reaches(reach: &Reach, node: &Node) -> bool {
    match (&reach.node_name, reach.all_nodes, &reach.node_selector) {
        (Some(name), ..) if !name.is_empty() => *name == node.metadata.name,
        (_, Some(true), _) => true,
        (_, _, Some(selector)) => {
            selector.node_selector_terms.iter().any(|term| nodeselector::matches_term(term, node))
        }
        _ => false,
    }
}
