//! The controllers: each decides purely what to write for one object given the world it sees; one loop runs them all.

mod catalogue;
mod consistency;
mod controller;
mod discovery;
mod execute;
mod history;
mod ownership;
mod plan;
mod podavailability;
mod podstatus;
mod podtemplate;
mod protection;
mod run;
mod scale;
mod taint;
#[cfg(test)]
mod testing;

mod attachdetach;
mod certificates;
mod clusterroleaggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoint;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeral;
mod expand;
mod garbagecollector;
mod ingress;
mod job;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod persistentvolume;
mod podautoscaler;
mod podgc;
mod pvcprotection;
mod pvprotection;
mod replicaset;
mod resourcequota;
mod rootca;
mod serviceaccount;
mod serviceloadbalancer;
mod statefulset;
mod tainteviction;
mod ttlafterfinished;
mod vacprotection;
mod validatingadmissionpolicystatus;

pub use catalogue::{CATALOGUE, Config, Row, SigningAuthority};
pub use run::run;
