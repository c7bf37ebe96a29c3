//! The parts of a cluster as services of one process: started in dependency order, stopped in reverse. One that ends
//! by itself, or panics, ends the process.

pub mod agents;
pub mod certificates;
pub mod component;
pub mod control_plane;
mod encryption_reload;
mod image_directory;
pub mod kubelet_tls;
pub mod leader;
pub mod local_path;
pub mod metrics;
pub mod node;
mod pod_network;

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use client::CancellationToken;
use tokio::task::JoinHandle;

/// What a service gets to end cleanly; then it is abandoned.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

struct Service {
    name: &'static str,
    stop: CancellationToken,
    /// What it gets to end cleanly.
    stop_timeout: Duration,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The running services, in the order of their start.
#[derive(Default)]
pub struct Services {
    running: Vec<Service>,
}

impl Services {
    /// Starts a service after all that were started before it.
    pub fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.start_patiently(name, Duration::ZERO, run);
    }

    /// The same for one whose work at the end takes `longer`.
    pub fn start_patiently<F>(
        &mut self,
        name: &'static str,
        longer: Duration,
        run: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        self.running.push(Service { name, stop, stop_timeout: STOP_TIMEOUT + longer, task });
    }

    /// Waits until a service ends though nobody told it to; says which and why.
    pub async fn failed(&mut self) -> anyhow::Error {
        if self.running.is_empty() {
            std::future::pending::<()>().await;
        }
        let tasks = self.running.iter_mut().map(|service| &mut service.task);
        let (result, index, _) = futures_util::future::select_all(tasks).await;
        let name = self.running.remove(index).name;
        match result {
            Ok(Ok(())) => anyhow!("{name} ended by itself"),
            Ok(Err(error)) => error.context(format!("{name} failed")),
            Err(panicked) => anyhow!(panicked).context(format!("{name} panicked")),
        }
    }

    /// Stops all, last started first.
    pub async fn stop(self) {
        for service in self.running.into_iter().rev() {
            service.stop.cancel();
            match tokio::time::timeout(service.stop_timeout, service.task).await {
                Ok(Ok(Ok(()))) => tracing::debug!(service = service.name, "stopped"),
                Ok(Ok(Err(error))) => {
                    tracing::warn!(service = service.name, error = format!("{error:#}"), "stopped")
                }
                Ok(Err(error)) => tracing::warn!(service = service.name, %error, "panicked while it stopped"),
                Err(_) => tracing::warn!(service = service.name, "did not stop in time"),
            }
        }
    }
}

/// Ctrl-C or SIGTERM.
pub async fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn services_stop_in_reverse_order() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut services = Services::default();
        for name in ["first", "second", "third"] {
            let order = order.clone();
            services.start(name, |stop| async move {
                stop.cancelled().await;
                order.lock().expect("no panic").push(name);
                Ok(())
            });
        }
        services.stop().await;
        assert_eq!(*order.lock().expect("no panic"), ["third", "second", "first"]);
    }

    #[tokio::test]
    async fn a_service_that_fails_is_named() {
        let mut services = Services::default();
        services.start("steady", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        services.start("shaky", |_| async { Err(anyhow!("no disk")) });
        let error = services.failed().await;
        assert_eq!(format!("{error:#}"), "shaky failed: no disk");
        services.stop().await;
    }
}
