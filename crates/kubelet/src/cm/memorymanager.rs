//! Memory of NUMA nodes for the containers of guaranteed pods (follows `memorymanager`'s static policy). Which nodes a
//! container gets is kept to by its cpuset; how much is only counted. Pure, but for the checkpoint.

mod machine;
mod reserved;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::validation::is_huge_page_resource;
use api::view::core::{Container, Pod};
use serde::{Deserialize, Serialize};

pub use self::machine::Block;
use self::machine::{Amounts, MachineState};
pub use self::reserved::Options;
use super::checkpoint;
use super::pod_scope::needed_at_once;
use super::topology::NodeMemory;
use super::topologymanager::{Hint, NumaNodes, Offer};
use crate::pod::is_sidecar;
use crate::resources::whole;

const FILE: &str = "memory_manager_state";
const POLICY: &str = "Static";
const MEMORY: &str = "memory";

/// What went wrong; the texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Reserved(#[from] reserved::Error),
    #[error(
        "could not restore state from checkpoint: {why}, please drain this node and delete the memory manager checkpoint file {path:?} before restarting Kubelet"
    )]
    State { path: PathBuf, why: String },
    #[error(
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
    )]
    TooLittle,
    #[error("[memorymanager] failed to find the {0} preferred hint")]
    NotPreferred(&'static str),
    #[error("[memorymanager] failed to find NUMA nodes to extend the current topology hint")]
    NotExtended,
    #[error("[memorymanager] preferred hint violates NUMA node allocation")]
    Violation,
    #[error("write {0}: {1}")]
    Write(PathBuf, std::io::Error),
}

/// What containers have, by pod uid and name.
type Assignments = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

#[derive(Debug)]
pub struct MemoryManager {
    path: PathBuf,
    machine: MachineState,
    own: Assignments,
}

/// The checkpoint, with upstream's names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    policy_name: String,
    machine_state: MachineState,
    #[serde(default)]
    entries: Assignments,
}

impl MemoryManager {
    /// Goes on from the checkpoint, if there is one.
    pub fn open(nodes: &[NodeMemory], options: &Options, root_dir: &Path) -> Result<Self, Error> {
        let machine = MachineState::new(nodes, &reserved::by_node(nodes, options)?);
        let mut manager = MemoryManager { path: root_dir.join(FILE), machine, own: Assignments::new() };
        let stored = checkpoint::read::<Stored>(&manager.path).map_err(|why| manager.bad_state(why))?;
        if let Some(stored) = stored {
            manager.restore(stored).map_err(|why| manager.bad_state(why))?;
        }
        manager.save()?;
        Ok(manager)
    }

    fn bad_state(&self, why: String) -> Error {
        Error::State { path: self.path.clone(), why }
    }

    /// What is free follows from who has what; the machine itself must be as it was.
    fn restore(&mut self, stored: Stored) -> Result<(), String> {
        if stored.policy_name != POLICY {
            return Err(format!(
                "configured policy {POLICY:?} differs from state checkpoint policy {:?}",
                stored.policy_name
            ));
        }
        if !self.machine.has_capacity_of(&stored.machine_state) {
            return Err(
                "[memorymanager] the expected machine state is different from the real one".to_owned()
            );
        }
        for (uid, containers) in &stored.entries {
            for (name, blocks) in containers {
                let known = blocks.iter().all(|block| self.machine.knows(block));
                if !known {
                    return Err(format!(
                        "[memorymanager] (pod: {uid}, container: {name}) the memory assignment uses the NUMA that does not exist"
                    ));
                }
                blocks.iter().for_each(|block| self.machine.take(block, block.size));
            }
        }
        self.own = stored.entries;
        Ok(())
    }

    fn save(&self) -> Result<(), Error> {
        let stored = Stored {
            policy_name: POLICY.to_owned(),
            machine_state: self.machine.clone(),
            entries: self.own.clone(),
        };
        checkpoint::write(&self.path, &stored).map_err(|error| Error::Write(self.path.clone(), error))
    }

    /// What containers may have of each node.
    pub fn allocatable(&self) -> Vec<Block> {
        self.machine.allocatable()
    }

    /// What a container has.
    pub fn blocks(&self, uid: &str, container: &str) -> &[Block] {
        self.own.get(uid).and_then(|containers| containers.get(container)).map_or(&[], Vec::as_slice)
    }

    /// The nodes that a container's memory is on; none when it does not matter.
    pub fn nodes_of(&self, uid: &str, container: &str) -> Option<NumaNodes> {
        let blocks = self.blocks(uid, container);
        (!blocks.is_empty()).then(|| blocks.iter().flat_map(|block| &block.numa_affinity).copied().collect())
    }

    /// Where the container's memory could be, for each kind of memory.
    pub fn offers(&self, pod: &Pod, container: &Container) -> Vec<Offer> {
        let requested = requested(pod, container);
        let given = self.blocks(&pod.metadata.uid, &container.name);
        if given.is_empty() { self.new_offers(pod, &requested) } else { given_offers(given, &requested) }
    }

    /// Where the memory of all the pod's containers could be.
    pub fn pod_offers(&self, pod: &Pod) -> Vec<Offer> {
        let requested = requested_at_once(pod);
        let given = self.own.get(&pod.metadata.uid);
        let mut containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let given = containers.find_map(|spec| given?.get(&spec.name));
        match given {
            Some(given) => given_offers(given, &requested),
            None => self.new_offers(pod, &requested),
        }
    }

    /// Where nothing is to be had nothing is said: it shows when memory is to be given.
    fn new_offers(&self, pod: &Pod, requested: &Amounts) -> Vec<Offer> {
        let hints = self.hints(pod, requested);
        if hints.is_empty() { Vec::new() } else { vec![Some(hints); requested.len()] }
    }

