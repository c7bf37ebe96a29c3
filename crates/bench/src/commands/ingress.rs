//! `ingress`: what a small response costs that comes through the cluster's Ingress, and through nginx as a proxy of the
//! same backend. What counts is the CPU time of each: how many responses one core can pass on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::json;

use crate::Cluster;
use crate::http_load;
use crate::nginx::Nginx;
use crate::process::CpuMeter;
use crate::report::{Report, Versus};
use crate::sandbox::{LOOK_EVERY, Sandbox, with_sandbox};
use crate::services::{self, Protocol};

/// How long the Ingress may take to be served.
const SERVED_WAIT: Duration = Duration::from_secs(30);

/// Before it counts, so that connections are there.
const WARM_UP: Duration = Duration::from_millis(500);

const HOST: &str = "bench.example.org";
const NAME: &str = "bench";

/// What the project promises itself of nginx' throughput.
const REACH: f64 = 0.8;

#[derive(Debug, clap::Args)]
pub struct Ingress {
    /// Where the cluster serves Ingresses; its process is named by --server-pid
    #[arg(long)]
    proxy: SocketAddr,
    /// nginx to compare with
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// Connections that clients keep open
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How long each proxy is measured at a time
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often both are measured, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What passed through a proxy.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    responses: usize,
    cpu: Duration,
    elapsed: Duration,
}

impl Passed {
    fn add(&mut self, other: Passed) {
        self.responses += other.responses;
        self.cpu += other.cpu;
        self.elapsed += other.elapsed;
    }

    fn per_core(&self) -> f64 {
        self.responses as f64 / self.cpu.as_secs_f64()
    }

    fn per_second(&self) -> f64 {
        self.responses as f64 / self.elapsed.as_secs_f64()
    }
}

impl Ingress {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        if cluster.server_pids.is_empty() {
            bail!("whose CPU time? name the cluster's process with --server-pid");
        }
        with_sandbox(cluster.target()?, async |sandbox| self.measure(sandbox, cluster).await).await
    }

    async fn measure(&self, sandbox: &Sandbox, cluster: &Cluster) -> Result<Report> {
        let backend = http_load::serve(sandbox.own_address()?).await?;
        publish(sandbox, backend).await?;
        self.await_served().await?;
        let nginx = Nginx::start(&self.nginx, backend).await?;
        let (mut ours, mut theirs) = (Passed::default(), Passed::default());
        for _ in 0..self.rounds {
            ours.add(self.load(self.proxy, &cluster.server_pids).await?);
            theirs.add(self.load(nginx.address, &nginx.pids()?).await?);
        }
        let (one, other) = (ours.per_core(), theirs.per_core());
        let versus = Some(Versus { value: other, ratio: one / other, reach: Some(REACH) });
        let mut report = Report::new("ingress")
            .row("connections", self.connections as f64, "")
            .row("responses per second of one core", one, "/s")
            .row("responses per second", ours.per_second(), "/s")
            .row("nginx: responses per second", theirs.per_second(), "/s");
        report.rows[1].versus = versus;
        Ok(report)
    }

    async fn load(&self, proxy: SocketAddr, pids: &std::collections::BTreeSet<u32>) -> Result<Passed> {
        http_load::ask(proxy, HOST, self.connections, Instant::now() + WARM_UP).await?;
        let cpu = CpuMeter::start(pids)?;
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let took = http_load::ask(proxy, HOST, self.connections, end).await?;
        let cpu = cpu.used().context("no process was measured")?;
        Ok(Passed { responses: took.len(), cpu, elapsed: start.elapsed() })
    }

    async fn await_served(&self) -> Result<()> {
        let deadline = Instant::now() + SERVED_WAIT;
        loop {
            match http_load::ask(self.proxy, HOST, 1, Instant::now() + LOOK_EVERY).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("the Ingress is not served"));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// A Service that leads to the backend, and an Ingress that leads to the Service.
async fn publish(sandbox: &Sandbox, backend: SocketAddr) -> Result<()> {
    let mut connection = sandbox.connect().await?;
    services::create(sandbox, &mut connection, NAME, Protocol::Tcp).await?;
    let slice = services::slice(NAME, Protocol::Tcp, &[backend.ip()], backend.port());
    connection.post(&services::slices_path(sandbox), slice).await?;
    let backend = json!({ "service": { "name": NAME, "port": { "number": services::PORT } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": NAME },
        "spec": { "rules": [{ "host": HOST, "http": { "paths": [path] } }] },
    });
    let path = format!("/apis/networking.k8s.io/v1/namespaces/{}/ingresses", sandbox.namespace);
    connection.post(&path, Bytes::from(ingress.to_string())).await.map(drop)
}
