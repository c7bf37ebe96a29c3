//! `list-pods`: what a LIST costs the server, in several forms.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::Cluster;
use crate::connection::Connection;
use crate::latency::Latencies;
use crate::pods;
use crate::process::{CpuMeter, PeakMeter};
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};

/// Connections over which the pods are made, outside of what is measured.
const CREATE_CONCURRENCY: usize = 32;

/// The label of every tenth pod.
const CHOSEN: &str = "chosen";

/// How the list is asked for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    Json,
    Protobuf,
    /// What `kubectl get` asks for
    Table,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Protobuf => "application/vnd.kubernetes.protobuf",
            Form::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct ListPods {
    /// Pods in the list
    #[arg(long, default_value_t = 3000)]
    objects: usize,
    /// Lists, one after the other
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    #[arg(long, value_enum, default_value_t = Form::Json)]
    form: Form,
    /// Only those of a label that every tenth pod has
    #[arg(long)]
    by_label: bool,
    /// In pages of so many pods; the whole list counts as one
    #[arg(long, value_name = "PODS")]
    page: Option<usize>,
}

impl ListPods {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let pod = |n| match n % 10 {
                0 => pods::labelled(&format!("pod-{n}"), CHOSEN),
                _ => pods::unscheduled(&format!("pod-{n}")),
            };
            sandbox.create_pods(self.objects, CREATE_CONCURRENCY, pod).await?;
            let mut connection = sandbox.connect().await?.accepting(self.form.media_type());
            let path = self.path(sandbox);
            let peak = PeakMeter::start(&cluster.server_pids)?;
            let bytes = self.list(&mut connection, &path).await?;
            let grown = peak.growth_bytes()?;
            let cpu = CpuMeter::start(&cluster.server_pids)?;
            let mut took = Vec::new();
            for _ in 0..self.rounds {
                let start = Instant::now();
                self.list(&mut connection, &path).await?;
                took.push(start.elapsed());
            }
            let mut report = Report::new("list-pods")
                .row("pods", self.objects as f64, "")
                .row("lists", self.rounds as f64, "")
                .megabytes("answer", bytes as u64)
                .latencies("list", &Latencies::new(took))
                .server_cpu("list", cpu.used(), self.rounds);
            if let Some(grown) = grown {
                report = report.megabytes("server memory's rise at the first list", grown);
            }
            Ok(report)
        })
        .await
    }

    fn path(&self, sandbox: &Sandbox) -> String {
        let pods = sandbox.path("pods");
        let selector = if self.by_label { format!("&labelSelector=group={CHOSEN}") } else { String::new() };
        format!("{pods}?limit={}{selector}", self.page.unwrap_or(0))
    }

    /// Reads the list to its end and tells how many bytes it had.
    async fn list(&self, connection: &mut Connection, path: &str) -> Result<usize> {
        let mut page = connection.get_bytes(path).await?;
        let mut bytes = page.len();
        while self.page.is_some()
            && let Some(token) = continue_token(&page)?
        {
            page = connection.get_bytes(&format!("{path}&continue={token}")).await?;
            bytes += page.len();
        }
        Ok(bytes)
    }
}

/// Where the next page of a list in JSON begins.
fn continue_token(page: &[u8]) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct List {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        #[serde(default, rename = "continue")]
        token: String,
    }
    let list: List = serde_json::from_slice(page).context("pages are read from lists in JSON only")?;
    Ok(Some(list.metadata.token).filter(|token| !token.is_empty()))
}
