//! Of several processes that could do the same work one does it: whoever holds a Lease and renews it in time. Who waits
//! follows the Lease and tries when it is free; nobody asks again and again. Follows `client-go/tools/leaderelection`.

mod health;
mod record;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::resource::LEASES;
use api::view::coordination::Lease;
use api::view::core::ObjectReference;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::event::{EventRecorder, EventType};
use crate::informer::{Delta, Informer};
use crate::request::Client;
pub use health::Health;
pub use record::{Timing, TimingError};

/// Which Lease decides, and who asks for it.
#[derive(Clone, Debug)]
pub struct Config {
    pub namespace: String,
    pub name: String,
    /// No other candidate has it, nor had this one before it was started again.
    pub identity: String,
    pub timing: Timing,
}

/// One candidate.
pub struct Elector {
    client: Client,
    recorder: EventRecorder,
    config: Config,
    health: Arc<Health>,
}

impl Elector {
    /// `component` is the source of the events that tell who leads.
    pub fn new(client: Client, component: &str, config: Config) -> Elector {
        let recorder = EventRecorder::new(client.clone(), component, "");
        let health = Arc::new(Health::new(config.timing.lease_duration));
        Elector { client, recorder, config, health }
    }

    /// Tells whether the lead that this candidate has is renewed.
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Does `work` whenever this candidate leads, until `stop`. The token that the work gets is cancelled when another
    /// may lead soon; it must end at once then. The lead is given up only after it has ended, so that two never work.
    /// Returns early if the work ends by itself.
    pub async fn run<F>(self, stop: CancellationToken, work: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()>,
    {
        while let Some(mut held) = stop.run_until_cancelled(self.acquire()).await {
            self.health.renewed(Instant::now());
            self.tell(&held, "became leader");
            let leading = stop.child_token();
            let mut working = pin!(work(leading.clone()));
            let ended = tokio::select! {
                () = &mut working => true,
                () = self.renew(&mut held) => false,
            };
            if !ended {
                leading.cancel();
                working.await;
            }
            self.tell(&held, "stopped leading");
            self.release(held).await;
            self.health.led();
            if ended {
                return;
            }
        }
    }

    /// Waits until the Lease is free, takes it, and returns it as it is then.
    async fn acquire(&self) -> Value {
        let Config { namespace, name, timing, .. } = &self.config;
        tracing::info!(lease = name, "waiting for the lead");
        let stop = CancellationToken::new();
        let _until_taken = stop.clone().drop_guard();
        let informer = Informer::<Lease>::of_one(self.client.clone(), LEASES, namespace, name, stop);
        let mut changes = informer.subscribe();
        informer.synced().await;
        let mut free_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => free_at = Instant::now() + self.believed_for(&change),
                () = sleep_until(free_at) => match self.take(informer.get(namespace, name).as_deref()).await {
                    Ok(Some(held)) => return held,
                    // What changed meanwhile shows soon.
                    Ok(None) => free_at = Instant::now() + timing.lease_duration,
                    Err(error) => {
                        tracing::warn!(lease = name, %error, "the lead could not be taken, will retry");
                        free_at = Instant::now() + timing.retry_period;
                    }
                },
            }
        }
    }

    /// How long the holder that shows is believed to be there without another sign.
    fn believed_for(&self, change: &Delta<Lease>) -> Duration {
        match change {
            Delta::Deleted(_) => Duration::ZERO,
            Delta::Added(lease) | Delta::Updated { new: lease, .. } => {
                record::believed_for(&lease.spec, &self.config.identity)
            }
        }
    }

    /// Makes the Lease, or takes over the one that was seen; none if it is another by now.
    async fn take(&self, seen: Option<&Lease>) -> Result<Option<Value>> {
        let Config { namespace, name, timing, .. } = &self.config;
        let taking = async {
            let Some(seen) = seen else {
                let lease = json!({"apiVersion": LEASES.api_version(), "kind": LEASES.kind,
                    "metadata": {"namespace": namespace, "name": name}});
                let lease = self.renewed(lease)?;
                return self.client.create(LEASES, namespace, &lease).await.map(Some);
            };
            let found: Value = self.client.get(LEASES, namespace, name).await?;
            if str_at(&found, &["metadata", "resourceVersion"]) != seen.metadata.resource_version {
                return Ok(None);
            }
            self.write(self.renewed(found)?).await.map(Some)
        };
        match within(Instant::now() + timing.request_timeout(), taking).await {
            Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
                Ok(None)
            }
            other => other,
        }
    }

    /// Renews the Lease for as long as that goes; returns early enough for the work to end before another may lead.
    async fn renew(&self, held: &mut Value) {
        let Config { name, timing, .. } = &self.config;
        let mut renewed = Instant::now();
        loop {
            let deadline = renewed + timing.renew_deadline;
            sleep_until(deadline.min(Instant::now() + timing.retry_period)).await;
            let begun = Instant::now();
            let attempt_ends = deadline.min(begun + timing.request_timeout());
            match within(attempt_ends, self.renew_once(held)).await {
                Ok(Some(lease)) => {
                    (*held, renewed) = (lease, begun);
                    self.health.renewed(begun);
                }
                Ok(None) => return tracing::warn!(lease = name, "another took the lead"),
                Err(error) if Instant::now() >= deadline => {
                    return tracing::warn!(lease = name, %error, "the lead could not be renewed in time");
                }
                Err(error) => tracing::debug!(lease = name, %error, "the lead was not renewed, will retry"),
            }
        }
    }

    /// The Lease after this; none when it is another's.
    async fn renew_once(&self, held: &Value) -> Result<Option<Value>> {
        let Config { namespace, name, identity, .. } = &self.config;
        match self.write(self.renewed(held.clone())?).await {
            // Somebody wrote to it, or this candidate did and was not told.
            Err(error) if error.is_conflict() => {}
            other => return other.map(Some),
        }
        let found: Value = self.client.get(LEASES, namespace, name).await?;
        if str_at(&found, &["spec", "holderIdentity"]) != identity {
            return Ok(None);
        }
        self.write(self.renewed(found)?).await.map(Some)
    }

    /// Lets another lead at once. If that fails the Lease runs out by itself.
    async fn release(&self, mut held: Value) {
        let Config { name, timing, .. } = &self.config;
        held["spec"] = match record::of(&held).and_then(|spec| record::released(&spec, Timestamp::now())) {
            Ok(spec) => spec,
            Err(error) => return tracing::debug!(lease = name, %error, "the lead was not given up"),
        };
        if let Err(error) = within(Instant::now() + timing.request_timeout(), self.write(held)).await {
            tracing::debug!(lease = name, %error, "the lead was not given up");
        }
    }

    /// The Lease with this candidate as its holder from now on.
    fn renewed(&self, mut lease: Value) -> Result<Value> {
        let Config { identity, timing, .. } = &self.config;
        let last = record::of(&lease)?;
        lease["spec"] = record::renewed(&last, identity, timing.lease_duration, Timestamp::now())?;
        Ok(lease)
    }

    async fn write(&self, lease: Value) -> Result<Value> {
        let Config { namespace, name, .. } = &self.config;
        self.client.update(LEASES, namespace, name, None, &lease).await
    }

    fn tell(&self, lease: &Value, what: &str) {
        let Config { namespace, name, identity, .. } = &self.config;
        tracing::info!(lease = name, identity, what, "leader election");
        let regarding = ObjectReference {
            kind: LEASES.kind.to_owned(),
            api_version: LEASES.api_version(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: str_at(lease, &["metadata", "uid"]).to_owned(),
            ..ObjectReference::default()
        };
        self.recorder.event(&regarding, EventType::Normal, "LeaderElection", format!("{identity} {what}"));
    }
}

/// An answer that comes too late is as good as none.
async fn within<T>(deadline: Instant, request: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::Transport("no answer came in time".to_owned());
    timeout_at(deadline, request).await.map_err(late)?
}

#[cfg(test)]
mod tests;
