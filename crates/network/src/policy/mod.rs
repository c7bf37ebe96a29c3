//! NetworkPolicy: which packets may be forwarded to and from this node's pods. [`plan`] decides
//! from policies, pods and namespaces who may reach whom, `rules` writes that as one nftables table,
//! and [`run`] keeps the kernel at it.
//!
//! Only forwarded packets are judged: what the node itself sends to its pods (the kubelet's probes)
//! and what pods send to it always passes, as the API wants. Connections that were allowed stay so.

mod plan;
mod rules;
mod shell;

#[cfg(test)]
mod tests;

pub use plan::{Direction, Plan, PodFacts, plan};
pub use shell::{Config, Error, run, teardown};
