//! The network of this node's pods: an address for each, a routed veth pair to it, masquerade for
//! what leaves the cluster, and host ports. Routed: the host has a /32 route per pod and no bridge
//! carries pod traffic, so nothing depends on br_netfilter.
//!
//! What was given out is in a small file, so that restarting the process disturbs no pod.

mod bandwidth;
mod host;
mod peers;
mod rules;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

pub use bandwidth::{BadBandwidth, Bandwidth};
pub use peers::Peer;
pub use state::HostPort;

use crate::ipam;
use crate::link::{Links, RouteChanges, VETH_MTU_MAX};
use crate::names::Names;
use crate::nftables::{Disturbance, Programmed};
use crate::{netlink, netns, sysctl};
use state::{Attachment, State};

/// What the pod network can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error("no free address left in {cidr}: {taken} are in use")]
    Exhausted { cidr: IpNet, taken: usize },
    #[error("link {name} vanished while it was being set up")]
    Vanished { name: String },
    #[error("a network operation was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What a node's pod network is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster: tells apart what several clusters create on one machine.
    pub cluster: String,
    /// The node's pod CIDRs, one or one per family; the first address of each is the gateway.
    pub pod_cidrs: Vec<IpNet>,
    /// What is reached without masquerade, such as the pods of other nodes.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service CIDRs: routed to the host link, so that the host needs no default route for them.
    pub service_cidrs: Vec<IpNet>,
    /// By which other nodes know this one; tunnels begin there. Without it there are none.
    pub node_ip: Option<IpAddr>,
    /// More addresses for the host link, such as one for DNS.
    pub addresses: Vec<IpAddr>,
    /// Where what was given out is remembered.
    pub state_file: PathBuf,
}

/// A sandbox to be connected.
#[derive(Clone, Debug)]
pub struct Attach {
    pub sandbox_id: String,
    /// Path of the sandbox's network namespace.
    pub netns: PathBuf,
    pub host_ports: Vec<HostPort>,
    pub bandwidth: Bandwidth,
}

/// The pod network of this node. Cheap to clone; clones are the same network.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    names: Names,
    state: State,
    links: Links,
    table: Programmed,
    mtu: u32,
    /// This process has set up the ways to other nodes that the state names.
    peers_applied: bool,
}

impl PodNetwork {
    /// Sets up the host's side and takes over the pods that an earlier process attached. Acts in
    /// the network namespace of the caller.
    pub async fn start(config: Config) -> Result<PodNetwork, Error> {
        let inner = tokio::task::spawn_blocking(move || Inner::start(config)).await??;
        Ok(PodNetwork { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Gives the sandbox its addresses and connects it. Attaching it again changes nothing.
    pub async fn attach(&self, request: Attach) -> Result<Vec<IpAddr>, Error> {
        self.with(move |inner| inner.attach(&request)).await
    }

    /// Disconnects the sandbox and frees its addresses; one that is not attached is no error.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        let sandbox_id = sandbox_id.to_string();
        self.with(move |inner| inner.detach(&sandbox_id)).await
    }

    /// The addresses of a sandbox; none if it is not attached.
    pub fn addresses(&self, sandbox_id: &str) -> Vec<IpAddr> {
        let inner = self.inner.lock();
        inner
            .state
            .attachments
            .get(sandbox_id)
            .map(|attachment| attachment.addresses.clone())
            .unwrap_or_default()
    }

    /// Sandboxes that are attached, those of an earlier process included.
    pub fn sandboxes(&self) -> Vec<String> {
        self.inner.lock().state.attachments.keys().cloned().collect()
    }

    /// Starts listening for changes of routes by others, after which [`PodNetwork::set_peers`] is due.
    pub fn route_changes(&self) -> Result<RouteChanges, Error> {
        Ok(self.inner.lock().links.route_changes()?)
    }

    /// Makes the ways to other nodes' pods these, and no others.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<(), Error> {
        self.with(move |inner| inner.set_peers(&peers)).await
    }

    /// Puts the nftables table back whenever somebody else changes it; returns when `stop` does.
    pub async fn keep(&self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut disturbance = self.inner.lock().table.disturbance()?;
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                happened = Disturbance::happened(&mut disturbance) => happened?,
            }
            tracing::warn!("the pod network's nftables table was changed by another program, restoring it");
            self.with(|inner| Ok(inner.table.restore()?)).await?;
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || act(&mut inner.lock())).await?
    }
}

impl Inner {
    fn start(config: Config) -> Result<Inner, Error> {
        let names = Names::of(&config.cluster);
        let mut links = Links::new(netlink::Socket::open(netlink::Family::Route)?);
        let mtu = links.default_route_mtu()?.min(VETH_MTU_MAX);
        let mut state = State::load(&config.state_file)?;
        host::set_sysctls(&config, &mut state.sysctls)?;
        state.save(&config.state_file)?;
        host::set_up(&mut links, &names, &config)?;
        let table = Programmed::open(names.pods_table())?;
        let mut inner = Inner { config, names, state, links, table, mtu, peers_applied: false };
        inner.reconcile_links()?;
        inner.apply_rules()?;
        // Only now: the rules have brought connection tracking with them.
        host::set_tracking(&mut inner.state.sysctls)?;
        inner.state.save(&inner.config.state_file)?;
        Ok(inner)
    }

