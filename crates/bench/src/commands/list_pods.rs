//! `list-pods`: what a LIST costs the server, in several forms.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum as _;

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
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Form {
    Json,
    Protobuf,
    /// What `kubectl get` asks for
    Table,
    /// In JSON, only those of a label that every tenth pod has
    ByLabel,
    /// In JSON, in pages; the whole list counts as one
    Paged,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Json => "list in JSON",
            Form::Protobuf => "list in protobuf",
            Form::Table => "list as Table",
            Form::ByLabel => "list by label",
            Form::Paged => "list in pages",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Form::Json | Form::ByLabel | Form::Paged => "application/json",
            Form::Protobuf => "application/vnd.kubernetes.protobuf",
            Form::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        }
    }

    fn query(self, page: usize) -> String {
        match self {
            Form::ByLabel => format!("?labelSelector=group={CHOSEN}"),
            Form::Paged => format!("?limit={page}"),
            Form::Json | Form::Protobuf | Form::Table => String::new(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct ListPods {
    /// Pods in the list
    #[arg(long, default_value_t = 3000)]
    objects: usize,
    /// Lists in each form, one after the other
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Only in this form; otherwise in all of them
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// Pods in a page; kubectl asks for so many
    #[arg(long, value_name = "PODS", default_value_t = 500)]
    page: usize,
}

impl ListPods {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| {
            let pod = |n| match n % 10 {
                0 => pods::labelled(&format!("pod-{n}"), CHOSEN),
                _ => pods::unscheduled(&format!("pod-{n}")),
            };
            sandbox.create_pods(self.objects, CREATE_CONCURRENCY, pod).await?;
            let mut report = Report::new("list-pods").row("pods", self.objects as f64, "").row(
                "lists in each form",
                self.rounds as f64,
                "",
            );
            let asked = |form: &Form| self.form.is_none_or(|only| only == *form);
            for form in Form::value_variants().iter().copied().filter(asked) {
                report = self.measure(form, cluster, sandbox, report).await?;
            }
            Ok(report)
        })
        .await
    }

    async fn measure(
        &self,
        form: Form,
        cluster: &Cluster,
        sandbox: &Sandbox,
        report: Report,
    ) -> Result<Report> {
        let mut connection = sandbox.connect().await?.accepting(form.media_type());
        let path = format!("{}{}", sandbox.path("pods"), form.query(self.page));
        let peak = PeakMeter::start(&cluster.server_pids)?;
        let bytes = list(&mut connection, &path, form).await?;
        let grown = peak.growth_bytes()?;
        let cpu = CpuMeter::start(&cluster.server_pids)?;
        let mut took = Vec::new();
        for _ in 0..self.rounds {
            let start = Instant::now();
            list(&mut connection, &path, form).await?;
            took.push(start.elapsed());
        }
        let name = form.name();
        let mut report = report
            .megabytes(format!("{name}, answer"), bytes as u64)
            .latencies(name, &Latencies::new(took))
            .server_cpu(name, cpu.used(), self.rounds);
        if let Some(grown) = grown {
            report = report.megabytes(format!("{name}, server memory's rise at the first"), grown);
        }
        Ok(report)
    }
}

/// Reads the list to its end and tells how many bytes it had.
async fn list(connection: &mut Connection, path: &str, form: Form) -> Result<usize> {
    let mut page = connection.get_bytes(path).await?;
    let mut bytes = page.len();
    while form == Form::Paged
        && let Some(token) = continue_token(&page)?
    {
        page = connection.get_bytes(&format!("{path}&continue={token}")).await?;
        bytes += page.len();
    }
    Ok(bytes)
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
    let list: List = serde_json::from_slice(page).context("a page is no list")?;
    Ok(Some(list.metadata.token).filter(|token| !token.is_empty()))
}
