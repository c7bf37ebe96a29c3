//! What upstream's provisioner, attacher and resizer do for a driver, as far as this one needs: objects of the cluster
//! become calls, and their answers are written back. It works for the volumes of its own node.

mod attacher;
mod modifier;
mod provisioner;
mod resizer;

use std::sync::Arc;

use api::resource::{NODES, PERSISTENT_VOLUME_CLAIMS};
use api::view::core::{Node, PersistentVolume, PersistentVolumeClaim};
use api::view::storage::VolumeAttachment;
use api::view::{Object, Whole};
use apimachinery::time::format_time;
use apimachinery::{Value, json};
use client::{CancellationToken, Client, Informer, Informers, PatchType, WorkQueue};
use jiff::Timestamp;

use crate::driver::Driver;

type Claim = Whole<PersistentVolumeClaim>;
type Volume = Whole<PersistentVolume>;
type Attachment = Whole<VolumeAttachment>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("rpc error: code = {:?} desc = {}", .0.code(), .0.message())]
    Driver(#[from] tonic::Status),
    #[error("{0}")]
    Malformed(String),
}

pub struct Sidecar {
    client: Client,
    driver: Driver,
}

impl Sidecar {
    pub fn new(client: Client, driver: Driver) -> Self {
        Sidecar { client, driver }
    }

    /// Follows the cluster until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let informers = Informers::new(self.client.clone(), stop);
        let (claims, volumes) = (informers.get::<Claim>(), informers.get::<Volume>());
        let attachments = informers.get::<Attachment>();
        tokio::join!(
            follow(&claims, async |claim| self.provision(claim).await),
            follow(&volumes, async |volume| self.reclaim(volume).await),
            follow(&attachments, async |attachment| self.attach(attachment, &volumes).await),
            follow(&claims, async |claim| self.resize(claim, &volumes).await),
            follow(&claims, async |claim| self.modify(claim, &volumes).await),
            // A volume grows when it is bound, too.
            follow(&volumes, async |volume| {
                let held = volume.view.spec.claim_ref.as_ref();
                let claim = held.and_then(|held| claims.get(&held.namespace, &held.name));
                match claim {
                    Some(claim) => self.resize(claim, &volumes).await,
                    None => Ok(()),
                }
            }),
        );
    }

    fn name(&self) -> &str {
        &self.driver.settings.name
    }

    fn node(&self) -> &str {
        &self.driver.settings.node_id
    }

    /// Whether the volume is one of the driver, on this node.
    fn owns(&self, volume: &PersistentVolume) -> bool {
        let is_of_driver = volume.spec.csi.as_ref().is_some_and(|csi| csi.driver == self.name());
        let here = [(self.driver.topology_key(), self.node().to_owned())].into();
        is_of_driver && volume.allows_node(&here)
    }

    async fn tell_claim(&self, claim: &PersistentVolumeClaim, status: Value) -> Result<(), Error> {
        let meta = &claim.metadata;
        let patch = json!({"metadata": {"uid": meta.uid}, "status": status});
        let written = self.client.patch(
            PERSISTENT_VOLUME_CLAIMS,
            &meta.namespace,
            &meta.name,
            Some("status"),
            PatchType::Merge,
            &patch,
        );
        written.await?;
        Ok(())
    }

    async fn node_labels(&self) -> Result<apimachinery::meta::StringMap, Error> {
        let node: Node = self.client.get(NODES, "", self.node()).await?;
        Ok(node.metadata.labels)
    }
}

/// The claim's conditions, with `own` (type and message), if any, for all of the types `over`.
fn conditions(claim: &Value, over: &[&str], own: Option<(&str, &str)>, now: Timestamp) -> Vec<Value> {
    let held = claim["status"]["conditions"].as_array().into_iter().flatten();
    let is_other = |held: &&Value| !over.iter().any(|known| held["type"] == *known);
    let own = own.map(|(kind, message)| {
        json!({"type": kind, "status": "True", "message": message, "lastTransitionTime": format_time(now)})
    });
    held.filter(is_other).cloned().chain(own).collect()
}

/// Works on each object when it changes, and again later when that failed.
async fn follow<V: Object>(informer: &Informer<V>, work: impl AsyncFn(Arc<V>) -> Result<(), Error>) {
    let queue = WorkQueue::<(String, String)>::new();
    let mut changes = informer.subscribe();
    loop {
        let key = tokio::select! {
            delta = changes.recv() => match delta {
                Some(delta) => {
                    let meta = delta.object().meta();
                    queue.add((meta.namespace.clone(), meta.name.clone()));
                    continue;
                }
                None => return,
            },
            key = queue.get() => key,
        };
        if let Some(object) = informer.get(&key.0, &key.1) {
            match work(object).await {
                Ok(()) => queue.forget(&key),
                Err(error) => {
                    tracing::warn!(namespace = key.0, name = key.1, %error, "will try again");
                    queue.add_rate_limited(key.clone());
                }
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_stay() {
        let claim = json!({"status": {"conditions": [{"type": "Mine"}, {"type": "Resizing"}]}});
        let kinds = |own| -> Vec<String> {
            let all = conditions(&claim, &["Resizing", "Failed"], own, Timestamp::UNIX_EPOCH);
            all.iter().filter_map(|held| Some(held["type"].as_str()?.to_owned())).collect()
        };
        assert_eq!(kinds(Some(("Failed", ""))), ["Mine", "Failed"]);
        assert_eq!(kinds(None), ["Mine"]);
    }
}
