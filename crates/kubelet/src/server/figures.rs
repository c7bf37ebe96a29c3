//! Figures of what runs here: asks for a reading and has it written down.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::core::Pod;
use apimachinery::Value;
use client::query::query_value;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use runtime::cri;

use super::metrics::{self, Counts};
use super::{Body, Refusal, Server, text};
use crate::pod::resize::{IN_PROGRESS, PENDING};
use crate::staticpods::mirrored_uid;
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

    pub(super) async fn summary(&self, query: &str) -> Result<Value, Refusal> {
        let (reading, volumes) = (self.reading().await?, self.volumes().await);
        let mut summary = summary::summary(&self.shared.config.node_name, &reading, &volumes);
        if query_value(query, "only_cpu_and_memory").as_deref() == Some("true") {
            summary::keep_cpu_and_memory(&mut summary);
        }
        Ok(summary)
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
        let mut text = self.shared.probe_metrics.text();
        client::process::write_start(&mut text, Timestamp::now());
        figures(text)
    }

    pub(super) fn sli_metrics(&self) -> Response<Body> {
        figures(self.outcomes.render(Timestamp::now()))
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
        self.shared.operations.write(&mut text);
        let now = Timestamp::now();
        self.shared.metrics.write(&mut text, now);
        self.shared.containers.write_metrics(&mut text);
        self.shared.dra.write_metrics(&mut text);
        self.requests.write(&mut text);
        config.figures.iter().for_each(|figures| figures.write(&mut text));
        client::process::write(&mut text, now);
        Ok(figures(text))
    }

    async fn counts(&self) -> Result<Counts, tonic::Status> {
        let mut client = self.shared.runtime.runtime.clone();
        let sandboxes = client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.into_inner();
        let ready = |sandbox: &&cri::PodSandbox| sandbox.state() == cri::PodSandboxState::SandboxReady;
        let containers = client.list_containers(cri::ListContainersRequest::default()).await?.into_inner();
        let in_state = |state| containers.containers.iter().filter(|of| of.state() == state).count();
        use cri::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning, ContainerUnknown};
        let pods = self.pods.list();
        // Static pods are here as their mirrors.
        let count = |wanted: fn(&Pod) -> bool| {
            let wanted: Vec<&Arc<Pod>> = pods.iter().filter(|pod| wanted(pod)).collect();
            let mirrored = wanted.iter().filter(|pod| mirrored_uid(pod).is_some()).count();
            [wanted.len() - mirrored, mirrored]
        };
        let desired_pods = count(|_| true);
        let conditions = || pods.iter().flat_map(|pod| &pod.status.conditions).filter(|c| c.is_true());
        let mut pending_resizes = BTreeMap::new();
        for condition in conditions().filter(|condition| condition.kind == PENDING) {
            *pending_resizes.entry(condition.reason.to_lowercase()).or_default() += 1;
        }
        Ok(Counts {
            running_pods: sandboxes.items.iter().filter(ready).count(),
            containers: vec![
                ("created", in_state(ContainerCreated)),
                ("exited", in_state(ContainerExited)),
                ("running", in_state(ContainerRunning)),
                ("unknown", in_state(ContainerUnknown)),
            ],
            desired_pods,
            pending_resizes,
            resizes_in_progress: conditions().filter(|condition| condition.kind == IN_PROGRESS).count(),
            active_pods: count(|pod| !pod.is_terminal()),
            mirror_pods: desired_pods[1],
            cgroup_version: if self.shared.cgroups.is_v2() { 2.0 } else { 1.0 },
            ephemeral_containers: pods.iter().map(|pod| pod.spec.ephemeral_containers.len()).sum(),
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
