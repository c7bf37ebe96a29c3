//! The one loop that runs every controller: queue, wait for own writes, decide, carry out, requeue.

use std::sync::Arc;
use std::time::Duration;

use client::{CancellationToken, Client, EventRecorder, Informers, WorkQueue};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::catalogue::{CATALOGUE, Config, Row};
use crate::consistency::{Consistency, Readiness};
use crate::controller::{Controller, FailureKind, Key, Watches};
use crate::execute::Executor;

/// Runs all controllers of the catalogue until `stop`. `client_for` gives each its own identity: for the account
/// `deployment-controller` that of `system:serviceaccount:kube-system:deployment-controller`.
pub async fn run(
    config: &Config,
    client_for: impl Fn(&'static str) -> Client,
    informers: &Informers,
    stop: CancellationToken,
) {
    let mut controllers = JoinSet::new();
    for row in CATALOGUE.iter().filter(|row| !config.disabled.contains(&row.name)) {
        let client = client_for(row.account);
        let controller = (row.new)(config, informers, &client);
        let queue = WorkQueue::named(row.name, &config.queues);
        let running = run_one(row, controller.into(), queue, client);
        controllers.spawn(stop.clone().run_until_cancelled_owned(running));
    }
    while let Some(ended) = controllers.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn run_one(row: &'static Row, controller: Arc<dyn Controller>, queue: WorkQueue<Key>, client: Client) {
    let consistency = Consistency::default();
    let mut watches = Watches::new(queue.clone(), consistency.clone());
    controller.watch(&mut watches);
    watches.synced().await;
    tracing::debug!(controller = row.name, "caches are filled");
    let recorder = EventRecorder::new(client.clone(), row.name, "");
    let worker =
        Arc::new(Worker { row, controller, queue, executor: Executor { client, recorder, consistency } });
    let mut workers = JoinSet::new();
    for _ in 0..row.workers {
        workers.spawn(worker.clone().run());
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

struct Worker {
    row: &'static Row,
    controller: Arc<dyn Controller>,
    queue: WorkQueue<Key>,
    executor: Executor,
}

impl Worker {
    async fn run(self: Arc<Self>) {
        loop {
            let key = self.queue.get().await;
            match self.executor.consistency.readiness(&key) {
                Readiness::Ready => self.process(&key).await,
                Readiness::Behind(Some(delay)) => self.queue.add_after(key.clone(), delay),
                Readiness::Behind(None) => {}
            }
            self.queue.done(&key);
        }
    }

    async fn process(&self, key: &Key) {
        let now = Timestamp::now();
        let plan = match self.controller.reconcile(key, &self.executor.client, now).await {
            Ok(plan) => plan,
            Err(error) => {
                tracing::warn!(controller = self.row.name, %key, %error, "cannot decide, will retry");
                return self.queue.add_rate_limited(key.clone());
            }
        };
        match self.executor.carry_out(key, &plan).await {
            Ok(()) => {
                self.controller.carried_out(key, None);
                self.queue.forget(key);
            }
            Err(failure) => {
                tracing::debug!(controller = self.row.name, %key, failure = failure.message, "plan not carried out");
                self.controller.carried_out(key, Some(&failure));
                if failure.kind != FailureKind::NamespaceTerminating {
                    // The next decision asks for its own time; this one's would undo the growing pause.
                    return self.queue.add_rate_limited(key.clone());
                }
            }
        }
        if let Some(at) = plan.requeue_at {
            let delay = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            self.queue.add_after(key.clone(), delay.max(Duration::from_millis(1)));
        }
    }
}

#[cfg(test)]
mod tests;
