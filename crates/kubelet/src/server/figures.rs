//! Figures of what runs here: asks for a reading and has it written down.

use std::sync::Arc;

use apimachinery::Value;
use http::{HeaderValue, Response, StatusCode, header};
use runtime::cri;

use super::metrics::{self, Counts};
use super::{Body, Refusal, Server, text};
use crate::stats::cgroup::Told;
use crate::stats::volumes::ByPod;
use crate::stats::{Reading, summary};

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Server {
    pub(super) async fn reading(&self) -> Result<Arc<Reading>, Refusal> {
        self.stats.read(&self.shared.config, &self.shared.runtime).await.map_err(refused)
    }

    async fn volumes(&self) -> Arc<ByPod> {
        self.stats.volumes.read(&self.shared.config, &self.shared.csi_drivers, self.pods.list()).await
    }

    pub(super) async fn summary(&self) -> Result<Value, Refusal> {
        let (reading, volumes) = (self.reading().await?, self.volumes().await);
        Ok(summary::summary(&self.shared.config.node_name, &reading, &volumes))
    }

    pub(super) async fn resource_metrics(&self) -> Result<Response<Body>, Refusal> {
        Ok(figures(metrics::resource(&*self.reading().await?)))
    }

    pub(super) async fn cadvisor_metrics(&self) -> Result<Response<Body>, Refusal> {
        let reading = self.reading().await?;
        let config = &self.shared.config;
        let (root, folder, read) =
            (config.kubelet.cgroup_root.clone(), config.root_dir.clone(), reading.clone());
        let told = tokio::task::spawn_blocking(move || Told::read(&read, &root, &folder));
        let told = told.await.expect("reading does not panic");
        Ok(figures(metrics::cadvisor(&reading, &told, &self.shared.about)))
    }

    pub(super) fn probe_metrics(&self) -> Response<Body> {
        figures(self.shared.probe_metrics.text())
    }

    pub(super) async fn kubelet_metrics(&self) -> Result<Response<Body>, Refusal> {
        let (counts, volumes) = (self.counts().await.map_err(refused)?, self.volumes().await);
        let pods = self.pods.list();
        let mut claims = Vec::new();
        for pod in &pods {
            for volume in volumes.get(&pod.metadata.uid).into_iter().flatten() {
                let Some(claim) = &volume.claim else { continue };
                claims.push((pod.metadata.namespace.as_str(), claim.as_str(), volume));
            }
        }
        // Pods that share a claim tell of the same volume.
        claims.sort_by_key(|(namespace, claim, _)| (*namespace, *claim));
        claims.dedup_by_key(|(namespace, claim, _)| (*namespace, *claim));
        let config = &self.shared.config;
        let mut text = metrics::kubelet(&config.node_name, &config.version, &counts, &claims);
        self.shared.started.write(&mut text);
        Ok(figures(text))
    }

    async fn counts(&self) -> Result<Counts, tonic::Status> {
        let mut client = self.shared.runtime.runtime.clone();
        let sandboxes = client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.into_inner();
        let ready = |sandbox: &&cri::PodSandbox| sandbox.state() == cri::PodSandboxState::SandboxReady;
        let containers = client.list_containers(cri::ListContainersRequest::default()).await?.into_inner();
        let count = |state| containers.containers.iter().filter(|of| of.state() == state).count();
        use cri::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning, ContainerUnknown};
        Ok(Counts {
            running_pods: sandboxes.items.iter().filter(ready).count(),
            containers: vec![
                ("created", count(ContainerCreated)),
                ("exited", count(ContainerExited)),
                ("running", count(ContainerRunning)),
                ("unknown", count(ContainerUnknown)),
            ],
            desired_pods: self.pods.list().iter().filter(|pod| !pod.is_terminal()).count(),
        })
    }
}

fn refused(status: tonic::Status) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("runtime: {}", status.message()))
}

fn figures(body: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    response
}
