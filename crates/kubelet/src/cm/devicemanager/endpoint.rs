//! One device plugin, as it can be called (follows `devicemanager/endpoint.go`).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tonic::transport::Channel;

use super::proto::device_plugin_client::DevicePluginClient;
use super::proto::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreferredAllocationRequest,
};

/// How long a plugin may take to make devices ready (upstream's `KubeletPreStartContainerRPCTimeoutInSecs`).
const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to answer anything else; upstream would wait for ever and keep all other pods waiting.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Endpoint {
    client: DevicePluginClient<Channel>,
    options: DevicePluginOptions,
}

impl Endpoint {
    /// Connects to a plugin's socket, and asks what it wants.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::Status> {
        let mut client = DevicePluginClient::new(csi::connect(socket).await?);
        let options = within(TIMEOUT, client.get_device_plugin_options(Empty {})).await?;
        Ok(Endpoint { client, options })
    }

    /// The lists of devices, as they change, until the plugin ends.
    pub async fn devices(&self) -> Result<tonic::Streaming<ListAndWatchResponse>, tonic::Status> {
        self.client.clone().list_and_watch(Empty {}).await.map(tonic::Response::into_inner)
    }

    pub async fn allocate(&self, devices: &BTreeSet<String>) -> Result<ContainerAllocateResponse, String> {
        let container = ContainerAllocateRequest { devices_ids: devices.iter().cloned().collect() };
        let request = AllocateRequest { container_requests: vec![container] };
        let answer = within(TIMEOUT, self.client.clone().allocate(request)).await;
        let answer = answer.map_err(|status| told(&status))?;
        let first = answer.container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    /// Those that the plugin would take; none when it has no opinion.
    pub async fn preferred(
        &self,
        available: &BTreeSet<String>,
        must: &BTreeSet<String>,
        count: usize,
    ) -> Result<BTreeSet<String>, String> {
        if !self.options.get_preferred_allocation_available {
            return Ok(BTreeSet::new());
        }
        let container = ContainerPreferredAllocationRequest {
            available_device_i_ds: available.union(must).cloned().collect(),
            must_include_device_i_ds: must.iter().cloned().collect(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest { container_requests: vec![container] };
        let answer = within(TIMEOUT, self.client.clone().get_preferred_allocation(request)).await;
        let answer = answer.map_err(|status| {
            format!("device plugin GetPreferredAllocation rpc failed with err: {}", told(&status))
        })?;
        let first = answer.container_responses.into_iter().next().unwrap_or_default();
        Ok(first.device_i_ds.into_iter().collect())
    }

    pub fn wants_pre_start(&self) -> bool {
        self.options.pre_start_required
    }

    pub async fn pre_start(&self, devices: &BTreeSet<String>) -> Result<(), String> {
        let request = PreStartContainerRequest { devices_ids: devices.iter().cloned().collect() };
        let answer = within(PRE_START_TIMEOUT, self.client.clone().pre_start_container(request)).await;
        answer.map(drop).map_err(|status| {
            format!("device plugin PreStartContainer rpc failed with err: {}", told(&status))
        })
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let answer = tokio::time::timeout(limit, call).await;
    let answer =
        answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("context deadline exceeded")));
    answer.map(tonic::Response::into_inner)
}

/// As Go words a failed call.
fn told(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}
