//! What every controller is to the loop: what it watches, what it decides about one key, and what it learns from failures.

use api::resource::Resource;
use api::view::Object;
use apimachinery::meta::NamespacedName;
use async_trait::async_trait;
use client::{Client, Delta, Informer, WorkQueue};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::consistency::Consistency;
use crate::plan::Plan;

/// What a controller is asked about: mostly the object it is responsible for.
pub type Key = NamespacedName;

/// The thin shell around a pure `reconcile`: it gathers the world, mostly from informers.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Says which changes concern which keys.
    fn watch(&self, watches: &mut Watches);

    /// Decides about one key. The client is only for reads that a cache must not answer.
    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan>;

    /// Learns how the plan went: `None` when all of it was carried out.
    fn carried_out(&self, _key: &Key, _failure: Option<&Failure>) {}
}

/// The first write of a plan that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub resource: Resource,
    pub message: String,
    pub kind: FailureKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The decision was made on an older state; the newer one is on its way.
    Stale,
    /// Nothing can be made any more where the object lives.
    NamespaceTerminating,
    /// Worth telling: quota, admission, validation, or no answer at all.
    Refused,
}

/// Connects informers to a controller's queue.
pub struct Watches {
    queue: WorkQueue<Key>,
    consistency: Consistency,
    tasks: JoinSet<()>,
    syncing: Vec<futures_util::future::BoxFuture<'static, ()>>,
}

impl Watches {
    pub(crate) fn new(queue: WorkQueue<Key>, consistency: Consistency) -> Self {
        Watches { queue, consistency, tasks: JoinSet::new(), syncing: Vec::new() }
    }

    /// Queues the keys to which `concerns` maps each change of the informer's objects.
    pub fn on<V: Object>(
        &mut self,
        resource: Resource,
        informer: &Informer<V>,
        concerns: impl Fn(&Delta<V>) -> Vec<Key> + Send + 'static,
    ) {
        let (queue, consistency) = (self.queue.clone(), self.consistency.clone());
        let mut deltas = informer.subscribe();
        consistency.watches(resource);
        self.tasks.spawn(async move {
            while let Some(delta) = deltas.recv().await {
                consistency.seen(resource, &delta.object().meta().resource_version);
                for key in concerns(&delta) {
                    queue.add(key);
                }
            }
        });
        let informer = informer.clone();
        self.syncing.push(Box::pin(async move { informer.synced().await }));
    }

    /// Runs beside the workers, for a controller that learns of changes in another way; it may add keys to the queue.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(WorkQueue<Key>) -> F) {
        self.tasks.spawn(task(self.queue.clone()));
    }

    /// Waits until every informer holds its first list.
    pub(crate) async fn synced(&mut self) {
        for informer in self.syncing.drain(..) {
            informer.await;
        }
    }
}

/// The object itself, for `Watches::on`.
pub fn itself<V: Object>(delta: &Delta<V>) -> Vec<Key> {
    vec![delta.object().meta().namespaced_name()]
}

/// The object that controls the changed one, now or before.
pub fn controller_of<V: Object>(delta: &Delta<V>, owner: Resource) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |object: &V| {
        let meta = object.meta();
        if let Some(reference) = meta.controller()
            && reference.kind == owner.kind
            && reference.api_version == owner.api_version()
        {
            let key = Key::new(meta.namespace.clone(), reference.name.clone());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    };
    if let Delta::Updated { old, .. } = delta {
        add(old);
    }
    add(delta.object());
    keys
}
