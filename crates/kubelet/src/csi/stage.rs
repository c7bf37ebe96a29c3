//! Has a volume ready on the node, once for all its pods: attached, and staged where its driver wants that.

use std::fs;

use api::resource::{CSI_DRIVERS, VOLUME_ATTACHMENTS};
use api::storage::csi::attachment_name;
use api::view::core::{Pod, SecretReference};
use api::view::storage::{CsiDriver, VolumeAttachment};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{NodeStageVolumeRequest, VolumeCapability};
use jiff::SignedDuration;
use tonic::Code;

use super::node_info::NodeInfo;
use super::place::{Place, Record};
use super::registration::{Driver, Turn};
use super::source::{Lifecycle, Source, Texts};
use super::{Error, rpc_error};
use crate::volumes::Context;

/// How long a pod waits for room on its node (upstream: `podAttachAndMountTimeout`).
const ATTACH_PATIENCE: SignedDuration = SignedDuration::from_secs(123);

/// The driver's CSIDriver, if it has one.
pub async fn settings(client: &Client, driver: &str) -> Result<Option<CsiDriver>, String> {
    match client.get(CSI_DRIVERS, "", driver).await {
        Ok(settings) => Ok(Some(settings)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(format!("failed to fetch CSIDriver {driver}: {error}")),
    }
}

/// A driver of which nothing is said brings persistent volumes only (upstream: `supportsVolumeLifecycleMode`).
pub fn check_lifecycle(source: &Source, settings: Option<&CsiDriver>) -> Result<(), String> {
    let (mode, driver) = (source.lifecycle.as_str(), &source.driver);
    match settings {
        None if source.lifecycle == Lifecycle::Persistent => Ok(()),
        None => Err(format!("volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)")),
        Some(settings) if settings.spec.volume_lifecycle_modes.iter().any(|held| held == mode) => Ok(()),
        Some(settings) => Err(format!(
            "volume mode {mode:?} not supported by driver {driver} (only supports {:?})",
            settings.spec.volume_lifecycle_modes
        )),
    }
}

/// The attachment by which the node has the volume, and what it tells the driver. One that finds no room on the node is
/// awaited for a while (follows `VerifyExhaustedResource`).
pub async fn attached(
    cx: &Context<'_>,
    pod: &Pod,
    source: &Source,
    driver: &Driver,
    settings: Option<&CsiDriver>,
) -> Result<(String, Texts), Error> {
    let needs_attach = settings.is_none_or(|settings| settings.spec.needs_attach());
    if source.lifecycle == Lifecycle::Ephemeral || !needs_attach {
        return Ok(Default::default());
    }
    let name = attachment_name(&source.handle, &source.driver, cx.node_name);
    let not_attached = || Error::NotAttached { handle: source.handle.clone(), attachment: name.clone() };
    let found = cx.client.get(VOLUME_ATTACHMENTS, "", &name).await;
    let attachment: VolumeAttachment = found.map_err(|error| match error {
        error if error.is_not_found() => not_attached(),
        error => format!("volume attachment {name} cannot be read: {error}").into(),
    })?;
    if !attachment.status.attached {
        let is_told = settings.is_some_and(|settings| settings.spec.allocatable_update_period().is_some());
        let is_over = pod.status.start_time.is_some_and(|began| cx.now >= began + ATTACH_PATIENCE);
        if is_told
            && is_over
            && let Some(why) = exhausted(&attachment)
        {
            let node = NodeInfo { client: cx.client.clone(), node_name: cx.node_name.to_owned() };
            node.update(&source.driver, &driver.plugin).await;
            return Err(Error::LimitExceeded { name: source.name_in_pod.clone(), why });
        }
        return Err(not_attached());
    }
    Ok((name, attachment.status.attachment_metadata.into_iter().collect()))
}

/// What the driver said when the node had no room for the volume.
fn exhausted(attachment: &VolumeAttachment) -> Option<String> {
    let refused = attachment.status.attach_error.as_ref()?;
    (refused.error_code == Some(Code::ResourceExhausted as i32)).then(|| refused.message.clone())
}

/// The keys of a Secret that a volume refers to; of none there are none.
pub async fn secrets(
    client: &Client,
    what: &str,
    reference: Option<&SecretReference>,
) -> Result<Texts, String> {
    let Some(SecretReference { name, namespace }) = reference else { return Ok(Texts::new()) };
    let failed = |why: String| format!("fetching {what} {namespace}/{name} failed: {why}");
    let found = crate::volumes::get_secret(client, namespace, name).await.map_err(failed)?;
    let secret = found.ok_or_else(|| failed(format!("secrets {name:?} not found")))?;
    let decode = |(key, text): (String, String)| {
        let bytes = STANDARD.decode(text).map_err(|error| failed(format!("key {key:?}: {error}")))?;
        Ok((key, String::from_utf8_lossy(&bytes).into_owned()))
    };
    secret.data.into_iter().map(decode).collect()
}

/// A volume on its way into a pod.
pub struct Staging<'a> {
    pub driver: &'a Driver,
    pub held: &'a [Capability],
    pub source: &'a Source,
    pub record: &'a Record,
    pub publish_context: &'a Texts,
    pub capability: &'a VolumeCapability,
}

