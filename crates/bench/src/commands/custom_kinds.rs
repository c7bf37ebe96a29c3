//! `custom-kinds`: what many CustomResourceDefinitions cost, and how soon they can be used and found.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::Cluster;
use crate::connection::Connection;
use crate::kubeconfig::Target;
use crate::process::{CpuMeter, settled_pss_bytes};
use crate::report::Report;
use crate::sandbox::{LOOK_EVERY, with_sandbox};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// How a client asks for all groups and their resources at once.
const AGGREGATED_DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// How long the kinds have to be served, and to be gone again.
const WAIT: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub struct CustomKinds {
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Connections, each with one create under way
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// How long the server rests before its memory is read
    #[arg(long, default_value_t = 10)]
    settle_seconds: u64,
}

impl CustomKinds {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let target = cluster.target()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let group = format!("bench-{now}.example.com");
        let measured = self.measure(cluster, target.clone(), &group).await;
        let removed = remove(&target, &group).await.context("cannot clean up");
        let report = measured?;
        removed.map(|()| report)
    }

    async fn measure(&self, cluster: &Cluster, target: Target, group: &str) -> Result<Report> {
        let (pids, rest) = (&cluster.server_pids, Duration::from_secs(self.settle_seconds));
        with_sandbox(target, async |sandbox| {
            let before = settled_pss_bytes(pids, rest).await?;
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let start = Instant::now();
            let took = sandbox
                .spread(self.count, self.concurrency, async |connection, n| {
                    connection.post(DEFINITIONS, definition(group, n)).await.map(drop)
                })
                .await?;
            let mut connection = sandbox.connect().await?;
            await_served(&mut connection, group, self.count).await?;
            let served = start.elapsed();
            let used = cpu.used();
            let after = settled_pss_bytes(pids, rest).await?;
            let mut discovery = sandbox.connect().await?.accepting(AGGREGATED_DISCOVERY);
            let start = Instant::now();
            let answer = discovery.get_bytes("/apis").await?;
            let report = Report::new("custom-kinds")
                .row("definitions", self.count as f64, "")
                .latencies("create", &took)
                .milliseconds("all served after", served)
                .milliseconds("discovery of all", start.elapsed())
                .megabytes("discovery document", answer.len() as u64)
                .server_cpu("definition", used, self.count);
            let grown = after.saturating_sub(before) as f64 / 1e3 / self.count.max(1) as f64;
            Ok(if pids.is_empty() { report } else { report.row("PSS per definition", grown, "kB") })
        })
        .await
    }
}

/// Waits until the objects of the last kind made, and as many kinds as there should be, can be listed.
async fn await_served(connection: &mut Connection, group: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    let last = format!("/apis/{group}/v1/things{}", count.saturating_sub(1));
    let group = format!("/apis/{group}/v1");
    while Instant::now() < deadline {
        // A server that makes room for a new kind may say for a while that it is not ready.
        let listed = connection.get(&last).await.is_ok();
        let kinds = if listed { connection.get(&group).await.unwrap_or_default() } else { Value::Null };
        if kinds["resources"].as_array().map_or(0, Vec::len) >= count {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("not all of {count} kinds are served after {} s", WAIT.as_secs())
}

async fn remove(target: &Target, group: &str) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    let selected = format!("{DEFINITIONS}?labelSelector=bench={group}");
    connection.delete(&selected).await?;
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline {
        let list = connection.get(&format!("{selected}&limit=1")).await?;
        if list["items"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("the definitions of {group} do not go")
}

/// A definition of ordinary size: a spec of a dozen fields, a status, printer columns.
fn definition(group: &str, n: usize) -> Bytes {
    let texts = (0..8).map(|n| (format!("field{n}"), json!({ "type": "string", "maxLength": 253 })));
    let mut spec: serde_json::Map<String, Value> = texts.collect();
    spec.insert("replicas".to_owned(), json!({ "type": "integer", "minimum": 0, "default": 1 }));
    spec.insert("ports".to_owned(), json!({ "type": "array", "items": { "type": "integer" } }));
    spec.insert(
        "labels".to_owned(),
        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
    );
    let status = json!({ "type": "object", "properties": { "phase": { "type": "string" } } });
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": spec },
        "status": status,
    } });
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": schema },
        "subresources": { "status": {} },
        "additionalPrinterColumns": [{ "name": "Phase", "type": "string", "jsonPath": ".status.phase" }],
    });
    let names = json!({
        "plural": format!("things{n}"), "singular": format!("thing{n}"),
        "kind": format!("Thing{n}"), "listKind": format!("Thing{n}List"),
    });
    Bytes::from(
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("things{n}.{group}"), "labels": { "bench": group } },
            "spec": { "group": group, "scope": "Cluster", "names": names, "versions": [version] },
        })
        .to_string(),
    )
}
