//! The scheduler: gives each pending pod a node.
//!
//! Deciding is pure: `queue` says which pod is next, `schedule` and `preemption` where it goes, from a
//! `cache` of nodes and the pods on them. `run` feeds them with changes, `write` carries decisions out.

mod cache;
mod devices;
mod diagnosis;
mod extendedresources;
mod framework;
mod metrics;
mod nodeinfo;
mod objects;
mod placement;
mod plugins;
mod podinfo;
mod preemption;
mod queue;
mod resource;
mod run;
mod schedule;
mod snapshot;
mod structured;
#[cfg(test)]
mod testing;
mod volumes;
mod workloads;
mod write;

pub use metrics::Metrics;
pub use run::{DEFAULT_SCHEDULER_NAME, run, synced};
