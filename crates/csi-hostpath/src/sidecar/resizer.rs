//! Growth of volumes as claims ask for it (follows external-resizer).

use std::sync::Arc;

use api::resource::PERSISTENT_VOLUMES;
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::{Value, json};
use client::{Informer, PatchType};
use csi::v1::controller_server::Controller;
use csi::v1::{CapacityRange, ControllerExpandVolumeRequest};
use jiff::Timestamp;
use tonic::Request;

use super::{Claim, Error, Sidecar, Volume, conditions};

const WAITING: &str = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
/// Conditions that speak of growth.
const CONDITIONS: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// What a claim's growth needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// The driver is to grow the volume to this many bytes.
    Grow(i64),
    /// The node is to go on; the volume has its size.
    Hand,
}

fn next(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Next {
    let wanted = claim.request().value();
    let told = claim.status.capacity.get("storage").and_then(|size| size.parse().ok());
    let told = told.map_or(0, |size: apimachinery::quantity::Quantity| size.value());
    let status = claim.status.allocated_resource_statuses.get("storage").map(String::as_str);
    match status {
        _ if claim.status.phase != "Bound" || told >= wanted => Next::Nothing,
        Some("NodeResizePending" | "NodeResizeInProgress") => Next::Nothing,
        _ if volume.capacity().value() < wanted => Next::Grow(wanted),
        _ => Next::Hand,
    }
}

impl Sidecar {
    pub(super) async fn resize(&self, claim: Arc<Claim>, volumes: &Informer<Volume>) -> Result<(), Error> {
        let Some(volume) = volumes.get("", &claim.view.spec.volume_name) else { return Ok(()) };
        let is_theirs = volume.view.is_bound_to(&claim.view) && claim.view.is_fully_bound();
        if !is_theirs || !self.owns(&volume.view) {
            return Ok(());
        }
        match next(&claim.view, &volume.view) {
            Next::Nothing => Ok(()),
            Next::Grow(bytes) => self.grow(&claim, &volume.view, bytes).await,
            Next::Hand => {
                let status = json!({
                    "allocatedResourceStatuses": {"storage": "NodeResizePending"},
                    "conditions": told(&claim.object, "FileSystemResizePending", WAITING),
                });
                self.tell_claim(&claim.view, status).await
            }
        }
    }

    /// The volume's size tells that it grew; what is left is heard of by that.
    async fn grow(&self, claim: &Claim, volume: &PersistentVolume, bytes: i64) -> Result<(), Error> {
        if !claim.view.status.allocated_resource_statuses.contains_key("storage") {
            let started = json!({
                "allocatedResources": {"storage": claim.view.spec.resources.requests.get("storage")},
                "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
                "conditions": told(&claim.object, "Resizing", ""),
            });
            self.tell_claim(&claim.view, started).await?;
        }
        let handle = volume.spec.csi.as_ref().map(|csi| csi.volume_handle.clone()).unwrap_or_default();
        let request = ControllerExpandVolumeRequest {
            volume_id: handle,
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            ..Default::default()
        };
        self.driver.controller_expand_volume(Request::new(request)).await?;
        let patch = json!({
            "metadata": {"uid": volume.metadata.uid},
            "spec": {"capacity": {"storage": claim.view.spec.resources.requests.get("storage")}},
        });
        self.client
            .patch(PERSISTENT_VOLUMES, "", &volume.metadata.name, None, PatchType::Merge, &patch)
            .await?;
        Ok(())
    }
}

/// The claim's conditions, with this one for all that speak of growth.
fn told(claim: &Value, kind: &str, message: &str) -> Vec<Value> {
    conditions(claim, &CONDITIONS, Some((kind, message)), Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, told: &str, has: &str, status: Option<&str>, expect: Next) {
        let claim = json!({"spec": {"resources": {"requests": {"storage": wanted}}}, "status": {
            "phase": "Bound", "capacity": {"storage": told},
            "allocatedResourceStatuses": status.map(|status| json!({"storage": status})).unwrap_or(json!({}))}});
        let volume = json!({"spec": {"capacity": {"storage": has}}});
        let (claim, volume) = (apimachinery::from_value(claim), apimachinery::from_value(volume));
        assert_eq!(next(&claim.expect("a claim"), &volume.expect("a volume")), expect);
    }

    #[test]
    fn first_the_driver_grows_a_volume_and_then_its_node() {
        check("1Mi", "1Mi", "1Mi", None, Next::Nothing);
        check("2Mi", "1Mi", "1Mi", None, Next::Grow(2 << 20));
        check("2Mi", "1Mi", "1Mi", Some("ControllerResizeInProgress"), Next::Grow(2 << 20));
        check("2Mi", "1Mi", "2Mi", Some("ControllerResizeInProgress"), Next::Hand);
        check("2Mi", "1Mi", "2Mi", Some("NodeResizePending"), Next::Nothing);
        check("2Mi", "2Mi", "2Mi", None, Next::Nothing);
    }
}
