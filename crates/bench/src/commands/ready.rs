//! `ready`: how long an API server takes from its start to its first `ok` at `/readyz`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::Cluster;
use crate::connection::Connection;
use crate::kubeconfig::Target;
use crate::report::Report;

/// Between two attempts; what is measured is no finer than this.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub struct Ready {
    /// Past so many seconds the server will not come
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// What starts the server of the kubeconfig and goes on as long as it runs; it is killed at the end
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

impl Ready {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let target = cluster.target()?;
        if ready(&target).await.is_ok() {
            bail!("a server answers at {}:{} already", target.host, target.port);
        }
        let (program, arguments) = self.server.split_first().context("no server is named")?;
        let start = Instant::now();
        let mut server = Command::new(program);
        server
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut server = server.spawn().with_context(|| format!("cannot start {program}"))?;
        let wait = Duration::from_secs(self.timeout);
        tokio::time::timeout(wait, until_ready(&target, &mut server))
            .await
            .context("it does not get ready")??;
        let took = start.elapsed();
        server.kill().await?;
        Ok(Report::new("ready").milliseconds("start to ready", took))
    }
}

async fn until_ready(target: &Target, server: &mut Child) -> Result<()> {
    while ready(target).await.is_err() {
        if let Some(status) = server.try_wait()? {
            bail!("the server ended: {status}");
        }
        tokio::time::sleep(ATTEMPT_INTERVAL).await;
    }
    Ok(())
}

async fn ready(target: &Target) -> Result<()> {
    Connection::open(target).await?.get_bytes("/readyz").await.map(drop)
}
