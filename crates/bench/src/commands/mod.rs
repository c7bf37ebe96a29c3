//! The benchmarks, one module each.

mod churn;
mod compare;
mod create_pods;
mod custom_kinds;
mod dns;
mod idle;
mod image_pull;
mod ingress;
mod list_pods;
mod memory;
mod mirror;
mod operations;
mod pod_burst;
mod pod_latency;
mod pod_memory;
mod ready;
mod services;
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
    /// Requests on single objects: get, status patch, lease renewal, delete
    Operations(operations::Operations),
    /// LIST of many pods
    ListPods(list_pods::ListPods),
    WatchFanout(watch_fanout::WatchFanout),
    /// Many CustomResourceDefinitions: memory, time until served, discovery
    CustomKinds(custom_kinds::CustomKinds),
    /// Memory at rest, per watch and per stored pod
    Memory(memory::Memory),
    /// Many updates of the same objects, and what they leave on disk
    Churn(churn::Churn),
    /// Every benchmark of the API server against two servers in turn, ours and upstream's
    Compare(compare::Compare),
    /// From a pod's creation to Running seen on a watch, one at a time
    PodLatency(pod_latency::PodLatency),
    /// From the creation of many pods at once to all of them Running
    PodBurst(pod_burst::PodBurst),
    /// From the start of `cox up -d` to node Ready, with no data and with the data of a cluster before
    Start(start::Start),
    /// From the start of an API server to its first `ok` at /readyz
    Ready(ready::Ready),
    /// Memory and CPU of a cluster that does nothing
    Idle(idle::Idle),
    /// A large image from a registry on this machine, by one container runtime or two in turn
    ImagePull(image_pull::ImagePull),
    /// Play request scripts against two API servers and compare the answers
    Mirror(mirror::Mirror),
    /// Memory that an idle pod costs beyond its own processes
    PodMemory(pod_memory::PodMemory),
    /// Questions about many Services to a DNS server
    Dns(dns::Dns),
    /// How soon Services are programmed into the kernel, all of many, one more, one changed
    Services(services::Services),
    /// Small responses through the cluster's Ingress, and through nginx as a proxy
    Ingress(ingress::Ingress),
}

impl Command {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        match self {
            Command::CreatePods(command) => command.run(cluster).await,
            Command::Operations(command) => command.run(cluster).await,
            Command::CustomKinds(command) => command.run(cluster).await,
            Command::Memory(command) => command.run(cluster).await,
            Command::Churn(command) => command.run(cluster).await,
            Command::Compare(command) => Box::pin(command.run(cluster)).await,
            Command::ListPods(command) => command.run(cluster).await,
            Command::WatchFanout(command) => command.run(cluster).await,
            Command::PodLatency(command) => command.run(cluster).await,
            Command::PodBurst(command) => command.run(cluster).await,
            Command::Start(command) => command.run().await,
            Command::Ready(command) => command.run(cluster).await,
            Command::Idle(command) => command.run().await,
            Command::ImagePull(command) => command.run().await,
            Command::Mirror(command) => command.run(cluster).await,
            Command::PodMemory(command) => command.run(cluster).await,
            Command::Dns(command) => command.run(cluster).await,
            Command::Services(command) => command.run(cluster).await,
            Command::Ingress(command) => command.run(cluster).await,
        }
    }
}
