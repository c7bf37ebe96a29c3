//! `start`: how long a user waits for a cluster.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::connection::Connection;
use crate::kubeconfig::Target;
use crate::report::Report;

/// Past this the cluster will not come.
const READY_WAIT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct Start {
    /// The `cox` to start
    #[arg(long)]
    cox: PathBuf,
    /// The name of the cluster made for the measurement; none of that name may exist, and it is purged at the end
    #[arg(long, default_value = "bench")]
    name: String,
}

impl Start {
    pub async fn run(self) -> Result<Report> {
        let measured = self.measure().await;
        let purged = self.cox(&["down", "--purge"]).await.context("cannot remove the cluster again");
        let (first, second) = measured?;
        purged?;
        Ok(Report::new("start")
            .milliseconds("up -d to Ready, no data", first)
            .milliseconds("up -d to Ready, second start", second))
    }

    async fn measure(&self) -> Result<(Duration, Duration)> {
        let first = self.start().await?;
        self.cox(&["down"]).await?;
        Ok((first, self.start().await?))
    }

    /// Starts the cluster and waits until its node says Ready.
    async fn start(&self) -> Result<Duration> {
        let start = Instant::now();
        self.cox(&["up", "-d"]).await?;
        let kubeconfig = String::from_utf8(self.cox(&["kubeconfig"]).await?.stdout)?;
        let target = Target::parse(&kubeconfig, None, Path::new("/"))?;
        tokio::time::timeout(READY_WAIT, node_ready(&target))
            .await
            .context("the node does not get ready")??;
        Ok(start.elapsed())
    }

    async fn cox(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.cox);
        command.args(arguments).args(["--name", &self.name]).stdin(Stdio::null());
        let said = || format!("{} {}", self.cox.display(), arguments.join(" "));
        let output = command.output().await.with_context(said)?;
        if !output.status.success() {
            bail!("{}: {}: {}", said(), output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output)
    }
}

async fn node_ready(target: &Target) -> Result<()> {
    let list = Connection::open(target).await?.get("/api/v1/nodes").await?;
    if list["items"].as_array().is_some_and(|nodes| nodes.iter().any(is_ready)) {
        return Ok(());
    }
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let path = format!("/api/v1/nodes?watch=true&resourceVersion={version}");
    let mut watch = Connection::open(target).await?.watch(&path).await?;
    while !is_ready(&watch.event().await?.1) {}
    Ok(())
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
