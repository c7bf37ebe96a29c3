//! The service proxy: what kube-proxy does in its nftables mode, with flat maps. [`plan`] decides
//! from Services and EndpointSlices which [`Tables`] of frontends and endpoints there should be,
//! [`rules`] writes them as one table's content, and [`run`] keeps the kernel at it, sending the
//! difference of two contents as one transaction.

mod conntrack;
pub mod plan;
mod rules;
mod shell;

#[cfg(test)]
mod tests;

pub use plan::{Backends, Frontend, NoEndpoints, Tables, plan};
pub use shell::{Config, Error, run, teardown};
