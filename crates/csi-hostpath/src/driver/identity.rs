//! CSI's Identity service.

use csi::v1::plugin_capability::service::Type as ServiceType;
use csi::v1::plugin_capability::volume_expansion::Type as ExpansionType;
use csi::v1::plugin_capability::{Service, Type, VolumeExpansion};
use csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse, identity_server,
};
use tonic::{Request, Response, Status};

use super::Driver;

#[tonic::async_trait]
impl identity_server::Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.settings.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: Default::default(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = |kind: ServiceType| Type::Service(Service { r#type: kind.into() });
        let held = [
            service(ServiceType::ControllerService),
            service(ServiceType::VolumeAccessibilityConstraints),
            Type::VolumeExpansion(VolumeExpansion { r#type: ExpansionType::Online.into() }),
        ];
        let capabilities = held.map(|kind| PluginCapability { r#type: Some(kind) }).into();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse {}))
    }
}
