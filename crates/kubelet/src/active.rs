//! The pods that run on this node or are about to, for those who may have to end them, and those of which only remains
//! are left.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use api::view::core::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pod::memory::Failure;
use crate::worker::Message;

/// One of them, with the way to its worker.
#[derive(Clone)]
pub struct Active {
    pub pod: Arc<Pod>,
    worker: mpsc::Sender<Message>,
    ended: CancellationToken,
}

impl AsRef<Pod> for Active {
    fn as_ref(&self) -> &Pod {
        &self.pod
    }
}

impl Active {
    /// Tells the worker that the pod is over; false when it cannot hear now.
    pub fn end(&self, failure: Failure) -> bool {
        self.worker.try_send(Message::End(failure)).is_ok()
    }

    /// Has the worker look at its pod; one whose inbox is full does so anyway.
    pub fn wake(&self) {
        drop(self.worker.try_send(Message::Runtime));
    }

    /// Waits until nothing of the pod runs any more and the API knows.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Written by the pods' workers.
#[derive(Default)]
pub struct ActivePods {
    /// By uid.
    pods: Mutex<HashMap<String, Active>>,
    /// Uids of pods that have ended, which the API knows.
    over: Mutex<HashSet<String>>,
}

impl ActivePods {
    /// `ended` is cancelled by the worker when nothing of the pod runs any more.
    pub fn insert(&self, pod: Arc<Pod>, worker: &mpsc::Sender<Message>, ended: &CancellationToken) {
        let active = Active { pod, worker: worker.clone(), ended: ended.clone() };
        self.pods().insert(active.pod.metadata.uid.clone(), active);
    }

    /// The pod is over, or ends.
    pub fn remove(&self, uid: &str) {
        self.pods().remove(uid);
    }

    /// Nothing of the pod runs any more, and the API knows how it ended.
    pub fn finish(&self, uid: &str) {
        self.over().insert(uid.to_owned());
    }

    /// The pod has no worker any more.
    pub fn forget(&self, uid: &str) {
        self.remove(uid);
        self.over().remove(uid);
    }

    /// Whether nobody needs what is left of the pod's containers to know how they ended.
    pub fn is_over(&self, uid: &str) -> bool {
        self.over().contains(uid)
    }

    pub fn list(&self) -> Vec<Active> {
        self.pods().values().cloned().collect()
    }

    fn over(&self) -> MutexGuard<'_, HashSet<String>> {
        self.over.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn pods(&self) -> MutexGuard<'_, HashMap<String, Active>> {
        self.pods.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
