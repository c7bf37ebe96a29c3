//! `operations`: what everyday requests on single objects cost: get, status patch, lease renewal, delete.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::Cluster;
use crate::connection::Connection;
use crate::pods;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};

#[derive(Debug, clap::Args)]
pub struct Operations {
    /// Pods, and requests of each sort
    #[arg(long, default_value_t = 3000)]
    count: usize,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
}

impl Operations {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let pod = |n| pods::unscheduled(&pod_name(n));
            sandbox.create_pods(self.count, self.concurrency, pod).await?;
            let rig = Rig { sandbox, cluster, operations: &self };
            let pods = sandbox.path("pods");
            let report = Report::new("operations").row("requests of each sort", self.count as f64, "");
            let report = rig
                .measure(report, "get", async |connection, n| {
                    connection.get_bytes(&format!("{pods}/{}", pod_name(n))).await.map(drop)
                })
                .await?;
            let report = rig
                .measure(report, "status patch", async |connection, n| {
                    let path = format!("{pods}/{}/status", pod_name(n));
                    connection.patch(&path, starting(n)).await.map(drop)
                })
                .await?;
            let report = rig.renewals(report).await?;
            rig.measure(report, "delete", async |connection, n| {
                connection.delete(&format!("{pods}/{}", pod_name(n))).await.map(drop)
            })
            .await
        })
        .await
    }
}

/// What every sort of request is measured with.
struct Rig<'a> {
    sandbox: &'a Sandbox,
    cluster: &'a Cluster,
    operations: &'a Operations,
}

impl Rig<'_> {
    async fn measure(
        &self,
        report: Report,
        name: &str,
        work: impl AsyncFn(&mut Connection, usize) -> Result<()>,
    ) -> Result<Report> {
        let Operations { count, concurrency } = *self.operations;
        let cpu = CpuMeter::start(&self.cluster.server_pids)?;
        let start = Instant::now();
        let took = self.sandbox.spread(count, concurrency, work).await?;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        let report = report.row(format!("{name}s per second"), rate, "/s").latencies(name, &took);
        Ok(report.server_cpu(name, cpu.used(), count))
    }

    /// Renews leases as kubelets do: the whole object, at the revision seen last.
    async fn renewals(&self, report: Report) -> Result<Report> {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.sandbox.namespace);
        let nodes = self.operations.concurrency;
        self.sandbox
            .spread(nodes, nodes, async |connection, n| {
                connection.post(&leases, Bytes::from(lease(n).to_string())).await.map(drop)
            })
            .await?;
        let held: Vec<_> = (0..nodes).map(|n| Mutex::new(lease(n))).collect();
        for (n, lease) in held.iter().enumerate() {
            *lease.lock().await = self.sandbox.connect().await?.get(&format!("{leases}/node-{n}")).await?;
        }
        self.measure(report, "lease renewal", async |connection, n| {
            let mut lease = held[n % nodes].lock().await;
            lease["spec"]["renewTime"] = json!(format!("2030-01-01T00:00:00.{:06}Z", n % 1_000_000));
            let path = format!("{leases}/node-{}", n % nodes);
            let renewed = connection.put(&path, Bytes::from(lease.to_string())).await?;
            *lease = serde_json::from_slice(&renewed)?;
            Ok(())
        })
        .await
    }
}

fn pod_name(n: usize) -> String {
    format!("pod-{n}")
}

/// What a kubelet says of a pod that it has just accepted.
fn starting(n: usize) -> Bytes {
    let condition = json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null });
    let status = json!({ "hostIP": "192.0.2.1", "message": format!("pod {n}"), "conditions": [condition] });
    Bytes::from(json!({ "status": status }).to_string())
}

fn lease(n: usize) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": format!("node-{n}") },
        "spec": { "holderIdentity": format!("node-{n}"), "leaseDurationSeconds": 40 },
    })
}
