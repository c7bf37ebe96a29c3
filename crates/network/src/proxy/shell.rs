//! Carries the proxy's plans out: waits for Services and EndpointSlices to change, or for somebody
//! to touch our table, and programs the difference. Changes that arrive while the kernel is busy
//! are taken together.

use std::time::Duration;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use client::{CancellationToken, Informer, Informers};
use tokio::sync::mpsc::UnboundedReceiver;

use super::conntrack;
use super::plan::{Tables, plan};
use super::rules::ruleset;
use crate::names::Names;
use crate::netlink;
use crate::nftables::{Batch, Disturbance, Programmed};

/// Pause after a failed attempt, within the two seconds in which a table must be back.
const RETRY: Duration = Duration::from_secs(1);

/// What the proxy can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error("programming nf_tables was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Whose proxy it is.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: String,
    /// Endpoints with this node name are local.
    pub node_name: String,
}

/// Runs until `stop`. The table stays: connections to Services outlive the process. Acts in the
/// network namespace of the caller.
pub async fn run(informers: Informers, config: Config, stop: CancellationToken) -> Result<(), Error> {
    run_with(informers.get(), informers.get(), config, stop).await
}

/// Removes what a cluster's proxy programmed.
pub fn teardown(cluster: &str) -> Result<(), Error> {
    let mut socket = netlink::Socket::open(netlink::Family::Netfilter)?;
    Ok(Batch::remove(&Names::of(cluster).proxy_table()).commit(&mut socket)?)
}

pub(super) async fn run_with(
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    config: Config,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut service_changes = services.subscribe();
    let mut slice_changes = slices.subscribe();
    let synced = async {
        services.synced().await;
        slices.synced().await;
    };
    if stop.run_until_cancelled(synced).await.is_none() {
        return Ok(());
    }
    let table = Programmed::open(Names::of(&config.cluster).proxy_table())?;
    let mut disturbance = table.disturbance()?;
    let mut programmer = Programmer { table, tables: Tables::default() };
    let mut due = Due::Sync;
    loop {
        drain(&mut service_changes);
        drain(&mut slice_changes);
        let tables = plan(&services.list(), &slices.list(), &config.node_name);
        let (returned, result) = tokio::task::spawn_blocking(move || programmer.program(tables, due)).await?;
        programmer = returned;
        if let Err(error) = result {
            tracing::error!(%error, "programming services failed, trying again");
            due = Due::Restore;
            match stop.run_until_cancelled(tokio::time::sleep(RETRY)).await {
                Some(()) => continue,
                None => return Ok(()),
            }
        }
        due = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = service_changes.recv() => Due::Sync,
            Some(_) = slice_changes.recv() => Due::Sync,
            happened = Disturbance::happened(&mut disturbance) => {
                happened?;
                tracing::warn!("the service proxy's nftables table was changed by another program, restoring it");
                Due::Restore
            }
        };
    }
}

/// What the next round has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Program the difference to what is there.
    Sync,
    /// Program everything: what is there is not known.
    Restore,
}

fn drain<T>(changes: &mut UnboundedReceiver<T>) {
    while changes.try_recv().is_ok() {}
}

struct Programmer {
    table: Programmed,
    /// What the present content of the table was planned as.
    tables: Tables,
}

impl Programmer {
    fn program(mut self, tables: Tables, due: Due) -> (Programmer, Result<(), netlink::Error>) {
        let result = self.try_program(tables, due);
        (self, result)
    }

    fn try_program(&mut self, tables: Tables, due: Due) -> Result<(), netlink::Error> {
        if due == Due::Restore {
            self.table.forget();
        }
        let desired = ruleset(self.table.name(), &tables);
        self.table.apply(desired)?;
        // Remembered only once the old flows are gone too: a failure has them looked for again.
        if conntrack::udp_changed(&self.tables, &tables) {
            conntrack::delete_stale(&tables)?;
        }
        self.tables = tables;
        Ok(())
    }
}
