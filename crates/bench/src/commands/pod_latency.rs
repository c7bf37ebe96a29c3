//! `pod-latency`: how long one pod takes from its creation to Running, as a watcher sees it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::Cluster;
use crate::connection::{Connection, Watch};
use crate::latency::Latencies;
use crate::pods::{self, Image};
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};

/// Longer than a node takes to start or stop any pod of ours; past it something is wrong.
const POD_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct PodLatency {
    /// Pods, one after the other
    #[arg(long, default_value_t = 20)]
    count: usize,
    #[command(flatten)]
    image: Image,
}

impl PodLatency {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let mut connection = sandbox.connect().await?;
            let version = sandbox.resource_version(&mut connection).await?;
            let path = format!("{}?watch=true&resourceVersion={version}", sandbox.path("pods"));
            let mut watch = sandbox.connect().await?.watch(&path).await?;
            self.sample(sandbox, &mut connection, &mut watch, "warm").await?;
            let mut took = Vec::new();
            for n in 0..self.count {
                took.push(self.sample(sandbox, &mut connection, &mut watch, &format!("pod-{n}")).await?);
            }
            Ok(Report::new("pod-latency")
                .row("pods", self.count as f64, "")
                .latencies("create to Running", &Latencies::new(took)))
        })
        .await
    }

    /// One pod's time. The pod is gone again before this returns, so that its end does not disturb the next one's start.
    async fn sample(
        &self,
        sandbox: &Sandbox,
        connection: &mut Connection,
        watch: &mut Watch,
        name: &str,
    ) -> Result<Duration> {
        let pods = sandbox.path("pods");
        let start = Instant::now();
        connection.post(&pods, pods::running(name, &self.image)).await?;
        until(watch, name, |_, pod| pods::is_running(pod)).await?;
        let took = start.elapsed();
        connection.delete(&format!("{pods}/{name}")).await?;
        until(watch, name, |kind, _| kind == "DELETED").await?;
        Ok(took)
    }
}

/// Reads the watch until the pod is as wanted.
async fn until(watch: &mut Watch, name: &str, wanted: impl Fn(&str, &Value) -> bool) -> Result<()> {
    let read = async {
        loop {
            let (kind, pod) = watch.event().await?;
            if pods::name(&pod) != name {
                continue;
            }
            if wanted(&kind, &pod) {
                return Ok(());
            }
            if let Some(failure) = pods::failure(&pod).filter(|_| kind != "DELETED") {
                bail!(failure);
            }
        }
    };
    match tokio::time::timeout(POD_WAIT, read).await {
        Ok(result) => result,
        Err(_) => bail!("pod {name} is not as wanted after {} s", POD_WAIT.as_secs()),
    }
}
