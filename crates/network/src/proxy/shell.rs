//! Carries the proxy's plans out: waits for Services, EndpointSlices or the node to change, or for
//! somebody to touch our table, plans anew what that concerns, and programs the difference. Changes
//! that arrive while the kernel is busy are taken together. Tracked flows that the change leaves
//! stale are looked for afterwards, beside what comes next.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::resource::NODES;
use api::view::core::{Node, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::meta::NamespacedName;
use client::informer::Delta;
use client::zpages::Pages;
use client::{CancellationToken, Informer, Informers};
use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::conntrack::Stale;
use super::health::{Health, HealthPorts, healthz_handler, metrics_handler};
use super::metrics::Metrics;
use super::own_dns;
use super::plan::{NoEndpoints, Place, ServicePlan, plan};
use super::program::{Applied, Program};
use super::rules::Networks;
use super::tables::{Changes, Tables};
use crate::names::Names;
use crate::nftables::{Batch, Disturbance};
use crate::service::{index_by_service, service_name, slices_of};
use crate::{http, netlink};

/// Pause after a failed attempt, within the two seconds in which a table must be back.
const RETRY: Duration = Duration::from_secs(1);

/// Pause before another attempt to open a port for health or metrics, as upstream's.
const RETRY_LISTEN: Duration = Duration::from_secs(5);

/// For how many times as long as looking for stale flows took they are not looked for again. The kernel goes through all
/// it could track, which takes a core tens of milliseconds where a change of a Service takes one: whoever changes one
/// after the other must not wait for that.
const RESTS_AFTER_CLEANING: u32 = 9;

/// Where the endpoints' controller notes when what it reports happened.
const ANNOTATION_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What the proxy can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error("programming nf_tables was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Whose proxy it is, and what it serves.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub cluster: String,
    /// Endpoints with this node name are local.
    pub node_name: String,
    pub networks: Networks,
    /// Where this node answers cluster DNS itself; empty if it does not.
    pub dns: Vec<IpAddr>,
    /// Where `/healthz` and `/livez` are answered.
    pub healthz_address: Option<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics_address: Option<SocketAddr>,
    /// What the proxy says of itself there.
    pub pages: Pages,
}

/// What the proxy listens to.
pub(super) struct Sources {
    pub services: Informer<Service>,
    pub slices: Informer<EndpointSlice>,
    /// Only this node.
    pub nodes: Informer<Node>,
}

/// Runs until `stop`. The table stays: connections to Services outlive the process. Acts in the
/// network namespace of the caller.
pub async fn run(informers: Informers, config: Config, stop: CancellationToken) -> Result<(), Error> {
    let own = format!("metadata.name={}", config.node_name);
    let sources = Sources {
        services: informers.get(),
        slices: informers.get(),
        nodes: informers.get_selected(NODES, &own),
    };
    run_with(sources, config, stop).await
}

/// Removes what a cluster's proxy programmed.
pub fn teardown(cluster: &str) -> Result<(), Error> {
    let mut socket = netlink::Socket::open(netlink::Family::Netfilter)?;
    Ok(Batch::remove(&Names::of(cluster).proxy_table()).commit(&mut socket)?)
}

pub(super) async fn run_with(sources: Sources, config: Config, stop: CancellationToken) -> Result<(), Error> {
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let handlers = [
        (config.healthz_address, healthz_handler(health.clone(), metrics.clone())),
        (config.metrics_address, metrics_handler(metrics.clone(), config.pages.clone())),
    ];
    for (address, handler) in handlers {
        if let Some(address) = address {
            tokio::spawn(stop.clone().run_until_cancelled_owned(serve(address, handler, stop.clone())));
        }
    }
    let mut inbox = Inbox::new(&sources);
    if stop.run_until_cancelled(sources.synced()).await.is_none() {
        return Ok(());
    }
    let program = Program::open(Names::of(&config.cluster).proxy_table(), config.networks.clone())?;
    let mut disturbance = program.disturbance()?;
    let place = Place { node: config.node_name.clone(), ..Place::default() };
    let tables = Arc::new(RwLock::new(Tables::default()));
    let (stale, from_worker) = unbounded_channel();
    let mut cleaner = tokio::spawn(clean(from_worker, tables.clone(), metrics.clone()));
    let mut worker =
        Worker { sources, place, dns: config.dns, tables, changes: Changes::default(), program, stale };
    let mut ports = HealthPorts::new(health.clone());
    loop {
        inbox.drain();
        let queued = Timestamp::now();
        health.queued(queued);
        metrics.changed(inbox.services, inbox.slices, seconds(queued));
        health.node(worker.sources.nodes.get("", &config.node_name).as_deref());
        let (due, counting) = (inbox.take(), metrics.clone());
        let (returned, result) = tokio::task::spawn_blocking(move || worker.sync(&due, &counting)).await?;
        worker = returned;
        if let Err(error) = result {
            tracing::error!(%error, "programming services failed, trying again");
            metrics.failed();
            worker.program.forget();
            match stop.run_until_cancelled(tokio::time::sleep(RETRY)).await {
                Some(()) => continue,
                None => return Ok(()),
            }
        }
        health.updated(Timestamp::now());
        let checks = worker.tables.read().health_checks();
        ports.sync(&checks).await;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = inbox.wait() => {}
            ended = &mut cleaner => return ended?,
            happened = Disturbance::happened(&mut disturbance) => {
                happened?;
                tracing::warn!("the service proxy's nftables table was changed by another program, restoring it");
                worker.program.forget();
            }
        }
    }
}

