//! How new the newest change is: a read that the members agree upon, shared by all who ask at about the same time.

use std::sync::Arc;

use etcd::Client;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::hub::revision;
use crate::entry::Revision;

/// Why it is not known that all that was written shows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Behind {
    #[error("etcd cannot be asked for the newest revision")]
    Etcd(#[from] etcd::Error),
    #[error("etcd is at revision {newest}, but its watch has come to {shown} only")]
    Late { shown: Revision, newest: Revision },
    #[error("the store is closed")]
    Closed,
}

type Asker = oneshot::Sender<Result<Revision, etcd::Error>>;

#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// Who came after the read that is under way was sent: only the next one can tell them.
    waiting: Mutex<Vec<Asker>>,
    asked: Notify,
}

impl Freshness {
    /// A revision no older than any that somebody was told of before this was called.
    pub(crate) async fn newest(&self) -> Result<Revision, Behind> {
        let (asker, answer) = oneshot::channel();
        self.waiting.lock().push(asker);
        self.asked.notify_one();
        Ok(answer.await.map_err(|_| Behind::Closed)??)
    }

    /// One read at a time, for all who wait when it is sent.
    pub(crate) async fn run(self: Arc<Self>, client: Arc<Client>) {
        loop {
            self.asked.notified().await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if waiting.is_empty() {
                continue;
            }
            let newest = client.revision().await.map(revision);
            for asker in waiting {
                // Whoever no longer waits needs no answer.
                asker.send(newest.clone()).ok();
            }
        }
    }
}
