//! `memory`: what the server's processes hold at rest, and grow by for each watch more and each stored pod.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Cluster;
use crate::pods;
use crate::process::settled_pss_bytes;
use crate::report::Report;
use crate::sandbox::with_sandbox;
use crate::watches::Sharing;

/// Of so many watches the first is opened beforehand: what the first ones bring into memory, such as code, serves all.
const AMONG: usize = 10;

/// Connections over which the pods are made.
const CREATE_CONCURRENCY: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Memory {
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    #[command(flatten)]
    sharing: Sharing,
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// How long the server rests before its memory is read
    #[arg(long, default_value_t = 10)]
    settle_seconds: u64,
}

impl Memory {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let (pids, rest) = (&cluster.server_pids, Duration::from_secs(self.settle_seconds));
        ensure!(!pids.is_empty(), "whose memory? name the server's processes with --server-pid");
        with_sandbox(cluster.target()?, async |sandbox| {
            let idle = settled_pss_bytes(pids, rest).await?;
            let path = format!("{}?watch=true", sandbox.path("configmaps"));
            let open = |count| self.sharing.open(&sandbox.target, &path, count);
            let _first = open(self.watchers.div_ceil(AMONG)).await?;
            let begun = settled_pss_bytes(pids, rest).await?;
            let watches = open(self.watchers).await?;
            let watched = settled_pss_bytes(pids, rest).await?;
            drop(watches);
            let before = settled_pss_bytes(pids, rest).await?;
            let pod = |n| pods::unscheduled(&format!("pod-{n}"));
            sandbox.create_pods(self.pods, CREATE_CONCURRENCY, pod).await?;
            let stored = settled_pss_bytes(pids, rest).await?;
            let each = |more: u64, less: u64, count: usize| {
                more.saturating_sub(less) as f64 / 1e3 / count.max(1) as f64
            };
            Ok(Report::new("memory")
                .megabytes("PSS at rest", idle)
                .megabytes("PSS with the first watches", begun)
                .row("PSS per watch", each(watched, begun, self.watchers), "kB")
                .row("PSS per stored pod", each(stored, before, self.pods), "kB"))
        })
        .await
    }
}