/// Deletes stale flows as long as somebody tells of them: at once when it has rested, else together with those that
/// others leave meanwhile. A failure has them looked for again.
async fn clean(
    mut due: UnboundedReceiver<Stale>,
    tables: Arc<RwLock<Tables>>,
    metrics: Arc<Metrics>,
) -> Result<(), Error> {
    while let Some(mut stale) = due.recv().await {
        loop {
            while let Ok(more) = due.try_recv() {
                stale.extend(more);
            }
            let (tables, started) = (tables.clone(), Instant::now());
            let cleaning = tokio::task::spawn_blocking(move || (stale.delete(&tables), stale));
            let (deleted, tried) = cleaning.await?;
            match deleted {
                Ok(deleted) => {
                    let took = started.elapsed();
                    metrics.tracked(deleted, took);
                    tokio::time::sleep(took * RESTS_AFTER_CLEANING).await;
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "deleting stale connections failed, trying again");
                    metrics.failed();
                }
            }
            stale = tried;
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}

/// Like upstream, goes without the port while another has it.
async fn serve(address: SocketAddr, handler: http::Handler, stop: CancellationToken) {
    loop {
        match http::listen(address).await {
            Ok(listener) => return http::serve(listener, handler, stop).await,
            Err(error) => tracing::warn!(%address, %error, "the proxy's port cannot be opened, trying again"),
        }
        tokio::time::sleep(RETRY_LISTEN).await;
    }
}

impl Sources {
    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
    }
}

/// Changes that wait to be planned.
struct Inbox {
    from_services: UnboundedReceiver<Delta<Service>>,
    from_slices: UnboundedReceiver<Delta<EndpointSlice>>,
    from_nodes: UnboundedReceiver<Delta<Node>>,
    due: Due,
    /// How many came, for the metrics.
    services: usize,
    slices: usize,
}

/// What is to be planned anew.
#[derive(Default)]
struct Due {
    services: BTreeSet<NamespacedName>,
    /// The node changed: everything may lie differently to it.
    all: bool,
    /// When what the slices tell of happened.
    triggers: Vec<Timestamp>,
}

impl Inbox {
    fn new(sources: &Sources) -> Inbox {
        index_by_service(&sources.slices);
        Inbox {
            from_services: sources.services.subscribe(),
            from_slices: sources.slices.subscribe(),
            from_nodes: sources.nodes.subscribe(),
            due: Due::default(),
            services: 0,
            slices: 0,
        }
    }

    /// Returns once there is something. Cancel safe.
    async fn wait(&mut self) {
        tokio::select! {
            Some(delta) = self.from_services.recv() => self.service(&delta),
            Some(delta) = self.from_slices.recv() => self.slice(&delta),
            Some(_) = self.from_nodes.recv() => self.due.all = true,
            else => std::future::pending().await,
        }
    }

