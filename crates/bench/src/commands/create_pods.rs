//! `create-pods`: what a durable write through TLS costs.

use std::time::Instant;

use anyhow::Result;

use crate::Cluster;
use crate::pods;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::with_sandbox;

/// Creates before the measurement, so that connections, caches and code are warm.
const WARM_UP_PODS: usize = 200;

#[derive(Debug, clap::Args)]
pub struct CreatePods {
    #[arg(long, default_value_t = 3000)]
    count: usize,
    /// Connections, each with one create under way
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
}

impl CreatePods {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let CreatePods { count, concurrency } = self;
        with_sandbox(cluster.target()?, async |sandbox| {
            let warm = |n| pods::unscheduled(&format!("warm-{n}"));
            sandbox.create_pods(WARM_UP_PODS, concurrency, warm).await?;
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let start = Instant::now();
            let pod = |n| pods::unscheduled(&format!("pod-{n}"));
            let took = sandbox.create_pods(count, concurrency, pod).await?;
            let elapsed = start.elapsed();
            Ok(Report::new("create-pods")
                .row("pods", count as f64, "")
                .row("concurrency", concurrency as f64, "")
                .row("creates per second", count as f64 / elapsed.as_secs_f64(), "/s")
                .latencies("create", &took)
                .server_cpu("create", cpu.used(), count))
        })
        .await
    }
}
