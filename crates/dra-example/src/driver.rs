//! The driver: its settings, the sockets it answers on, and how claims are made ready.

mod cdi;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::resource::RESOURCE_CLAIMS;
use api::view::dynamicresource::{AllocationResult, ResourceClaim};
use client::Client;
use csi::Plugin;
use dra::v1::dra_plugin_server::{DraPlugin, DraPluginServer};
use dra::v1::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use tonic::{Request, Response, Status};

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub node_name: String,
    /// How many devices the node has.
    pub devices: u16,
    /// Where container runtimes look for descriptions of devices.
    pub cdi_dir: PathBuf,
}

/// Answers all calls. Cloning shares nothing but settings: what is ready is what there are descriptions of.
#[derive(Clone)]
pub struct Driver {
    pub settings: Arc<Settings>,
    client: Client,
}

impl Driver {
    pub fn new(settings: Settings, client: Client) -> Self {
        Driver { settings: Arc::new(settings), client }
    }

    /// Describes the claim's devices to the runtime.
    async fn prepare(&self, claim: &Claim) -> Result<Vec<Device>, String> {
        let allocation = self.allocation(claim).await?;
        let own = allocation.devices.results.iter().filter(|result| result.driver == self.settings.name);
        let own: Vec<_> = own.collect();
        let names: Vec<&str> = own.iter().map(|result| result.device.as_str()).collect();
        let path = cdi::path(&self.settings, &claim.uid);
        cdi::write(&path, &self.settings, &claim.uid, &names)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let ready = own.iter().map(|result| Device {
            // Containers name requests, not the alternatives that served them.
            request_names: result.request.split('/').take(1).map(str::to_owned).collect(),
            pool_name: result.pool.clone(),
            device_name: result.device.clone(),
            cdi_device_ids: vec![cdi::id(&self.settings, &claim.uid, &result.device)],
            share_id: result.share_id.clone(),
        });
        Ok(ready.collect())
    }

    async fn allocation(&self, claim: &Claim) -> Result<AllocationResult, String> {
        let found = self.client.get::<ResourceClaim>(RESOURCE_CLAIMS, &claim.namespace, &claim.name).await;
        let found = found.map_err(|error| error.to_string())?;
        if found.metadata.uid != claim.uid {
            return Err(format!("claim {} was replaced by another", found.metadata.namespaced_name()));
        }
        found.status.allocation.ok_or_else(|| "the claim has no devices".to_owned())
    }

    fn unprepare(&self, claim: &Claim) -> Result<(), String> {
        let path = cdi::path(&self.settings, &claim.uid);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let mut answer = NodePrepareResourcesResponse::default();
        for claim in request.into_inner().claims {
            let outcome = self.prepare(&claim).await;
            tracing::info!(claim = claim.name, ?outcome, "claim prepared");
            let (devices, error) = match outcome {
                Ok(devices) => (devices, String::new()),
                Err(why) => (Vec::new(), why),
            };
            answer.claims.insert(claim.uid, NodePrepareResourceResponse { devices, error });
        }
        Ok(Response::new(answer))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let mut answer = NodeUnprepareResourcesResponse::default();
        for claim in request.into_inner().claims {
            let error = self.unprepare(&claim).err().unwrap_or_default();
            tracing::info!(claim = claim.name, error, "claim unprepared");
            answer.claims.insert(claim.uid, NodeUnprepareResourceResponse { error });
        }
        Ok(Response::new(answer))
    }
}

/// Serves the kubelet of a folder.
pub async fn serve(driver: Driver, kubelet_dir: &Path) -> Result<(), csi::Error> {
    let settings = driver.settings.clone();
    let services = tonic::transport::Server::builder().add_service(DraPluginServer::new(driver));
    let plugin =
        Plugin { kind: "DRAPlugin", name: &settings.name, socket: "dra.sock", versions: &["v1.DRAPlugin"] };
    plugin.serve(services, kubelet_dir).await
}
