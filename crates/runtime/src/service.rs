//! The CRI's runtime service: each call handed to the module that does it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::cri::runtime_service_server::RuntimeService;
use crate::cri::*;
use crate::runtime::{Runtime, now};
use crate::streaming;
use crate::{Error, container, exec, sandbox};

/// What the CRI calls its own version.
const CRI_VERSION: &str = "v1";
/// `Version`'s field of old; every runtime answers this.
const KUBELET_API_VERSION: &str = "0.1.0";
const RUNTIME_NAME: &str = "coxswain";

/// The services as tonic serves them; cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(crate) runtime: Arc<Runtime>,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: crate::Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| {
        let status = Status::from(error);
        tracing::debug!(code = ?status.code(), message = status.message(), "request failed");
        status
    })
}

fn missing(what: &str) -> Status {
    Error::InvalidArgument(format!("{what} is missing")).into()
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: KUBELET_API_VERSION.to_owned(),
            runtime_name: RUNTIME_NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: CRI_VERSION.to_owned(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let id = self.runtime.run_sandbox(config, request.runtime_handler).await;
        answer(id.map(|pod_sandbox_id| RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let stopped = self.runtime.stop_sandbox(&request.into_inner().pod_sandbox_id).await;
        answer(stopped.map(|()| StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let removed = self.runtime.remove_sandbox(&request.into_inner().pod_sandbox_id).await;
        answer(removed.map(|()| RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        answer(self.runtime.sandbox(&request.pod_sandbox_id).map(|record| PodSandboxStatusResponse {
            status: Some(sandbox::status(&record)),
            info: info(request.verbose, || json!({"pid": record.shim, "config": record.config})),
            containers_statuses: self.runtime.statuses_of(&record.id),
            timestamp: now(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        Ok(Response::new(ListPodSandboxResponse { items: self.runtime.list_sandboxes(&filter) }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let id = self.runtime.create_container(&request.pod_sandbox_id, config);
        answer(id.map(|container_id| CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let started = self.runtime.start_container(&request.into_inner().container_id).await;
        answer(started.map(|()| StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let stopped = self.runtime.stop_container(&request.container_id, request.timeout).await;
        answer(stopped.map(|()| StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let removed = self.runtime.remove_container(&request.into_inner().container_id).await;
        answer(removed.map(|()| RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        Ok(Response::new(ListContainersResponse { containers: self.runtime.list_containers(&filter) }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let record = self.runtime.container(&request.container_id)?;
        let mut status = container::status(&record);
        if let Ok(sandbox) = self.runtime.sandbox(&record.sandbox_id)
            && !record.config.log_path.is_empty()
        {
            let path = std::path::Path::new(&sandbox.config.log_directory).join(&record.config.log_path);
            status.log_path = path.display().to_string();
        }
        let info = info(
            request.verbose,
            || json!({"sandboxID": record.sandbox_id, "pid": record.pid, "config": record.config}),
        );
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let resources = request.linux.unwrap_or_default();
        let updated = self.runtime.update_resources(&request.container_id, resources);
        answer(updated.map(|()| UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let reopened = self.runtime.reopen_log(&request.into_inner().container_id).await;
        answer(reopened.map(|()| ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        answer(self.runtime.exec_sync(&request.container_id, request.cmd, request.timeout).await)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let (server, container_id) = self.runtime.streams_for(&request.container_id)?;
        let ExecRequest { cmd, tty, stdin, stdout, stderr, .. } = request;
        let request = streaming::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
        answer(exec::url(server.exec_url(request)).map(|url| ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let (server, container_id) = self.runtime.streams_for(&request.container_id)?;
        let AttachRequest { tty, stdin, stdout, stderr, .. } = request;
        let request = streaming::AttachRequest { container_id, tty, stdin, stdout, stderr };
        answer(exec::url(server.attach_url(request)).map(|url| AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let PortForwardRequest { pod_sandbox_id, port } = request.into_inner();
        let pod_sandbox_id = self.runtime.sandbox(&pod_sandbox_id)?.id;
        let server = self.runtime.streaming_server()?;
        let ports = port.into_iter().map(exec::port).collect::<Result<_, _>>()?;
        let request = streaming::PortForwardRequest { pod_sandbox_id, ports };
        answer(exec::url(server.port_forward_url(request)).map(|url| PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        let runtime = self.runtime.clone();
        let stats = off_thread(move || runtime.container_stats(&id)).await?;
        answer(stats.map(|stats| ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let runtime = self.runtime.clone();
        let stats = off_thread(move || runtime.list_container_stats(&filter)).await?;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let runtime = self.runtime.clone();
        let stats = off_thread(move || runtime.sandbox_stats(&id)).await?;
        answer(stats.map(|stats| PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let runtime = self.runtime.clone();
        let stats = off_thread(move || runtime.list_sandbox_stats(&filter)).await?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // The pod network learns the pod CIDR from the API, not from the kubelet.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition =
            |kind: &str| RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let features = RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: has_user_namespaces(),
        };
        let handler = |name: &str| RuntimeHandler { name: name.to_owned(), features: Some(features) };
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: ["RuntimeReady", "NetworkReady"].map(condition).to_vec(),
            }),
            info: if request.into_inner().verbose { self.configuration() } else { HashMap::new() },
            runtime_handlers: sandbox::HANDLERS.map(handler).to_vec(),
            features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("this runtime makes no checkpoints"))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.runtime.events.subscribe());
        let events =
            events.map(|event| event.map_err(|lag| Status::data_loss(format!("reader is too slow: {lag}"))));
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("metrics are read through the stats calls"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("metrics are read through the stats calls"))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }
}

/// Reading cgroups and walking folders blocks.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

/// Whether this kernel, as it is configured, lets user namespaces be made.
fn has_user_namespaces() -> bool {
    let allowed = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    allowed.trim().parse::<u64>().is_ok_and(|allowed| allowed > 0)
}

impl Service {
    /// What `crictl info` shows.
    fn configuration(&self) -> HashMap<String, String> {
        let config = &self.runtime.config;
        let config = json!({
            "dataDir": config.data_dir,
            "stateDir": config.state_dir,
            "cgroupRoot": config.cgroup_root,
            "registries": config.registries,
        });
        HashMap::from([("config".to_owned(), config.to_string())])
    }
}

/// What a verbose answer has beyond the plain one: one JSON text.
pub(crate) fn info(verbose: bool, tell: impl FnOnce() -> serde_json::Value) -> HashMap<String, String> {
    if verbose { HashMap::from([("info".to_owned(), tell().to_string())]) } else { HashMap::new() }
}
