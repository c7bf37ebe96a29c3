//! CSI's Controller service: volumes made, attached to this node, modified, grown and deleted.

use std::collections::{BTreeMap, HashMap};

use csi::v1::controller_service_capability::rpc::Type as Capability;
use csi::v1::controller_service_capability::{Rpc, Type};
use csi::v1::volume_capability::AccessType;
use csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest, ControllerPublishVolumeResponse,
    ControllerServiceCapability, ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, Topology,
    controller_server,
};
use tonic::{Request, Response, Status};

use super::Driver;
use super::volumes::Volume;

const HELD: [Capability; 5] = [
    Capability::CreateDeleteVolume,
    Capability::PublishUnpublishVolume,
    Capability::ExpandVolume,
    Capability::SingleNodeMultiWriter,
    Capability::ModifyVolume,
];
/// What may be changed of a volume.
const ATTRIBUTES: [&str; 2] = ["iops", "throughput"];

impl Driver {
    pub(super) fn volume(&self, id: &str) -> Result<Volume, Status> {
        let found = self.volumes.get(id)?;
        found.ok_or_else(|| Status::not_found(format!("volume {id:?} does not exist")))
    }
}

fn required(range: Option<&CapacityRange>) -> i64 {
    range.map_or(0, |range| range.required_bytes)
}

/// Numbers of the known names.
fn attributes(parameters: HashMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    let unknown = |(name, value): &(&String, &String)| {
        !ATTRIBUTES.contains(&name.as_str()) || value.parse::<u32>().is_err()
    };
    match parameters.iter().find(unknown) {
        Some((name, value)) => {
            Err(Status::invalid_argument(format!("a volume cannot have {name:?} of {value:?}")))
        }
        None => Ok(parameters.into_iter().collect()),
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Driver {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let kinds = request.volume_capabilities.iter().filter_map(|wanted| wanted.access_type.as_ref());
        let is_block = kinds.into_iter().any(|kind| matches!(kind, AccessType::Block(_)));
        let size_bytes = required(request.capacity_range.as_ref());
        let attributes = attributes(request.mutable_parameters)?;
        let wanted = Volume { id: request.name, size_bytes, is_block, attributes, ..Volume::default() };
        let made = self.volumes.create(wanted.clone())?;
        if made.is_block != is_block || made.size_bytes < size_bytes {
            return Err(Status::already_exists(format!("volume {:?} exists and is another", made.id)));
        }
        let segments = [(self.topology_key(), self.settings.node_id.clone())].into();
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(csi::v1::Volume {
                capacity_bytes: made.size_bytes,
                volume_id: made.id,
                volume_context: request.parameters,
                accessible_topology: vec![Topology { segments }],
            }),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        if let Some(node) = self.volumes.get(&id)?.and_then(|volume| volume.attached_to) {
            return Err(Status::failed_precondition(format!("volume {id:?} is attached to {node:?}")));
        }
        self.volumes.delete(&id)?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self.volume(&request.volume_id)?;
        if request.node_id != self.settings.node_id {
            let why = format!("volume {:?} is of node {:?}", volume.id, self.settings.node_id);
            return Err(Status::not_found(why));
        }
        self.volumes.write(&Volume { attached_to: Some(request.node_id), ..volume })?;
        Ok(Response::new(ControllerPublishVolumeResponse { publish_context: Default::default() }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        if let Some(volume) = self.volumes.get(&request.into_inner().volume_id)? {
            self.volumes.write(&Volume { attached_to: None, ..volume })?;
        }
        Ok(Response::new(ControllerUnpublishVolumeResponse {}))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self.volume(&request.volume_id)?;
        let changed = attributes(request.mutable_parameters)?;
        let attributes = volume.attributes.clone().into_iter().chain(changed).collect();
        self.volumes.write(&Volume { attributes, ..volume })?;
        Ok(Response::new(ControllerModifyVolumeResponse {}))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self.volume(&request.volume_id)?;
        let grown = self.volumes.grow(&volume, required(request.capacity_range.as_ref()))?;
        Ok(Response::new(ControllerExpandVolumeResponse {
            capacity_bytes: grown.size_bytes,
            node_expansion_required: true,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |held: Capability| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: held.into() })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: HELD.map(capability).into() }))
    }
}