impl Staging<'_> {
    /// The place where the driver stages the volume; `None` when it stages nothing.
    pub fn place(&self, cx: &Context<'_>) -> Option<Place> {
        let is_persistent = self.source.lifecycle == Lifecycle::Persistent;
        let stages = is_persistent && self.held.contains(&Capability::StageUnstageVolume);
        stages.then(|| Place::staged(cx.root, self.record))
    }

    /// Stages the volume, unless this was done since the driver came.
    pub async fn stage(&self, cx: &Context<'_>, turn: &mut Turn) -> Result<Option<Place>, String> {
        let Some(place) = self.place(cx) else { return Ok(None) };
        if turn.is_staged {
            return Ok(Some(place));
        }
        let secrets = secrets(cx.client, "NodeStageSecretRef", self.source.stage_secret.as_ref()).await?;
        place.write(self.record)?;
        fs::create_dir_all(&place.path).map_err(|e| format!("{}: {e}", place.path.display()))?;
        let request = NodeStageVolumeRequest {
            volume_id: self.source.handle.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: place.path.display().to_string(),
            volume_capability: Some(self.capability.clone()),
            secrets,
            volume_context: self.source.attributes.clone(),
        };
        if let Err(status) = self.driver.plugin.stage(request).await {
            // What was refused for good is not there to be unstaged.
            if super::is_final(status.code())
                && let Err(error) = place.remove()
            {
                tracing::warn!(volume = self.source.handle, error, "place of a refused volume remains");
            }
            return Err(rpc_error("MountVolume.MountDevice failed", &status));
        }
        turn.is_staged = true;
        Ok(Some(place))
    }
}

#[cfg(test)]
mod tests {
    use api::view::core::Pod;
    use apimachinery::json;

    use super::*;

    #[test]
    fn volumes_of_pods_need_a_driver_that_says_it_makes_them() {
        let source = apimachinery::from_value(json!({"driver": "d"})).expect("a source");
        let inline = Source::inline(&Pod::default(), "v", &source);
        let settings = |modes: &[&str]| -> CsiDriver {
            apimachinery::from_value(json!({"spec": {"volumeLifecycleModes": modes}})).expect("a driver")
        };
        let check = |settings: Option<CsiDriver>, expect: Result<(), &str>| {
            let found = check_lifecycle(&inline, settings.as_ref());
            assert_eq!(found, expect.map_err(str::to_owned));
        };
        check(Some(settings(&["Persistent", "Ephemeral"])), Ok(()));
        check(
            Some(settings(&["Persistent"])),
            Err("volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])"),
        );
        check(None, Err("volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)"));
    }
}
