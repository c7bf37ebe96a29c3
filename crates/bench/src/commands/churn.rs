//! `churn`: many updates of the same objects, and what they leave on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;

use crate::Cluster;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::with_sandbox;

#[derive(Debug, clap::Args)]
pub struct Churn {
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    #[arg(long, default_value_t = 1_000_000)]
    updates: usize,
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// The folder where the server stores its data
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

impl Churn {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let path = sandbox.path("configmaps");
            let before = size(&self.data_dir)?;
            sandbox
                .spread(self.objects, self.concurrency, async |connection, n| {
                    connection.post(&path, object(n)).await.map(drop)
                })
                .await?;
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let start = Instant::now();
            let took = sandbox
                .spread(self.updates, self.concurrency, async |connection, n| {
                    let path = format!("{path}/object-{}", n % self.objects);
                    let data = json!({ "data": { "round": n.to_string() } });
                    connection.patch(&path, Bytes::from(data.to_string())).await.map(drop)
                })
                .await?;
            let rate = self.updates as f64 / start.elapsed().as_secs_f64();
            let used = cpu.used();
            let after = size(&self.data_dir)?;
            Ok(Report::new("churn")
                .row("objects", self.objects as f64, "")
                .row("updates", self.updates as f64, "")
                .row("updates per second", rate, "/s")
                .latencies("update", &took)
                .server_cpu("update", used, self.updates)
                .megabytes("on disk before", before)
                .megabytes("on disk after", after))
        })
        .await
    }
}

/// A ConfigMap of about a kilobyte.
fn object(n: usize) -> Bytes {
    let data = json!({ "round": "none", "text": "x".repeat(1000) });
    Bytes::from(
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": format!("object-{n}") },
            "data": data,
        })
        .to_string(),
    )
}

/// The bytes in all files of a folder and those below it.
fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            // The server may remove a file while we look.
            false => entry.metadata().map(|file| file.len()).unwrap_or_default(),
        };
    }
    Ok(sum)
}
