//! The controllers: each decides purely what to write for one object given the world it sees; one loop runs them all.

mod catalogue;
mod consistency;
mod controller;
mod discovery;
mod execute;
mod ownership;
mod plan;
mod podstatus;
mod run;
mod taint;
#[cfg(test)]
mod testing;

mod clusterroleaggregation;
mod deployment;
mod endpoint;
mod endpointslice;
mod endpointslicemirroring;
mod garbagecollector;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod replicaset;
mod rootca;
mod serviceaccount;
mod serviceloadbalancer;
mod tainteviction;

pub use catalogue::{CATALOGUE, Config, Row};
pub use run::run;