    fn drain(&mut self) {
        while let Ok(delta) = self.from_services.try_recv() {
            self.service(&delta);
        }
        while let Ok(delta) = self.from_slices.try_recv() {
            self.slice(&delta);
        }
        while self.from_nodes.try_recv().is_ok() {
            self.due.all = true;
        }
    }

    fn take(&mut self) -> Due {
        (self.services, self.slices) = (0, 0);
        std::mem::take(&mut self.due)
    }

    fn service(&mut self, delta: &Delta<Service>) {
        self.services += 1;
        self.due.services.insert(delta.object().metadata.namespaced_name());
    }

    fn slice(&mut self, delta: &Delta<EndpointSlice>) {
        self.slices += 1;
        let before = if let Delta::Updated { old, .. } = delta { Some(old) } else { None };
        for slice in before.into_iter().chain([delta.object()]) {
            if let Some(service) = service_name(slice) {
                self.due.services.insert(NamespacedName::new(&slice.metadata.namespace, service));
            }
        }
        let trigger = delta.object().metadata.annotations.get(ANNOTATION_TRIGGER_TIME);
        self.due.triggers.extend(trigger.and_then(|time| time.parse::<Timestamp>().ok()));
    }
}

/// Plans and programs, on a thread that may block.
struct Worker {
    sources: Sources,
    place: Place,
    dns: Vec<IpAddr>,
    /// Written here only.
    tables: Arc<RwLock<Tables>>,
    /// Since the last success.
    changes: Changes,
    program: Program,
    /// Tells what was changed, and may have left flows to endpoints that are gone.
    stale: UnboundedSender<Stale>,
}

impl Worker {
    fn sync(mut self, due: &Due, metrics: &Metrics) -> (Worker, Result<(), netlink::Error>) {
        let started = Instant::now();
        self.plan(due);
        let result = self.apply(metrics, started);
        if result.is_ok() {
            let now = Timestamp::now();
            due.triggers.iter().for_each(|trigger| metrics.programmed(seconds(now) - seconds(*trigger)));
        }
        (self, result)
    }

    fn plan(&mut self, due: &Due) {
        let mut tables = self.tables.write();
        let mut services = due.services.clone();
        if due.all {
            let place = self.sources.nodes.get("", &self.place.node).map(|node| Place::of(&node));
            if let Some(place) = place.filter(|place| *place != self.place) {
                self.place = place;
                services.extend(tables.services().cloned());
            }
        }
        for name in services {
            let plan = match self.sources.services.get(&name.namespace, &name.name) {
                Some(service) => {
                    let slices = slices_of(&self.sources.slices, &name.namespace, &name.name).into_iter();
                    let seen = slices.map(|slice| own_dns::seen_from(slice, &self.dns, &self.place.node));
                    plan(&service, &seen.collect::<Vec<_>>(), &self.place)
                }
                None => ServicePlan::default(),
            };
            tables.set(&name, plan, &mut self.changes);
        }
    }

    fn apply(&mut self, metrics: &Metrics, started: Instant) -> Result<(), netlink::Error> {
        let tables = self.tables.read();
        let applied = self.program.apply(&tables, &self.changes)?;
        if applied != Applied::Nothing {
            metrics.synced(applied == Applied::Whole, started.elapsed(), seconds(Timestamp::now()));
        }
        if applied == Applied::Whole || self.changes.concern_local_policy(&tables) {
            let (internal, external) = tables.without_local_endpoints();
            metrics.without_local_endpoints(internal, external);
        }
        let stale = Stale::of(&tables, std::mem::take(&mut self.changes));
        // Nobody listens any more when the process ends.
        self.stale.send(stale).ok();
        Ok(())
    }
}

impl Changes {
    fn concern_local_policy(&self, tables: &Tables) -> bool {
        self.frontends.iter().any(|(frontend, was)| {
            let lacks = |otherwise: NoEndpoints| otherwise == NoEndpoints::Drop;
            was.as_ref().is_some_and(|was| was.endpoints.is_empty() && lacks(was.otherwise))
                || tables.backends(frontend).is_some_and(|is| is.endpoints.is_empty() && lacks(is.otherwise))
        })
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}
