//! Runs the driver on a node until it is told to end, and its sidecar if it is given a cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use client::config::RestConfig;
use client::transport::Https;
use client::{CancellationToken, Client};
use csi_hostpath::driver::{self, Driver, Settings};
use csi_hostpath::sidecar::Sidecar;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(name = "csi-hostpath", about = "A CSI driver whose volumes are folders of this node", version)]
struct Arguments {
    /// What StorageClasses call the driver
    #[arg(long, default_value = "hostpath.csi.coxswain.dev")]
    driver_name: String,
    /// What Kubernetes calls this node
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// Where the volumes are kept
    #[arg(long, default_value = "/var/lib/csi-hostpath")]
    state_dir: PathBuf,
    /// The kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// How many volumes this node takes; 0 for any number
    #[arg(long, default_value_t = 0)]
    max_volumes_per_node: i64,
    /// The cluster for which volumes are provisioned, attached, grown and deleted; without it only calls are answered
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("driver: {0}")]
    Driver(#[from] driver::Error),
    #[error("sockets: {0}")]
    Sockets(#[from] csi::Error),
    #[error("cluster: {0}")]
    Cluster(#[from] client::Error),
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let driver = Driver::new(Settings {
        name: arguments.driver_name,
        node_id: arguments.node_name,
        state_dir: arguments.state_dir,
        volumes_max: arguments.max_volumes_per_node,
    })?;
    let sidecar = arguments.kubeconfig.as_deref().map(|path| sidecar(path, &driver)).transpose()?;
    let stop = CancellationToken::new();
    let following = async {
        match &sidecar {
            Some(sidecar) => sidecar.run(stop.clone()).await,
            None => std::future::pending().await,
        }
    };
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        served = driver::serve(driver, &arguments.kubelet_dir) => served?,
        () = following => {}
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    Ok(())
}

fn sidecar(kubeconfig: &Path, driver: &Driver) -> Result<Sidecar, client::Error> {
    let config = RestConfig::from_kubeconfig(kubeconfig)?;
    Ok(Sidecar::new(Client::new(Https::new(&config)?, "csi-hostpath"), driver.clone()))
}
