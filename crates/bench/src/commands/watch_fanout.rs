//! `watch-fanout`: many watchers of one resource, and how soon all of them know.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::Cluster;
use crate::arrival::Arrival;
use crate::background::Background;
use crate::connection::Watch;
use crate::kubeconfig::Target;
use crate::latency::Latencies;
use crate::pods;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};
use crate::watches::Sharing;

/// Stamps of the kernel and times of ours are of the same clock, which anybody may set.
const CLOCK_WAS_SET: &str = "the clock was set back meanwhile";

/// Many watchers of the same pods
///
/// An event counts as delivered when its last bytes reached the watcher's socket, by the kernel's stamp. All watchers
/// read on one thread, so that the other processors are the server's; at the ordinary priority, for what waits in a
/// socket the kernel merges under its latest stamp. It is the same against every server.
#[derive(Debug, clap::Args)]
pub struct WatchFanout {
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    #[command(flatten)]
    sharing: Sharing,
    /// Pods created, one after the other
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Pods created per second; without it, each as soon as the one before it is answered
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: Option<u32>,
    /// Watches more that never read what they are sent, each over a connection of its own
    #[arg(long, default_value_t = 0)]
    stalled: usize,
}

/// When each pod was to be created, or its creation reached a watcher.
type Times = HashMap<String, SystemTime>;

/// What a watcher looks at of an event. All the watchers share a machine with the server: were they to read the rest of
/// each pod too, their own work would be most of what is measured.
#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(default)]
    name: &'a str,
}

impl WatchFanout {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| self.measure(sandbox, cluster).await).await
    }

    async fn measure(&self, sandbox: &Sandbox, cluster: &Cluster) -> Result<Report> {
        let mut connection = sandbox.connect().await?;
        let version = sandbox.resource_version(&mut connection).await?;
        let path = format!("{}?watch=true&resourceVersion={version}", sandbox.path("pods"));
        let background = Background::start()?;
        let readers = self.open(&background, sandbox.target.clone(), path.clone()).await?;
        let stall = async |_| sandbox.connect().await?.watch(&path).await;
        let _stalled = try_join_all((0..self.stalled).map(stall)).await?;
        let cpu = CpuMeter::start(&cluster.server_pids)?;
        let (start, events) = (Instant::now(), self.events);
        let begun = SystemTime::now();
        let mut created = Times::new();
        for n in 0..events {
            let name = format!("pod-{n}");
            created.insert(name.clone(), self.turn(start, n).await);
            connection.post(&sandbox.path("pods"), pods::unscheduled(&name)).await?;
        }
        let arrived = try_join_all(readers).await?.into_iter().collect::<Result<Vec<Times>>>()?;
        let last = arrived.iter().flat_map(Times::values).max().context("nothing was delivered")?;
        let elapsed = last.duration_since(begun).context(CLOCK_WAS_SET)?;
        let took = Latencies::new(delays(&created, &arrived)?);
        Ok(Report::new("watch-fanout")
            .row("watchers", self.watchers as f64, "")
            .row("events", events as f64, "")
            .row("stalled watchers", self.stalled as f64, "")
            .row("deliveries per second", took.len() as f64 / elapsed.as_secs_f64(), "/s")
            .latencies("create to arrival", &took)
            .server_cpu("delivery", cpu.used(), took.len()))
    }

    /// Opens the watches and reads what comes.
    async fn open(
        &self,
        background: &Background,
        target: Target,
        path: String,
    ) -> Result<Vec<JoinHandle<Result<Times>>>> {
        let (sharing, watchers, events) = (self.sharing, self.watchers, self.events);
        let opened = background.runtime.spawn(async move {
            let watches = sharing.open(&target, &path, watchers).await?;
            Ok(watches.into_iter().map(|watch| tokio::spawn(read(watch, events))).collect())
        });
        opened.await?
    }

    /// When a pod's creation is due, now or then. At a given pace it is due whether or not the server keeps up, so a slow
    /// server is not spared the load that a fast one bears.
    async fn turn(&self, start: Instant, number: usize) -> SystemTime {
        let Some(per_second) = self.per_second else { return SystemTime::now() };
        let due = start + Duration::from_secs(1).mul_f64(number as f64 / f64::from(per_second));
        tokio::time::sleep_until(due.into()).await;
        SystemTime::now() - due.elapsed()
    }
}

/// Reads until `count` pods have been seen coming.
async fn read((mut watch, arrival): (Watch, Arrival), count: usize) -> Result<Times> {
    let mut arrived = Times::new();
    while arrived.len() < count {
        let line = watch.line().await?;
        let event: Event = serde_json::from_slice(&line)?;
        match event.r#type {
            "ADDED" => {
                let time = arrival.time().context("the kernel did not say when an event arrived")?;
                arrived.insert(event.object.metadata.name.to_owned(), time);
            }
            "ERROR" => bail!("the watch failed: {}", String::from_utf8_lossy(&line)),
            _ => {}
        }
    }
    Ok(arrived)
}

fn delays(created: &Times, arrived: &[Times]) -> Result<Vec<Duration>> {
    let delay = |(name, arrived): (&String, &SystemTime)| {
        let created = created.get(name).with_context(|| format!("nobody created {name}"))?;
        arrived.duration_since(*created).context(CLOCK_WAS_SET)
    };
    arrived.iter().flatten().map(delay).collect()
}
