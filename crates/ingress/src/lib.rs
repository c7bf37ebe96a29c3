//! The data plane of Ingresses: on every node, what comes in over HTTP and HTTPS goes to the endpoints of the Services
//! that Ingresses of the built-in class name. What becomes of an Ingress in the API (its class, its status, events)
//! is the business of the ingress controller, in the crate `controllers`.
//!
//! `decide` turns objects into a [`table::Table`] without I/O; the rest looks requests up in the newest one.

pub mod backend;
pub mod certificate;
pub mod decide;
pub mod table;

pub mod metrics;

mod body;
mod headers;
mod listener;
mod pool;
mod proxy;
mod shell;
mod upgrade;
mod workers;

pub use proxy::Proxy;
pub use shell::{Bound, Config, Error};

#[cfg(test)]
mod tests;
