//! The controllers: each decides purely what to write for one object given the world it sees; one loop runs them all.

mod catalogue;
mod consistency;
mod controller;
mod execute;
mod ownership;
mod plan;
mod run;
#[cfg(test)]
mod testing;

mod deployment;
mod endpointslice;
mod replicaset;
mod rootca;
mod serviceaccount;

pub use catalogue::{CATALOGUE, Config, Row};
pub use run::run;
