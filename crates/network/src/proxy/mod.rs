//! The service proxy: what kube-proxy does in its nftables mode, with flat maps. [`plan`] decides
//! from a Service and its EndpointSlices which frontends lead to which endpoints, [`Tables`] holds
//! all plans and tells what a change changed, [`Program`] writes that into one nftables table, and
//! [`run`] keeps the kernel at it. Beside the table stand the ports of health checks and metrics.

mod conntrack;
mod elements;
mod endpoints;
mod health;
mod kind;
mod metrics;
mod own_dns;
pub mod plan;
mod program;
mod rules;
mod shell;
mod tables;

#[cfg(test)]
mod tests;

pub use own_dns::MANAGER as DNS_MANAGER;
pub use plan::{Backends, Frontend, HealthCheck, NoEndpoints, Origin, Place, ServicePlan, plan};
pub use program::{Applied, Program};
pub use rules::Networks;
pub use shell::{Config, Error, run, teardown};
pub use tables::{Changes, Tables};