    /// Forgets sandboxes whose link is gone (the machine restarted), removes links that nobody
    /// remembers.
    fn reconcile_links(&mut self) -> Result<(), Error> {
        let present = host::veths(&mut self.links, &self.names)?;
        self.state.attachments.retain(|id, _| present.contains(&self.names.veth(id)));
        let known: HashSet<String> = self.state.attachments.keys().map(|id| self.names.veth(id)).collect();
        for name in present.difference(&known) {
            self.links.delete(name)?;
        }
        Ok(self.state.save(&self.config.state_file)?)
    }

    fn attach(&mut self, request: &Attach) -> Result<Vec<IpAddr>, Error> {
        let id = &request.sandbox_id;
        let veth = self.names.veth(id);
        if let Some(attachment) = self.state.attachments.get(id)
            && self.links.find(&veth)?.is_some()
        {
            return Ok(attachment.addresses.clone());
        }
        self.links.delete(&veth)?;
        let addresses = self.allocate()?;
        let attachment = Attachment { addresses: addresses.clone(), host_ports: request.host_ports.clone() };
        self.state.attachments.insert(id.clone(), attachment);
        self.state.save(&self.config.state_file)?;
        let connected = self.connect(request, &addresses).and_then(|()| self.apply_rules());
        if let Err(error) = connected {
            if let Err(undo) = self.detach(id) {
                tracing::warn!(error = %undo, sandbox = id, "undo of a failed attach failed");
            }
            return Err(error);
        }
        Ok(addresses)
    }

    fn detach(&mut self, sandbox_id: &str) -> Result<(), Error> {
        self.links.delete(&self.names.veth(sandbox_id))?;
        if self.state.attachments.remove(sandbox_id).is_some() {
            self.state.save(&self.config.state_file)?;
            self.apply_rules()?;
        }
        Ok(())
    }

    fn set_peers(&mut self, peers: &[Peer]) -> Result<(), Error> {
        let mut ways = BTreeMap::new();
        for address in peers.iter().flat_map(|peer| &peer.addresses) {
            ways.insert(*address, self.links.way_to(*address)?);
        }
        let desired = peers::plan(peers, |address| ways.get(&address).copied().flatten());
        // Writing what is there already would be told to all who listen, who might do the same.
        let known = self.peers_applied && desired == self.state.peers;
        if known && peers::in_place(&mut self.links, &self.names, &desired)? {
            return Ok(());
        }
        let present = std::mem::replace(&mut self.state.peers, desired);
        // What is to be removed must be known even if this process ends here.
        self.state.save(&self.config.state_file)?;
        let desired = &self.state.peers;
        peers::apply(&mut self.links, &self.names, &self.config, self.mtu, &present, desired)?;
        self.peers_applied = true;
        self.apply_rules()
    }

    fn allocate(&mut self) -> Result<Vec<IpAddr>, Error> {
        let mut taken: HashSet<IpAddr> = self
            .state
            .attachments
            .values()
            .flat_map(|attachment| attachment.addresses.iter().copied())
            .collect();
        taken.extend(&self.config.addresses);
        let mut addresses = Vec::new();
        for cidr in &self.config.pod_cidrs {
            let last = self.state.last.get(cidr).copied();
            let address = ipam::next_address(*cidr, last, &taken)
                .ok_or(Error::Exhausted { cidr: *cidr, taken: self.state.attachments.len() })?;
            self.state.last.insert(*cidr, address);
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn connect(&mut self, request: &Attach, addresses: &[IpAddr]) -> Result<(), Error> {
        let gateways: Vec<IpAddr> = self.config.pod_cidrs.iter().map(|cidr| ipam::gateway(*cidr)).collect();
        let pair = host::Pair {
            host_name: &self.names.veth(&request.sandbox_id),
            alias: &self.names.veth_alias(&request.sandbox_id),
            netns: &request.netns,
            mtu: self.mtu,
            addresses,
            gateways: &gateways,
            bandwidth: request.bandwidth,
            has_host_ports: !request.host_ports.is_empty(),
        };
        host::connect(&mut self.links, &pair)
    }

    fn apply_rules(&mut self) -> Result<(), Error> {
        let attachments = self.state.attachments.values();
        let inside: Vec<IpNet> =
            self.config.cluster_cidrs.iter().chain(self.state.peers.keys()).copied().collect();
        let rules = rules::ruleset(&self.names.pods_table(), &self.config.pod_cidrs, &inside, attachments);
        Ok(self.table.apply(rules)?)
    }
}

/// Removes what the cluster's pod network made on this machine, whether or not a process still
/// runs it: every link with its addresses and routes, and the table; kernel settings are put back.
pub fn teardown(cluster: &str, state_file: &Path) -> Result<(), Error> {
    let names = Names::of(cluster);
    Programmed::open(names.pods_table())?.remove()?;
    let mut links = Links::new(netlink::Socket::open(netlink::Family::Route)?);
    for name in host::veths(&mut links, &names)? {
        links.delete(&name)?;
    }
    links.delete(&names.host_link())?;
    links.delete(&names.tunnel())?;
    let state = State::load(state_file)?;
    for destination in state.peers.keys() {
        links.delete_route(*destination)?;
    }
    // Another cluster on this machine still needs what both of us set.
    if !links.list()?.iter().any(|link| Names::is_host_link(&link.name)) {
        sysctl::restore(&state.sysctls)?;
    }
    Ok(State::remove(state_file)?)
}
