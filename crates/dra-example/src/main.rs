//! Runs the driver on a node until it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use client::config::RestConfig;
use client::transport::Https;
use client::{CancellationToken, Client};
use dra_example::driver::{self, Driver, Settings};
use dra_example::slices;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(name = "dra-example", about = "A DRA driver whose devices are nothing but names", version)]
struct Arguments {
    /// What DeviceClasses and ResourceSlices call the driver
    #[arg(long, default_value = "dra.coxswain.dev")]
    driver_name: String,
    /// What Kubernetes calls this node
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// How many devices the node has
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=128))]
    devices: u16,
    /// The kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where container runtimes look for descriptions of devices
    #[arg(long, default_value = "/var/run/cdi")]
    cdi_dir: PathBuf,
    /// The cluster
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("driver: {0}")]
    Driver(#[from] csi::Error),
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
    let config = RestConfig::from_kubeconfig(&arguments.kubeconfig)?;
    let client = Client::new(Https::new(&config)?, "dra-example");
    let settings = Settings {
        name: arguments.driver_name,
        node_name: arguments.node_name,
        devices: arguments.devices,
        cdi_dir: arguments.cdi_dir,
    };
    let driver = Driver::new(settings.clone(), client.clone());
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        served = driver::serve(driver, &arguments.kubelet_dir) => served?,
        () = slices::publish(client, &settings, stop.clone()) => {}
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    Ok(())
}
