//! Single objects, followed by their names: for who may not, or should not, list all of their kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::view::View;
use apimachinery::meta::NamespacedName;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Informer;
use crate::request::Client;

/// How long the first sight of objects is waited for: one that may not be read must not hold up the others.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// An informer for each name.
pub struct NamedInformers<V> {
    client: Client,
    followed: Mutex<BTreeMap<NamespacedName, (Informer<V>, DropGuard)>>,
    changed: mpsc::UnboundedSender<NamespacedName>,
}

impl<V: View> NamedInformers<V> {
    /// The receiver is told the name of each object that has changed.
    pub fn new(client: Client) -> (Self, mpsc::UnboundedReceiver<NamespacedName>) {
        let (changed, changes) = mpsc::unbounded_channel();
        (NamedInformers { client, followed: Mutex::default(), changed }, changes)
    }

    /// Follows the objects of these names and no others, and waits for the first sight of new ones.
    pub async fn follow(&self, names: &BTreeSet<NamespacedName>) {
        let mut new = Vec::new();
        {
            let mut followed = self.followed.lock();
            followed.retain(|name, _| names.contains(name));
            for name in names {
                if !followed.contains_key(name) {
                    let (informer, stop) = self.start(name);
                    new.push(informer.clone());
                    followed.insert(name.clone(), (informer, stop.drop_guard()));
                }
            }
        }
        let synced = async {
            for informer in &new {
                informer.synced().await;
            }
        };
        if timeout(SYNC_TIMEOUT, synced).await.is_err() {
            tracing::warn!(kind = V::RESOURCE.kind, "some objects that are named have not been read yet");
        }
    }

    fn start(&self, name: &NamespacedName) -> (Informer<V>, CancellationToken) {
        let stop = CancellationToken::new();
        let informer =
            Informer::of_one(self.client.clone(), V::RESOURCE, &name.namespace, &name.name, stop.clone());
        let (mut deltas, changed, name) = (informer.subscribe(), self.changed.clone(), name.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while deltas.recv().await.is_some() {
                if changed.send(name.clone()).is_err() {
                    return;
                }
            }
        }));
        (informer, stop)
    }

    pub fn get(&self, name: &NamespacedName) -> Option<Arc<V>> {
        self.followed.lock().get(name)?.0.get(&name.namespace, &name.name)
    }
}
