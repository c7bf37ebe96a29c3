//! What upstream's provisioner, attacher and resizer do for a driver, as far as this one needs: objects of the cluster
//! become calls, and their answers are written back. It works for the volumes of its own node.

mod attacher;
mod provisioner;
mod resizer;

use std::sync::Arc;

use api::resource::NODES;
use api::view::core::{Node, PersistentVolume, PersistentVolumeClaim};
use api::view::storage::VolumeAttachment;
use api::view::{Object, Whole};
use client::{CancellationToken, Client, Informer, Informers, WorkQueue};

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

    async fn node_labels(&self) -> Result<apimachinery::meta::StringMap, Error> {
        let node: Node = self.client.get(NODES, "", self.node()).await?;
        Ok(node.metadata.labels)
    }
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
