//! `pod-memory`: what the cluster's own processes grow by for each idle pod.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::Cluster;
use crate::connection::Watch;
use crate::pods::{self, Image};
use crate::process::{Selection, settled_pss_bytes};
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};

/// Connections over which the pods are created.
const CREATE_CONCURRENCY: usize = 16;

/// How long all pods have to run.
const PODS_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub struct PodMemory {
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// How long the cluster rests before its memory is read, with and without pods
    #[arg(long, default_value_t = 10)]
    settle_seconds: u64,
    #[command(flatten)]
    processes: Selection,
    #[command(flatten)]
    image: Image,
}

impl PodMemory {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            // The first pods make the node load what it needs for any pod; that is no pod's own cost.
            run_pods(sandbox, 1, |_| pods::running("warm", &self.image)).await?;
            let before = self.rest_and_read().await?;
            run_pods(sandbox, self.count, |n| pods::running(&format!("pod-{n}"), &self.image)).await?;
            let after = self.rest_and_read().await?;
            let per_pod = after.saturating_sub(before) / self.count.max(1) as u64;
            Ok(Report::new("pod-memory")
                .row("pods", self.count as f64, "")
                .megabytes("PSS with one pod", before)
                .megabytes("PSS with all pods", after)
                .megabytes("PSS per pod", per_pod))
        })
        .await
    }

    async fn rest_and_read(&self) -> Result<u64> {
        settled_pss_bytes(&self.processes.find()?, Duration::from_secs(self.settle_seconds)).await
    }
}

/// Creates pods and tells when each was first seen Running.
pub(super) async fn run_pods(
    sandbox: &Sandbox,
    count: usize,
    pod: impl Fn(usize) -> Bytes,
) -> Result<Vec<Instant>> {
    let mut connection = sandbox.connect().await?;
    let version = sandbox.resource_version(&mut connection).await?;
    let path = format!("{}?watch=true&resourceVersion={version}", sandbox.path("pods"));
    let watch = sandbox.connect().await?.watch(&path).await?;
    let all_running = tokio::time::timeout(PODS_WAIT, all_running(watch, count));
    let created = sandbox.create_pods(count, CREATE_CONCURRENCY, pod);
    let (running, created) = tokio::join!(all_running, created);
    created?;
    match running {
        Ok(running) => running,
        Err(_) => bail!("not all of {count} pods run after {} s", PODS_WAIT.as_secs()),
    }
}

async fn all_running(mut watch: Watch, count: usize) -> Result<Vec<Instant>> {
    let mut running = HashMap::new();
    while running.len() < count {
        let (_, pod) = watch.event().await?;
        if let Some(failure) = pods::failure(&pod) {
            bail!(failure);
        }
        if pods::is_running(&pod) {
            running.entry(pods::name(&pod).to_owned()).or_insert_with(Instant::now);
        }
    }
    Ok(running.into_values().collect())
}
