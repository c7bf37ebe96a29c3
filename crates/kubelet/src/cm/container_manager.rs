//! Gives each container of a pod that is let in its devices and its CPUs, near each other if the policy says so
//! (follows `GetAllocateResourcesPodAdmitHandler` and the scopes of `topologymanager`).

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use api::view::core::{Container, Pod};
use tokio::sync::watch;

use super::Settings;
use super::cpumanager::{self, CpuManager};
use super::cpuset::CpuSet;
use super::devicemanager::DeviceManager;
use super::topology::Topology;
use super::topologymanager::{self, NUMA_NODES_MAX, NumaNodes, Offer, Policy, Scope};
use crate::admission::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("CPU manager: {0}")]
    Cpus(#[from] cpumanager::Error),
    #[error("unsupported on machines with more than {NUMA_NODES_MAX} NUMA Nodes")]
    NumaNodes,
}

pub struct ContainerManager {
    pub devices: Arc<DeviceManager>,
    policy: Policy,
    scope: Scope,
    numa_nodes: NumaNodes,
    /// None: all containers share all CPUs.
    cpus: Option<Mutex<CpuManager>>,
    /// Counts up when CPUs have changed hands.
    moved: watch::Sender<u64>,
}

/// The CPUs that a container runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// As Linux writes a list of CPUs.
    pub cpus: String,
    /// Nobody else runs there, so that no quota is needed.
    pub own: bool,
}

impl ContainerManager {
    pub fn open(settings: &Settings, root_dir: &Path) -> Result<Self, Error> {
        let topology = Topology::read();
        let numa_nodes = topology.numa_nodes();
        if settings.topology_policy != Policy::None && numa_nodes.count() > NUMA_NODES_MAX {
            return Err(Error::NumaNodes);
        }
        let cpus = settings.static_cpus.clone();
        let cpus = cpus.map(|options| CpuManager::open(topology, options, root_dir)).transpose()?;
        Ok(ContainerManager {
            devices: DeviceManager::open(root_dir),
            policy: settings.topology_policy,
            scope: settings.topology_scope,
            numa_nodes,
            cpus: cpus.map(Mutex::new),
            moved: watch::Sender::default(),
        })
    }

    /// Hears when containers are to run on other CPUs than before.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Gives the pod's containers what they ask for, all or nothing.
    pub async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let given = self.give(pod).await;
        if given.is_err() {
            self.release(&pod.metadata.uid);
        }
        given
    }

    async fn give(&self, pod: &Pod) -> Result<(), Refusal> {
        let containers = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let whole = match self.scope {
            Scope::Pod if self.policy != Policy::None => {
                let offers: Vec<Offer> =
                    containers().flat_map(|container| self.offers(pod, container)).collect();
                Some(self.agree(&offers)?)
            }
            _ => None,
        };
        for container in containers() {
            let nodes = match whole {
                Some(nodes) => nodes,
                None => self.agree(&self.offers(pod, container))?,
            };
            self.give_cpus(pod, container, nodes)?;
            self.devices.allocate(pod, container, nodes).await.map_err(unexpected)?;
        }
        Ok(())
    }

    fn offers(&self, pod: &Pod, container: &Container) -> Vec<Offer> {
        if self.policy == Policy::None {
            return Vec::new();
        }
        let mut offers = self.devices.offers(pod, container, self.numa_nodes);
        offers.extend(self.cpus().map(|cpus| cpus.offer(pod, container)));
        offers
    }

    fn agree(&self, offers: &[Offer]) -> Result<Option<NumaNodes>, Refusal> {
        match topologymanager::merge(self.policy, self.numa_nodes, offers) {
            (hint, true) => Ok(hint.nodes),
            (_, false) => Err(Refusal {
                reason: "TopologyAffinityError".to_owned(),
                message: "Resources cannot be allocated with Topology locality".to_owned(),
            }),
        }
    }

    fn give_cpus(&self, pod: &Pod, container: &Container, nodes: Option<NumaNodes>) -> Result<(), Refusal> {
        let Some(mut cpus) = self.cpus() else { return Ok(()) };
        if cpumanager::wanted(pod, container) == 0 {
            return Ok(());
        }
        match cpus.allocate(pod, container, nodes) {
            Ok(()) => self.tell_moved(),
            Err(error @ cpumanager::Error::NotWholeCores { .. }) => {
                return Err(Refusal { reason: "SMTAlignmentError".to_owned(), message: error.to_string() });
            }
            Err(error) => return Err(unexpected(error.to_string())),
        }
        Ok(())
    }

    /// Takes back what a pod had of which nothing runs any more.
    pub fn release(&self, uid: &str) {
        self.devices.release(uid);
        let released = self.cpus().map(|mut cpus| cpus.release(uid));
        match released {
            Some(Ok(true)) => self.tell_moved(),
            Some(Err(error)) => {
                tracing::warn!(pod = uid, %error, "CPUs that are free again stay written down")
            }
            _ => {}
        }
    }

    /// Takes back what pods had that are not on the node any more.
    pub fn release_all_but(&self, is_here: impl Fn(&str) -> bool) {
        let with_cpus = self.cpus().map(|cpus| cpus.pods()).unwrap_or_default();
        let gone = self.devices.pods().into_iter().chain(with_cpus).filter(|uid| !is_here(uid));
        gone.collect::<Vec<_>>().iter().for_each(|uid| self.release(uid));
    }

    fn tell_moved(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Where a container is to run; `None` when it does not matter.
    pub fn pinned(&self, uid: &str, container: &str) -> Option<Pinned> {
        let cpus = self.cpus()?;
        let own = cpus.own_cpus(uid, container).is_some();
        Some(Pinned { cpus: cpus.cpus_of(uid, container).to_string(), own })
    }

    /// Whether a container of the pod has CPUs of its own.
    pub fn has_own_cpus(&self, pod: &Pod) -> bool {
        let uid = &pod.metadata.uid;
        self.cpus()
            .is_some_and(|cpus| pod.spec.containers.iter().any(|c| cpus.own_cpus(uid, &c.name).is_some()))
    }

    /// The CPUs that a container has of its own.
    pub fn own_cpus(&self, uid: &str, container: &str) -> CpuSet {
        self.cpus().and_then(|cpus| cpus.own_cpus(uid, container).cloned()).unwrap_or_default()
    }

    /// The CPUs that containers may have of their own.
    pub fn allocatable_cpus(&self) -> CpuSet {
        self.cpus().map(|cpus| cpus.allocatable()).unwrap_or_default()
    }

    /// Whether containers may have CPUs of their own.
    pub fn is_static(&self) -> bool {
        self.cpus.is_some()
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn cpus(&self) -> Option<MutexGuard<'_, CpuManager>> {
        self.cpus.as_ref().map(|cpus| cpus.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

fn unexpected(why: String) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {why}, which is unexpected"),
    }
}
