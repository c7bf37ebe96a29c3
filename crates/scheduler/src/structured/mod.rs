//! Chooses devices for the claims of a pod on a node: a pure search over what drivers publish (follows upstream's
//! `k8s.io/dynamic-resource-allocation/structured`).
//!
//! One device after the other is tried for each request, in the order of pools, slices and devices; the first choice
//! that serves all claims is taken.

mod allocated;
mod capacity;
mod constraint;
mod counters;
mod pools;
mod request;
mod result;
mod search;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::view::core::Node;
use api::view::dynamicresource::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

pub use allocated::Allocated;
use pools::Generations;
pub use request::Wanted;
use search::Search;

/// Tells a device apart from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId<'a> {
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: &'a str,
}

impl std::fmt::Display for DeviceId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// Why no devices were chosen for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This node has not what is asked for.
    None,
    /// Something is wrong with what this node is offered.
    OnNode(String),
    /// Something is wrong with the claim or its class.
    Claim(String),
}

/// What the claims of one pod ask for, and what there is for it on all nodes.
pub struct Allocator<'a> {
    wanted: Vec<Wanted<'a>>,
    generations: Generations<'a>,
    allocated: Allocated<'a>,
}

impl<'a> Allocator<'a> {
    pub fn new(
        claims: &[&'a ResourceClaim],
        classes: &HashMap<&'a str, &'a DeviceClass>,
        slices: impl Iterator<Item = &'a Arc<ResourceSlice>>,
        allocated: Allocated<'a>,
    ) -> Result<Self, String> {
        let wanted = claims.iter().map(|claim| Wanted::new(claim, classes)).collect::<Result<_, _>>()?;
        Ok(Allocator { wanted, generations: Generations::new(slices), allocated })
    }

    /// Devices that this node reaches, one result for each claim, and for one that only this node is asked for.
    pub fn allocate(&self, node: &Node, also: Option<&Wanted<'_>>) -> Result<Vec<AllocationResult>, Failure> {
        let pools = self.generations.reached_from(node);
        let all: Vec<&Wanted<'_>> = self.wanted.iter().chain(also).collect();
        let chosen = Search::new(&all, &pools, &self.allocated)?.run(&node.metadata.name)?;
        let results = all.iter().zip(chosen).map(|(wanted, chosen)| result::build(wanted, &chosen, node));
        results.collect::<Result<_, _>>().map_err(Failure::Claim)
    }
}
