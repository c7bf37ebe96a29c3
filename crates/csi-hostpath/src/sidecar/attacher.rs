//! VolumeAttachments carried out (follows external-attacher).

use std::sync::Arc;

use api::resource::VOLUME_ATTACHMENTS;
use api::view::storage::VolumeAttachment;
use apimachinery::json;
use apimachinery::time::format_time;
use client::{Informer, PatchType};
use csi::v1::controller_server::Controller;
use csi::v1::{ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest};
use jiff::Timestamp;
use tonic::Request;

use super::{Attachment, Error, Sidecar, Volume};

/// Keeps an attachment until its volume is detached.
const FINALIZER: &str = "external-attacher/csi-hostpath";

/// What an attachment needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// To be marked as ours, before anything is done that must be undone.
    Hold,
    Attach,
    Detach,
}

fn next(attachment: &VolumeAttachment) -> Next {
    let is_held = attachment.metadata.finalizers.iter().any(|held| held == FINALIZER);
    match (attachment.metadata.is_being_deleted(), is_held, attachment.status.attached) {
        (true, true, _) => Next::Detach,
        (true, false, _) | (false, true, true) => Next::Nothing,
        (false, false, _) => Next::Hold,
        (false, true, false) => Next::Attach,
    }
}

impl Sidecar {
    pub(super) async fn attach(
        &self,
        attachment: Arc<Attachment>,
        volumes: &Informer<Volume>,
    ) -> Result<(), Error> {
        let view = &attachment.view;
        if view.spec.attacher != self.name() || view.spec.node_name != self.node() {
            return Ok(());
        }
        match next(view) {
            Next::Nothing => Ok(()),
            Next::Hold => {
                let finalizers = view.metadata.finalizers.iter().map(String::as_str).chain([FINALIZER]);
                self.set_finalizers(view, finalizers.collect()).await
            }
            Next::Attach => {
                let attached = self.publish(&self.handle(view, volumes)?).await;
                self.tell_attachment(view, attached).await
            }
            Next::Detach => {
                // Of a volume that is gone there is nothing to detach.
                if let Ok(volume_id) = self.handle(view, volumes) {
                    let node_id = self.node().to_owned();
                    let request =
                        ControllerUnpublishVolumeRequest { volume_id, node_id, ..Default::default() };
                    self.driver.controller_unpublish_volume(Request::new(request)).await?;
                }
                let others = view.metadata.finalizers.iter().map(String::as_str);
                self.set_finalizers(view, others.filter(|held| *held != FINALIZER).collect()).await
            }
        }
    }

    fn handle(&self, attachment: &VolumeAttachment, volumes: &Informer<Volume>) -> Result<String, Error> {
        let name = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
        let volume = volumes.get("", name).filter(|volume| self.owns(&volume.view));
        let csi = volume.and_then(|volume| volume.view.spec.csi.clone());
        csi.map(|csi| csi.volume_handle)
            .ok_or_else(|| Error::Malformed(format!("volume {name:?} is not known")))
    }

    async fn publish(&self, volume_id: &str) -> Result<(), tonic::Status> {
        let (volume_id, node_id) = (volume_id.to_owned(), self.node().to_owned());
        let request = ControllerPublishVolumeRequest { volume_id, node_id, ..Default::default() };
        self.driver.controller_publish_volume(Request::new(request)).await.map(drop)
    }

    async fn tell_attachment(
        &self,
        attachment: &VolumeAttachment,
        done: Result<(), tonic::Status>,
    ) -> Result<(), Error> {
        let status = match &done {
            Ok(()) => json!({"attached": true, "attachError": null}),
            Err(status) => json!({"attached": false, "attachError": {
                "message": status.message(), "time": format_time(Timestamp::now())}}),
        };
        let patch = json!({"metadata": {"uid": attachment.metadata.uid}, "status": status});
        let name = &attachment.metadata.name;
        self.client.patch(VOLUME_ATTACHMENTS, "", name, Some("status"), PatchType::Merge, &patch).await?;
        Ok(done?)
    }

    async fn set_finalizers(
        &self,
        attachment: &VolumeAttachment,
        finalizers: Vec<&str>,
    ) -> Result<(), Error> {
        let meta = &attachment.metadata;
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}});
        match self.client.patch(VOLUME_ATTACHMENTS, "", &meta.name, None, PatchType::Merge, &patch).await {
            // What came between is heard of again.
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_held_before_it_is_carried_out_and_until_it_is_undone() {
        let check = |deleted: bool, held: bool, attached: bool, expect: Next| {
            let mut attachment = VolumeAttachment::default();
            attachment.metadata.deletion_timestamp = deleted.then_some(Timestamp::UNIX_EPOCH);
            attachment.metadata.finalizers = held.then(|| FINALIZER.to_owned()).into_iter().collect();
            attachment.status.attached = attached;
            assert_eq!(next(&attachment), expect);
        };
        check(false, false, false, Next::Hold);
        check(false, true, false, Next::Attach);
        check(false, true, true, Next::Nothing);
        check(true, true, true, Next::Detach);
        check(true, false, true, Next::Nothing);
    }
}
