//! `watch-fanout`: many watchers of one resource, and how soon all of them know.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde::Deserialize;

use crate::Cluster;
use crate::connection::Watch;
use crate::latency::Latencies;
use crate::pods;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};

#[derive(Debug, clap::Args)]
pub struct WatchFanout {
    /// Watches, each over a connection of its own
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Pods created, one after the other
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Pods created per second; without it, each as soon as the one before it is answered
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: Option<u32>,
    /// Watches more that never read what they are sent
    #[arg(long, default_value_t = 0)]
    stalled: usize,
}

/// When a watcher had read the creation of each pod.
type Seen = HashMap<String, Instant>;

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
        let open = async |_| sandbox.connect().await?.watch(&path).await;
        let watches = try_join_all((0..self.watchers).map(open)).await?;
        let _stalled = try_join_all((0..self.stalled).map(open)).await?;
        let cpu = CpuMeter::start(&cluster.server_pids)?;
        let start = Instant::now();
        let events = self.events;
        let readers = watches.into_iter().map(|watch| tokio::spawn(read(watch, events)));
        let readers: Vec<_> = readers.collect();
        let mut created = HashMap::new();
        for n in 0..events {
            let name = format!("pod-{n}");
            created.insert(name.clone(), self.turn(start, n).await);
            connection.post(&sandbox.path("pods"), pods::unscheduled(&name)).await?;
        }
        let seen = try_join_all(readers).await?.into_iter().collect::<Result<Vec<Seen>>>()?;
        let elapsed = start.elapsed();
        let took = Latencies::new(delays(&created, &seen)?);
        Ok(Report::new("watch-fanout")
            .row("watchers", self.watchers as f64, "")
            .row("events", events as f64, "")
            .row("stalled watchers", self.stalled as f64, "")
            .row("deliveries per second", took.len() as f64 / elapsed.as_secs_f64(), "/s")
            .latencies("create to seen", &took)
            .server_cpu("delivery", cpu.used(), took.len().max(1)))
    }

    /// When a pod's creation is due, now or then. At a given pace it is due whether or not the server keeps up, so a slow
    /// server is not spared the load that a fast one bears.
    async fn turn(&self, start: Instant, number: usize) -> Instant {
        let Some(per_second) = self.per_second else { return Instant::now() };
        let due = start + Duration::from_secs(1).mul_f64(number as f64 / f64::from(per_second));
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

/// Reads until `count` pods have been seen coming.
async fn read(mut watch: Watch, count: usize) -> Result<Seen> {
    let mut seen = Seen::new();
    while seen.len() < count {
        let line = watch.line().await?;
        let event: Event = serde_json::from_slice(&line)?;
        match event.r#type {
            "ADDED" => {
                seen.insert(event.object.metadata.name.to_owned(), Instant::now());
            }
            "ERROR" => bail!("the watch failed: {}", String::from_utf8_lossy(&line)),
            _ => {}
        }
    }
    Ok(seen)
}

fn delays(created: &Seen, seen: &[Seen]) -> Result<Vec<std::time::Duration>> {
    let pairs = seen.iter().flatten();
    pairs
        .map(|(name, at)| Ok(*at - *created.get(name).with_context(|| format!("nobody created {name}"))?))
        .collect()
}