    fn hints(&self, pod: &Pod, requested: &Amounts) -> Vec<Hint> {
        self.machine.hints(requested, |nodes, resource| self.reusable(pod, nodes, resource))
    }

    /// What init containers that have ended leave on `nodes` to those that follow.
    fn reusable(&self, pod: &Pod, nodes: NumaNodes, resource: &str) -> u64 {
        let plain = pod.spec.init_containers.iter().filter(|spec| !is_sidecar(spec));
        let blocks = plain.flat_map(|spec| self.blocks(&pod.metadata.uid, &spec.name));
        blocks.filter(|block| block.is(nodes, resource)).map(|block| block.size).sum()
    }

    /// Gives a container its memory, on the nodes that the topology manager agreed on if it did.
    pub fn allocate(&mut self, pod: &Pod, container: &Container, agreed: Hint) -> Result<(), Error> {
        let (uid, requested) = (&pod.metadata.uid, requested(pod, container));
        if requested.is_empty() || !self.blocks(uid, &container.name).is_empty() {
            return Ok(());
        }
        let nodes = self.choose(pod, &requested, agreed)?;
        let block = |(resource, size): (&String, &u64)| Block::new(nodes, resource, *size);
        let blocks: Vec<Block> = requested.iter().map(block).collect();
        for block in &blocks {
            let reused = self.reusable(pod, nodes, &block.resource).min(block.size);
            self.machine.take(block, block.size - reused);
            self.draw_from_init_containers(pod, block, reused);
        }
        self.own.entry(uid.clone()).or_default().insert(container.name.clone(), blocks);
        self.save()
    }

    /// What is used again counts for who uses it now, so that all blocks together are what is taken.
    fn draw_from_init_containers(&mut self, pod: &Pod, like: &Block, mut reused: u64) {
        let Some(given) = self.own.get_mut(&pod.metadata.uid) else { return };
        for spec in pod.spec.init_containers.iter().filter(|spec| !is_sidecar(spec)) {
            for block in given.get_mut(&spec.name).into_iter().flatten().filter(|block| block.is_like(like)) {
                let drawn = block.size.min(reused);
                block.size -= drawn;
                reused -= drawn;
            }
        }
    }

    fn choose(&self, pod: &Pod, requested: &Amounts, agreed: Hint) -> Result<NumaNodes, Error> {
        let mut preferred = agreed.preferred;
        let mut nodes = match agreed.nodes {
            Some(nodes) => nodes,
            None => {
                let (nodes, default) = best(&self.hints(pod, requested), None).ok_or(Error::TooLittle)?;
                if preferred && !default {
                    return Err(Error::NotPreferred("default"));
                }
                preferred = default;
                nodes
            }
        };
        if !self.machine.has_free(nodes, requested) {
            let hints = self.hints(pod, requested);
            let (extended, is_preferred) = best(&hints, Some(nodes)).ok_or(Error::NotExtended)?;
            if preferred && !is_preferred {
                return Err(Error::NotPreferred("extended"));
            }
            nodes = extended;
        }
        if nodes.count() > 1 && !self.machine.can_group(nodes) {
            return Err(Error::Violation);
        }
        Ok(nodes)
    }

    /// Takes back what a pod had; whether it had anything.
    pub fn release(&mut self, uid: &str) -> Result<bool, Error> {
        let Some(given) = self.own.remove(uid) else { return Ok(false) };
        given.values().flatten().for_each(|block| self.machine.give_back(block));
        self.save().map(|()| true)
    }

    /// Pods that have memory, by uid.
    pub fn pods(&self) -> Vec<String> {
        self.own.keys().cloned().collect()
    }
}

/// The best of the hints, among those that include the nodes `around`.
fn best(hints: &[Hint], around: Option<NumaNodes>) -> Option<(NumaNodes, bool)> {
    let sets = hints.iter().filter_map(|hint| Some((hint.nodes?, hint.preferred)));
    let sets = sets.filter(|(nodes, _)| around.is_none_or(|around| nodes.and(around) == around));
    sets.reduce(|best, other| {
        let better = match (other.1, best.1) {
            (true, false) => true,
            (false, true) => false,
            _ => other.0.is_narrower_than(best.0),
        };
        if better { other } else { best }
    })
}

/// As given, unless it is not what is asked for.
fn given_offers(given: &[Block], requested: &Amounts) -> Vec<Offer> {
    let same = given.len() == requested.len()
        && given.iter().all(|block| requested.get(&block.resource) == Some(&block.size));
    let hint = |block: &Block| Hint { nodes: Some(block.nodes()), preferred: true };
    if same { given.iter().map(|block| Some(vec![hint(block)])).collect() } else { Vec::new() }
}

/// Only guaranteed pods whose containers say what they need have memory that is accounted by node.
fn is_managed(pod: &Pod) -> bool {
    pod.status.qos_class == "Guaranteed" && pod.spec.resources.is_none()
}

/// How many bytes of which memory a container is to have.
pub fn requested(pod: &Pod, container: &Container) -> Amounts {
    if !is_managed(pod) {
        return Amounts::new();
    }
    let requests = &container.resources.requests;
    let memory = requests.keys().filter(|name| *name == MEMORY || is_huge_page_resource(name));
    memory.map(|name| (name.clone(), u64::try_from(whole(requests, name)).unwrap_or(0))).collect()
}

/// What all the pod's containers have at one time.
fn requested_at_once(pod: &Pod) -> Amounts {
    let kinds = pod.spec.containers.iter().flat_map(|container| requested(pod, container).into_keys());
    let needed = |name: &String| {
        needed_at_once(pod, |container| requested(pod, container).get(name).copied().unwrap_or(0))
    };
    kinds.map(|name| (name.clone(), needed(&name))).collect()
}
