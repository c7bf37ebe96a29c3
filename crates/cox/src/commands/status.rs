//! `cox status`: whether the cluster runs, and how its parts are.

use std::process::ExitCode;
use std::sync::Arc;

use api::resource::{NODES, PODS};
use apimachinery::Value;
use apimachinery::json;
use client::Client;
use client::config::RestConfig;
use client::transport::Https;
use cluster::lock::Lock;
use cluster::{Layout, Settings};

use crate::cli::{OutputFormat, StatusArgs};

pub fn show(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let layout = args.cluster.layout()?;
    let pid = Lock::holder(&layout.lock());
    let report = match pid {
        Some(pid) => super::block_on_here(running(&layout, pid))?,
        None => json!({"cluster": layout.name(), "running": false, "data": layout.data().exists()}),
    };
    match args.output.output {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        OutputFormat::Text => print(&report),
    }
    Ok(if pid.is_some() && report["ready"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn running(layout: &Layout, pid: u32) -> anyhow::Result<Value> {
    let config = RestConfig::from_kubeconfig(&layout.kubeconfig())?;
    let server = config.server.clone();
    let client = Client::new(Https::new(&config)?, "cox");
    let settings = Settings::load(layout)?;
    let ready = client.send(http::Method::GET, "/readyz", None).await;
    let mut report = json!({
        "cluster": layout.name(), "running": true, "process": pid, "server": server, "ready": ready.is_ok(),
        "kubeconfig": layout.kubeconfig(), "settings": settings,
    });
    if let Err(error) = ready {
        report["problem"] = error.to_string().into();
        return Ok(report);
    }
    report["nodes"] = nodes(&client).await?.into();
    report["pods"] = pods(&client).await?;
    Ok(report)
}

async fn nodes(client: &Client) -> anyhow::Result<Vec<Value>> {
    let list = client.list(NODES, "", "").await?;
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|node| json!({"name": node["metadata"]["name"], "ready": ready(node)})).collect())
}

async fn pods(client: &Client) -> anyhow::Result<Value> {
    let list = client.list(PODS, "", "").await?;
    let mut phases = std::collections::BTreeMap::<String, usize>::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        *phases.entry(pod["status"]["phase"].as_str().unwrap_or("Unknown").to_owned()).or_default() += 1;
    }
    Ok(json!(phases))
}

fn print(report: &Value) {
    let name = report["cluster"].as_str().unwrap_or_default();
    if report["running"] != true {
        let hint = if report["data"] == true { "its data is kept" } else { "there is no data either" };
        println!("cluster {name} is not running ({hint}); start it with `cox up`");
        return;
    }
    let ready = if report["ready"] == true { "ready" } else { "NOT ready" };
    println!("cluster {name} is running (process {}) and {ready}", report["process"]);
    println!("  server      {}", report["server"].as_str().unwrap_or_default());
    println!("  kubeconfig  {}", report["kubeconfig"].as_str().unwrap_or_default());
    if let Some(problem) = report["problem"].as_str() {
        println!("  problem     {problem}");
    }
    for node in report["nodes"].as_array().into_iter().flatten() {
        let state = if node["ready"] == true { "Ready" } else { "NotReady" };
        println!("  node        {} {state}", node["name"].as_str().unwrap_or_default());
    }
    if let Some(phases) = report["pods"].as_object() {
        let counts: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        println!("  pods        {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    }
}

/// A client under the identity of a kubeconfig.
pub fn client_of(kubeconfig: &std::path::Path, agent: &str) -> anyhow::Result<(Client, RestConfig)> {
    let config = RestConfig::from_kubeconfig(kubeconfig)?;
    let transport: Arc<Https> = Https::new(&config)?;
    Ok((Client::new(transport, agent), config))
}
