//! Controllers and scheduler where several processes would do their work: each does it only while it leads.

use anyhow::Context as _;
use client::leaderelection::{Config, Elector, Timing};
use client::{CancellationToken, Client};

/// The kernel's, so that no process has the name of another or of one before it.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// How this process stands for the lead of its parts.
#[derive(Clone)]
pub struct Election {
    identity: String,
    namespace: String,
    timing: Timing,
}

impl Election {
    pub fn new(namespace: String, timing: Timing) -> anyhow::Result<Election> {
        let unique = std::fs::read_to_string(UUID).with_context(|| format!("cannot read {UUID}"))?;
        let identity = format!("{}_{}", cluster::address::hostname(), unique.trim());
        Ok(Election { identity, namespace, timing })
    }

    /// `component` is the source of events that tell of it; `lease` is what the leader holds.
    pub fn elector(&self, client: Client, component: &str, lease: &str) -> Elector {
        let config = Config {
            namespace: self.namespace.clone(),
            name: lease.to_owned(),
            identity: self.identity.clone(),
            timing: self.timing,
        };
        Elector::new(client, component, config)
    }
}

/// Does `work` until `stop`: whenever it leads, or all the time where there is no other.
pub async fn work<F>(elector: Option<Elector>, stop: CancellationToken, work: impl Fn(CancellationToken) -> F)
where
    F: Future<Output = ()>,
{
    match elector {
        Some(elector) => elector.run(stop, work).await,
        None => work(stop).await,
    }
}
