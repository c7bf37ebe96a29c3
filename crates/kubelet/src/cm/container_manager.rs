//! Gives each container of a pod that is let in its devices, CPUs and memory, near each other if the policy says so
//! (follows `GetAllocateResourcesPodAdmitHandler` and the scopes of `topologymanager`).

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use api::view::core::{Container, Pod};
use client::metrics::{head, sample};
use tokio::sync::watch;

use super::Settings;
use super::cpumanager::{self, CpuManager};
use super::cpuset::CpuSet;
use super::devicemanager::DeviceManager;
use super::memorymanager::{self, Block, MemoryManager};
use super::metrics::AdmissionMetrics;
use super::topology::{NodeMemory, Topology};
use super::topologymanager::{self, Hint, NUMA_NODES_MAX, NumaNodes, Offer, Policy, Scope};
use crate::admission::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("CPU manager: {0}")]
    Cpus(#[from] cpumanager::Error),
    #[error("memory manager: {0}")]
    Memory(#[from] memorymanager::Error),
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
    /// None: containers have memory of any node.
    memory: Option<Mutex<MemoryManager>>,
    /// Counts up when CPUs have changed hands.
    moved: watch::Sender<u64>,
    metrics: AdmissionMetrics,
}

/// The CPUs that a container runs on, and the NUMA nodes that its memory is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// As Linux writes a list of CPUs; empty where all are shared.
    pub cpus: String,
    /// As Linux writes such a list too; empty where it does not matter.
    pub memory_nodes: String,
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
        let memory = settings.static_memory.as_ref();
        let memory =
            memory.map(|options| MemoryManager::open(&NodeMemory::read(), options, root_dir)).transpose()?;
        Ok(ContainerManager {
            devices: DeviceManager::open(root_dir),
            policy: settings.topology_policy,
            scope: settings.topology_scope,
            numa_nodes,
            cpus: cpus.map(Mutex::new),
            memory: memory.map(Mutex::new),
            moved: watch::Sender::default(),
            metrics: AdmissionMetrics::default(),
        })
    }

    /// What there is to tell of how resources are given.
    pub fn write_metrics(&self, text: &mut String) {
        self.metrics.write(text);
        self.devices.metrics.write(text);
        let Some(cpus) = self.cpus() else { return };
        for (name, help, value) in [
            (
                "kubelet_cpu_manager_shared_pool_size_millicores",
                "What all containers share that have no CPUs of their own.",
                cpus.free().len() * 1000,
            ),
            (
                "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                "CPUs that containers have of their own.",
                cpus.given().len(),
            ),
        ] {
            head(text, name, help, "gauge");
            sample(text, name, "", "", "", value as f64);
        }
    }

    /// Hears when containers are to run on other CPUs than before.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Gives the pod's containers what they ask for, all or nothing.
    pub async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let began = Instant::now();
        let given = self.give(pod).await;
        self.metrics.admitted(&given, began.elapsed());
        if given.is_err() {
            self.release(&pod.metadata.uid);
        }
        given
    }

    async fn give(&self, pod: &Pod) -> Result<(), Refusal> {
        let containers = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let whole = match self.scope {
            Scope::Pod if self.policy != Policy::None => Some(self.agree(&self.pod_offers(pod))?),
            _ => None,
        };
        for container in containers() {
            let agreed = match whole {
                Some(agreed) => agreed,
                None => self.agree(&self.offers(pod, container))?,
            };
            self.give_cpus(pod, container, agreed.nodes)?;
            self.give_memory(pod, container, agreed)?;
            self.devices.allocate(pod, container, agreed.nodes).await.map_err(unexpected)?;
        }
        Ok(())
    }

    fn offers(&self, pod: &Pod, container: &Container) -> Vec<Offer> {
        if self.policy == Policy::None {
            return Vec::new();
        }
        let mut offers = self.devices.offers(pod, container, self.numa_nodes);
        offers.extend(self.cpus().map(|cpus| cpus.offer(pod, container)));
        offers.extend(self.memory().map(|memory| memory.offers(pod, container)).unwrap_or_default());
        offers
    }

    /// Where all that the pod's containers have at one time could be.
    fn pod_offers(&self, pod: &Pod) -> Vec<Offer> {
        let mut offers = self.devices.pod_offers(pod, self.numa_nodes);
        offers.extend(self.cpus().map(|cpus| cpus.pod_offer(pod)));
        offers.extend(self.memory().map(|memory| memory.pod_offers(pod)).unwrap_or_default());
        offers
    }

    fn agree(&self, offers: &[Offer]) -> Result<Hint, Refusal> {
        match topologymanager::merge(self.policy, self.numa_nodes, offers) {
            (hint, true) => Ok(hint),
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
        let given = cpus.allocate(pod, container, nodes);
        self.metrics.cpus.made(&given);
        match given {
            Ok(()) => self.tell_moved(),
            Err(error @ cpumanager::Error::NotWholeCores { .. }) => {
                return Err(Refusal { reason: "SMTAlignmentError".to_owned(), message: error.to_string() });
            }
            Err(error) => return Err(unexpected(error.to_string())),
        }
        Ok(())
    }

    fn give_memory(&self, pod: &Pod, container: &Container, agreed: Hint) -> Result<(), Refusal> {
        let Some(mut memory) = self.memory() else { return Ok(()) };
        if memorymanager::requested(pod, container).is_empty() {
            return Ok(());
        }
        let given = memory.allocate(pod, container, agreed);
        self.metrics.memory.made(&given);
        given.map_err(|error| unexpected(error.to_string()))
    }

    /// Takes back what a pod had of which nothing runs any more.
    pub fn release(&self, uid: &str) {
        self.devices.release(uid);
        if let Some(Err(error)) = self.memory().map(|mut memory| memory.release(uid)) {
            tracing::warn!(pod = uid, %error, "memory that is free again stays written down");
        }
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
        let with_memory = self.memory().map(|memory| memory.pods()).unwrap_or_default();
        let known = self.devices.pods().into_iter().chain(with_cpus).chain(with_memory);
        let gone = known.filter(|uid| !is_here(uid));
        gone.collect::<Vec<_>>().iter().for_each(|uid| self.release(uid));
    }

    fn tell_moved(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Where a container is to run; `None` when it does not matter.
    pub fn pinned(&self, uid: &str, container: &str) -> Option<Pinned> {
        let memory_nodes = self.memory().and_then(|memory| memory.nodes_of(uid, container));
        let memory_nodes = memory_nodes.map(|nodes| nodes.iter().collect::<CpuSet>().to_string());
        let cpus = self
            .cpus()
            .map(|cpus| (cpus.cpus_of(uid, container).to_string(), cpus.own_cpus(uid, container).is_some()));
        if cpus.is_none() && memory_nodes.is_none() {
            return None;
        }
        let (cpus, own) = cpus.unwrap_or_default();
        Some(Pinned { cpus, memory_nodes: memory_nodes.unwrap_or_default(), own })
    }

    /// The memory of NUMA nodes that a container has.
    pub fn memory_of(&self, uid: &str, container: &str) -> Vec<Block> {
        self.memory().map(|memory| memory.blocks(uid, container).to_vec()).unwrap_or_default()
    }

    /// The memory that containers may have of each NUMA node.
    pub fn allocatable_memory(&self) -> Vec<Block> {
        self.memory().map(|memory| memory.allocatable()).unwrap_or_default()
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

    /// As of the CPUs.
    fn memory(&self) -> Option<MutexGuard<'_, MemoryManager>> {
        self.memory.as_ref().map(|memory| memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
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
