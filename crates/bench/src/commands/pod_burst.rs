//! `pod-burst`: many pods at once, until the last of them runs.

use std::time::Instant;

use anyhow::Result;

use crate::Cluster;
use crate::latency::Latencies;
use crate::pods::{self, Image};
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::with_sandbox;

use super::pod_memory::run_pods;

#[derive(Debug, clap::Args)]
pub struct PodBurst {
    #[arg(long, default_value_t = 50)]
    count: usize,
    #[command(flatten)]
    image: Image,
}

impl PodBurst {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let start = Instant::now();
            let pod = |n| pods::running(&format!("pod-{n}"), &self.image);
            let running = run_pods(sandbox, self.count, pod).await?;
            let took = running.iter().map(|at| *at - start).collect();
            Ok(Report::new("pod-burst")
                .row("pods", self.count as f64, "")
                .latencies("begin to Running", &Latencies::new(took))
                .server_cpu("pod", cpu.used(), self.count))
        })
        .await
    }
}
