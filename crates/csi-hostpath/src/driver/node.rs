//! CSI's Node service: volumes brought to the node's pods.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::node_service_capability::{Rpc, Type};
use csi::v1::volume_usage::Unit;
use csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology, VolumeCondition, VolumeUsage, node_server,
};
use tonic::{Request, Response, Status};

use super::volumes::Volume;
use super::{Driver, loop_device, mounts};

const HELD: [Capability; 5] = [
    Capability::StageUnstageVolume,
    Capability::GetVolumeStats,
    Capability::ExpandVolume,
    Capability::VolumeCondition,
    Capability::SingleNodeMultiWriter,
];
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// How large a pod asks its own volume to be.
const SIZE_ATTRIBUTE: &str = "size";
/// Bytes of a block as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;

impl Driver {
    /// A volume that lives as long as its pod is made when it is first published.
    fn published_volume(&self, id: &str, context: &HashMap<String, String>) -> Result<Volume, Status> {
        if context.get(EPHEMERAL).is_none_or(|value| value != "true") {
            return self.volume(id);
        }
        let size_bytes = context.get(SIZE_ATTRIBUTE).map(|size| size.parse::<i64>()).transpose();
        let size_bytes = size_bytes.map_err(|_| Status::invalid_argument("size is not a number of bytes"))?;
        Ok(self.volumes.create(Volume {
            id: id.to_owned(),
            size_bytes: size_bytes.unwrap_or_default(),
            is_ephemeral: true,
            ..Volume::default()
        })?)
    }
}

#[tonic::async_trait]
impl node_server::Node for Driver {
    /// A device has no place: staging has the kernel make it.
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self.volume(&request.volume_id)?;
        let data = self.volumes.data(&volume)?;
        if volume.is_block {
            loop_device::attach(&data)?;
        } else {
            mounts::bind(&data, Path::new(&request.staging_target_path), false)?;
        }
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        match self.volumes.get(&request.volume_id)? {
            Some(volume) if volume.is_block => loop_device::detach(&self.volumes.data(&volume)?)?,
            _ => mounts::unbind(Path::new(&request.staging_target_path))?,
        }
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self.published_volume(&request.volume_id, &request.volume_context)?;
        let data = self.volumes.data(&volume)?;
        let from = if volume.is_block { loop_device::attach(&data)? } else { data };
        mounts::bind(&from, Path::new(&request.target_path), request.readonly)?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        mounts::unbind(Path::new(&request.target_path))?;
        if self.volumes.get(&request.volume_id)?.is_some_and(|volume| volume.is_ephemeral) {
            self.volumes.delete(&request.volume_id)?;
        }
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = self.volume(&request.volume_id)?;
        if !Path::new(&request.volume_path).exists() {
            return Err(Status::not_found(format!("nothing is at {:?}", request.volume_path)));
        }
        let data = self.volumes.data(&volume)?;
        let bytes = Unit::Bytes.into();
        let usage = if volume.is_block {
            vec![VolumeUsage { total: volume.size_bytes, unit: bytes, ..Default::default() }]
        } else {
            let (used, inodes) = usage(&data)?;
            let available = (volume.size_bytes - used).max(0);
            vec![
                VolumeUsage { available, total: volume.size_bytes, used, unit: bytes },
                VolumeUsage { used: inodes, unit: Unit::Inodes.into(), ..Default::default() },
            ]
        };
        let (abnormal, message) = match fs::metadata(&data) {
            Ok(_) => (false, "the data is there".to_owned()),
            Err(error) => (true, format!("the data is not there: {error}")),
        };
        let volume_condition = Some(VolumeCondition { abnormal, message });
        Ok(Response::new(NodeGetVolumeStatsResponse { usage, volume_condition }))
    }

    /// A folder needs nothing; a device must be told.
    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let volume = self.volume(&request.into_inner().volume_id)?;
        if volume.is_block {
            loop_device::refresh_size(&self.volumes.data(&volume)?)?;
        }
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes: volume.size_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability =
            |held: Capability| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: held.into() })) };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: HELD.map(capability).into() }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node_id = self.settings.node_id.clone();
        let segments = [(self.topology_key(), node_id.clone())].into();
        Ok(Response::new(NodeGetInfoResponse {
            node_id,
            max_volumes_per_node: self.settings.volumes_max,
            accessible_topology: Some(Topology { segments }),
        }))
    }
}

/// Bytes and inodes of a tree; what disappears meanwhile is not counted.
fn usage(root: &Path) -> Result<(i64, i64), Status> {
    let (mut bytes, mut inodes) = (0_u64, 0_i64);
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        bytes += metadata.blocks() * BLOCK_BYTES;
        inodes += 1;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        }
    }
    Ok((i64::try_from(bytes).unwrap_or(i64::MAX), inodes))
}
