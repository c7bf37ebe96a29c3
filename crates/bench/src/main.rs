//! The load generator: drives any Kubernetes API server over HTTPS and measures what the project promises.
//!
//! It knows nothing of Coxswain but the command line of `cox up`; every other benchmark runs the same against upstream.

mod arrival;
mod background;
mod commands;
mod connection;
mod cri;
mod document;
mod http_load;
mod image;
mod kubeconfig;
mod latency;
mod mirror;
mod nginx;
mod pods;
mod process;
mod registry;
mod report;
mod sandbox;
mod services;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use commands::Command;
use kubeconfig::Target;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measure a Kubernetes API server and its node", version)]
struct Arguments {
    /// The kubeconfig of the cluster; by default $KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; by default its current one
    #[arg(long, global = true)]
    context: Option<String>,
    /// Process IDs of the server, whose CPU time is measured; may be given several times
    #[arg(long = "server-pid", global = true, value_name = "PID")]
    server_pids: Vec<u32>,
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Put the report into this Markdown file too, as a section under the command that made it
    #[arg(long, global = true, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What every benchmark is told about the cluster it drives.
#[derive(Debug)]
struct Cluster {
    kubeconfig: PathBuf,
    context: Option<String>,
    server_pids: BTreeSet<u32>,
}

impl Cluster {
    fn target(&self) -> anyhow::Result<Target> {
        Target::load(&self.kubeconfig, self.context.as_deref())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { kubeconfig, context, server_pids, output, write, command } = Arguments::parse();
    let kubeconfig = kubeconfig.unwrap_or_else(kubeconfig::default_path);
    let server_pids = server_pids.into_iter().collect();
    let report = command.run(&Cluster { kubeconfig, context, server_pids }).await?;
    if let Some(file) = write {
        document::put(&file, &report)?;
    }
    match output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}
