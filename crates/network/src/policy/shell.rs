//! Carries policies out: waits for policies, pods and namespaces to change, or for somebody to touch
//! our table, and programs the difference. Pods are watched only while there are policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::view::core::{Namespace, Pod};
use api::view::networking::NetworkPolicy;
use apimachinery::meta::{NamespacedName, StringMap};
use client::informer::Delta;
use client::{CancellationToken, Informer, Informers};
use tokio::sync::mpsc::UnboundedReceiver;

use super::plan::{PodFacts, plan};
use super::rules::ruleset;
use crate::names::Names;
use crate::netlink;
use crate::nftables::{Batch, Disturbance, Programmed};

/// Pause after a failed attempt, within the two seconds in which a table must be back.
const RETRY: Duration = Duration::from_secs(1);

/// What enforcing policies can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error("programming nf_tables was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Whose pods are protected.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: String,
    pub node_name: String,
}

/// Runs until `stop`. The table stays: pods stay isolated while the process is away. Acts in the
/// network namespace of the caller.
pub async fn run(informers: Informers, config: Config, stop: CancellationToken) -> Result<(), Error> {
    let policies: Informer<NetworkPolicy> = informers.get();
    let peers = || (informers.get(), informers.get());
    run_with(policies, peers, config, stop).await
}

/// Removes what a cluster's policies programmed.
pub fn teardown(cluster: &str) -> Result<(), Error> {
    let mut socket = netlink::Socket::open(netlink::Family::Netfilter)?;
    Ok(Batch::remove(&Names::of(cluster).policy_table()).commit(&mut socket)?)
}

/// `peers` gives pods and namespaces once they are needed.
pub(super) async fn run_with(
    policies: Informer<NetworkPolicy>,
    peers: impl FnOnce() -> (Informer<Pod>, Informer<Namespace>),
    config: Config,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut policy_changes = policies.subscribe();
    if stop.run_until_cancelled(policies.synced()).await.is_none() {
        return Ok(());
    }
    if policies.list().is_empty() {
        teardown(&config.cluster)?;
        match stop.run_until_cancelled(policy_changes.recv()).await {
            Some(Some(_)) => {}
            _ => return Ok(()),
        }
    }
    let (pods, namespaces) = peers();
    let (pod_changes, namespace_changes) = (pods.subscribe(), namespaces.subscribe());
    let synced = async {
        pods.synced().await;
        namespaces.synced().await;
    };
    if stop.run_until_cancelled(synced).await.is_none() {
        return Ok(());
    }
    let node = config.node_name.clone();
    let world = World { policies, namespaces, node, pods: BTreeMap::new() };
    let table = Programmed::open(Names::of(&config.cluster).policy_table())?;
    let changes = Changes { policies: policy_changes, pods: pod_changes, namespaces: namespace_changes };
    keep(world, changes, table, stop).await
}

async fn keep(
    mut world: World,
    mut changes: Changes,
    mut table: Programmed,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut disturbance = table.disturbance()?;
    let mut due = true;
    loop {
        due |= changes.drain(&mut world);
        if due {
            let desired = world.ruleset(table.name());
            let (returned, result) = tokio::task::spawn_blocking(move || {
                let result = table.apply(desired);
                (table, result)
            })
            .await?;
            table = returned;
            if let Err(error) = result {
                tracing::error!(%error, "programming network policies failed, trying again");
                table.forget();
                match stop.run_until_cancelled(tokio::time::sleep(RETRY)).await {
                    Some(()) => continue,
                    None => return Ok(()),
                }
            }
        }
        due = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            due = changes.next(&mut world) => due,
            happened = Disturbance::happened(&mut disturbance) => {
                happened?;
                tracing::warn!("the network policies' nftables table was changed by another program, restoring it");
                table.forget();
                true
            }
        };
    }
}

struct Changes {
    policies: UnboundedReceiver<Delta<NetworkPolicy>>,
    pods: UnboundedReceiver<Delta<Pod>>,
    namespaces: UnboundedReceiver<Delta<Namespace>>,
}

impl Changes {
    /// Takes what there is; whether any of it matters.
    fn drain(&mut self, world: &mut World) -> bool {
        let mut matters = false;
        while let Ok(delta) = self.pods.try_recv() {
            matters |= world.pod(&delta);
        }
        while let Ok(delta) = self.namespaces.try_recv() {
            matters |= namespace_matters(&delta);
        }
        while self.policies.try_recv().is_ok() {
            matters = true;
        }
        matters
    }

    /// Waits for one change; whether it matters. Cancel safe.
    async fn next(&mut self, world: &mut World) -> bool {
        tokio::select! {
            Some(delta) = self.pods.recv() => world.pod(&delta),
            Some(delta) = self.namespaces.recv() => namespace_matters(&delta),
            Some(_) = self.policies.recv() => true,
            else => std::future::pending().await,
        }
    }
}

fn namespace_matters(delta: &Delta<Namespace>) -> bool {
    match delta {
        Delta::Updated { old, new } => old.metadata.labels != new.metadata.labels,
        _ => true,
    }
}

/// What policies are decided from.
struct World {
    policies: Informer<NetworkPolicy>,
    namespaces: Informer<Namespace>,
    node: String,
    pods: BTreeMap<NamespacedName, PodFacts>,
}

impl World {
    /// Notes the facts of a pod; whether they changed.
    fn pod(&mut self, delta: &Delta<Pod>) -> bool {
        let pod: &Arc<Pod> = delta.object();
        let name = pod.metadata.namespaced_name();
        let facts = match delta {
            Delta::Deleted(_) => None,
            _ => PodFacts::of(pod, &self.node),
        };
        match facts {
            Some(facts) => self.pods.insert(name, facts.clone()).as_ref() != Some(&facts),
            None => self.pods.remove(&name).is_some(),
        }
    }

    fn ruleset(&self, table: &str) -> crate::nftables::Ruleset {
        let labels = |namespace: Arc<Namespace>| -> (String, StringMap) {
            (namespace.metadata.name.clone(), namespace.metadata.labels.clone())
        };
        let namespaces = self.namespaces.list().into_iter().map(labels).collect();
        let pods: Vec<&PodFacts> = self.pods.values().collect();
        ruleset(table, &plan(&self.policies.list(), &pods, &namespaces))
    }
}
