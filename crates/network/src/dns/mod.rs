//! Cluster DNS: names of Services, endpoints and pods, answered from the informers' caches as
//! Kubernetes' DNS specification 1.1.0 says, and everything else forwarded to the
//! resolvers of the machine or of a stub domain. [`Zone`] decides answers, [`Server`] carries them over UDP and TCP.

mod cache;
mod corefile;
mod datagrams;
mod forward;
mod metrics;
mod name;
mod ready;
mod resolver;
mod server;
mod settings;
mod tcp;
mod udp;
mod upstreams;
mod wire;
mod zone;

#[cfg(test)]
mod tests;

pub use name::Name;
pub use server::{Config, Error, Server, run};
pub use settings::NAMES as SETTINGS;
pub use upstreams::Upstreams;
pub use zone::{Outcome, Zone};
