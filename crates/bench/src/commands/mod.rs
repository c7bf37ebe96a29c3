//! The benchmarks, one module each.

mod create_pods;
mod idle;
mod list_pods;
mod mirror;
mod pod_burst;
mod pod_latency;
mod pod_memory;
mod start;
mod watch_fanout;

use anyhow::Result;
use clap::Subcommand;

use crate::Cluster;
use crate::report::Report;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Durable pod creates, many at a time, that no node runs
    CreatePods(create_pods::CreatePods),
    /// LIST of many pods as JSON
    ListPods(list_pods::ListPods),
    /// Many watchers of the same pods
    WatchFanout(watch_fanout::WatchFanout),
    /// From a pod's creation to Running seen on a watch, one at a time
    PodLatency(pod_latency::PodLatency),
    /// From the creation of many pods at once to all of them Running
    PodBurst(pod_burst::PodBurst),
    /// From the start of `cox up -d` to node Ready, with no data and with the data of a cluster before
    Start(start::Start),
    /// Memory and CPU of a cluster that does nothing
    Idle(idle::Idle),
    /// Play request scripts against two API servers and compare the answers
    Mirror(mirror::Mirror),
    /// Memory that an idle pod costs beyond its own processes
    PodMemory(pod_memory::PodMemory),
}

impl Command {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        match self {
            Command::CreatePods(command) => command.run(cluster).await,
            Command::ListPods(command) => command.run(cluster).await,
            Command::WatchFanout(command) => command.run(cluster).await,
            Command::PodLatency(command) => command.run(cluster).await,
            Command::PodBurst(command) => command.run(cluster).await,
            Command::Start(command) => command.run().await,
            Command::Idle(command) => command.run().await,
            Command::Mirror(command) => command.run(cluster).await,
            Command::PodMemory(command) => command.run(cluster).await,
        }
    }
}
