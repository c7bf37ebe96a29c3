//! `list-pods`: what a full LIST costs the server.

use std::time::Instant;

use anyhow::Result;

use crate::Cluster;
use crate::latency::Latencies;
use crate::pods;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::with_sandbox;

/// Connections over which the pods are made, outside of what is measured.
const CREATE_CONCURRENCY: usize = 32;

#[derive(Debug, clap::Args)]
pub struct ListPods {
    /// Pods in the list
    #[arg(long, default_value_t = 3000)]
    objects: usize,
    /// Lists, one after the other
    #[arg(long, default_value_t = 100)]
    rounds: usize,
}

impl ListPods {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let ListPods { objects, rounds } = self;
        with_sandbox(cluster.target()?, async |sandbox| {
            let pod = |n| pods::unscheduled(&format!("pod-{n}"));
            sandbox.create_pods(objects, CREATE_CONCURRENCY, pod).await?;
            let mut connection = sandbox.connect().await?;
            let path = sandbox.path("pods");
            let bytes = connection.get_bytes(&path).await?.len();
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let mut took = Vec::new();
            for _ in 0..rounds {
                let start = Instant::now();
                connection.get_bytes(&path).await?;
                took.push(start.elapsed());
            }
            Ok(Report::new("list-pods")
                .row("pods", objects as f64, "")
                .row("lists", rounds as f64, "")
                .megabytes("answer", bytes as u64)
                .latencies("list", &Latencies::new(took))
                .server_cpu("list", cpu.used(), rounds))
        })
        .await
    }
}
