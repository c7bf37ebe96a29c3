//! Attributes of volumes as their claims' classes say, changed while the volumes are used (follows external-resizer's
//! `modifycontroller`).

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::{Value, json};
use client::{Informer, PatchType};
use csi::v1::ControllerModifyVolumeRequest;
use csi::v1::controller_server::Controller;
use jiff::Timestamp;
use serde::Deserialize;
use tonic::{Code, Request, Status};

use super::{Claim, Error, Sidecar, Volume, conditions};

const MODIFYING: &str = "ModifyingVolume";
const FAILED: &str = "ModifyVolumeError";
/// What a driver answers that will never do what it is asked for.
const INFEASIBLE: [Code; 3] = [Code::InvalidArgument, Code::OutOfRange, Code::NotFound];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeAttributesClass {
    driver_name: String,
    parameters: HashMap<String, String>,
}

/// The class that the claim's volume is to have and does not have yet.
fn wanted(claim: &PersistentVolumeClaim) -> Option<&str> {
    let current = claim.status.current_volume_attributes_class_name.as_deref();
    claim.attributes_class().filter(|name| claim.status.phase == "Bound" && current != Some(*name))
}

impl Sidecar {
    pub(super) async fn modify(&self, claim: Arc<Claim>, volumes: &Informer<Volume>) -> Result<(), Error> {
        let Some(target) = wanted(&claim.view) else { return Ok(()) };
        let Some(volume) = volumes.get("", &claim.view.spec.volume_name) else { return Ok(()) };
        if !volume.view.is_bound_to(&claim.view) || !self.owns(&volume.view) {
            return Ok(());
        }
        let parameters = match self.attributes_class(target).await {
            Ok(parameters) => parameters,
            // It may be made yet.
            Err(error) => {
                self.tell_modification(&claim, target, "Pending", None).await?;
                return Err(error);
            }
        };
        self.tell_modification(&claim, target, "InProgress", Some((MODIFYING, ""))).await?;
        match self.ask_driver(&volume.view, parameters).await {
            Ok(()) => self.tell_modified(&claim, &volume.view, target).await,
            Err(status) => {
                let state = if INFEASIBLE.contains(&status.code()) { "Infeasible" } else { "InProgress" };
                let error = Error::from(status);
                self.tell_modification(&claim, target, state, Some((FAILED, &error.to_string()))).await?;
                Err(error)
            }
        }
    }

    /// What the class says to this driver.
    pub(super) async fn attributes_class(&self, name: &str) -> Result<HashMap<String, String>, Error> {
        let class: VolumeAttributesClass = self.client.get(VOLUME_ATTRIBUTES_CLASSES, "", name).await?;
        if class.driver_name != self.name() {
            let why = format!("class {name:?} is for the driver {:?}", class.driver_name);
            return Err(Error::Malformed(why));
        }
        Ok(class.parameters)
    }

    async fn ask_driver(
        &self,
        volume: &PersistentVolume,
        parameters: HashMap<String, String>,
    ) -> Result<(), Status> {
        let request = ControllerModifyVolumeRequest {
            volume_id: volume.spec.csi.as_ref().map(|csi| csi.volume_handle.clone()).unwrap_or_default(),
            secrets: HashMap::new(),
            mutable_parameters: parameters,
        };
        self.driver.controller_modify_volume(Request::new(request)).await.map(drop)
    }

    /// Tells how far it is, unless the claim says so already.
    async fn tell_modification(
        &self,
        claim: &Claim,
        target: &str,
        state: &str,
        condition: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        let known = claim.view.status.modify_volume_status.as_ref();
        if known
            .is_some_and(|known| known.target_volume_attributes_class_name == target && known.status == state)
        {
            return Ok(());
        }
        let status = json!({
            "modifyVolumeStatus": {"targetVolumeAttributesClassName": target, "status": state},
            "conditions": conditions(&claim.object, &[MODIFYING, FAILED], condition, Timestamp::now()),
        });
        self.tell_claim(&claim.view, status).await
    }

    /// The volume first: its class is what the claim's current one is told from.
    async fn tell_modified(
        &self,
        claim: &Claim,
        volume: &PersistentVolume,
        target: &str,
    ) -> Result<(), Error> {
        let meta = &volume.metadata;
        let patch = json!({"metadata": {"uid": meta.uid}, "spec": {"volumeAttributesClassName": target}});
        self.client.patch(PERSISTENT_VOLUMES, "", &meta.name, None, PatchType::Merge, &patch).await?;
        let status = json!({
            "currentVolumeAttributesClassName": target,
            "modifyVolumeStatus": Value::Null,
            "conditions": conditions(&claim.object, &[MODIFYING, FAILED], None, Timestamp::now()),
        });
        self.tell_claim(&claim.view, status).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_claim_wants_the_class_that_its_volume_has_not() {
        let check = |phase: &str, class: Value, current: Value, expect: Option<&str>| {
            let claim = json!({"spec": {"volumeAttributesClassName": class},
                "status": {"phase": phase, "currentVolumeAttributesClassName": current}});
            let claim: PersistentVolumeClaim = apimachinery::from_value(claim).expect("a claim");
            assert_eq!(wanted(&claim), expect);
        };
        check("Bound", json!("fast"), json!("slow"), Some("fast"));
        check("Bound", json!("fast"), Value::Null, Some("fast"));
        check("Bound", json!("fast"), json!("fast"), None);
        check("Bound", json!(""), Value::Null, None);
        check("Pending", json!("fast"), Value::Null, None);
    }
}
