//! CPUs of their own for containers of guaranteed pods that ask for whole ones (follows `cpumanager`'s static policy).
//! What nobody has of his own all others share. Pure, but for the checkpoint.

mod assignment;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::view::core::{Container, Pod};
use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::cpuset::CpuSet;
use super::pod_scope::needed_at_once;
use super::topology::Topology;
use super::topologymanager::{Hint, NumaNodes, Offer};
use crate::pod::is_sidecar;
use crate::resources::milli;

const FILE: &str = "cpu_manager_state";
const POLICY: &str = "static";
const MILLI_PER_CPU: i64 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")]
    NothingReserved,
    #[error("reserved CPUs {0} are not CPUs of this machine")]
    NoSuchCpus(CpuSet),
    #[error(
        "could not restore state from checkpoint: {why}, please drain this node and delete the CPU manager checkpoint file {path:?} before restarting Kubelet"
    )]
    State { path: PathBuf, why: String },
    #[error("not enough cpus available to satisfy request: requested={requested}, available={available}")]
    TooFew { requested: usize, available: usize },
    #[error("SMT Alignment Error: requested {requested} cpus not multiple cpus per core = {per_core}")]
    NotWholeCores { requested: usize, per_core: usize },
    #[error("write {0}: {1}")]
    Write(PathBuf, std::io::Error),
}

/// What an operator may say of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whole cores only (`full-pcpus-only`).
    pub full_pcpus_only: bool,
    /// Reserved CPUs are not shared either (`strict-cpu-reservation`).
    pub strict_reservation: bool,
    /// These CPUs are reserved; where none are named, `reserved_milli_cpu` says how many.
    pub reserved: CpuSet,
    pub reserved_milli_cpu: i64,
}

/// CPUs by container, by pod uid.
type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

#[derive(Debug)]
pub struct CpuManager {
    topology: Topology,
    reserved: CpuSet,
    options: Options,
    path: PathBuf,
    shared: CpuSet,
    own: Assignments,
}

/// The checkpoint, with upstream's names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default)]
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl CpuManager {
    /// Goes on from the checkpoint, if there is one.
    pub fn open(topology: Topology, options: Options, root_dir: &Path) -> Result<Self, Error> {
        let reserved = reserved(&topology, &options)?;
        let path = root_dir.join(FILE);
        let shared =
            if options.strict_reservation { topology.all().without(&reserved) } else { topology.all() };
        let mut manager = CpuManager { topology, reserved, options, path, shared, own: Assignments::new() };
        let stored = checkpoint::read::<Stored>(&manager.path).map_err(|why| manager.bad_state(why))?;
        if let Some(stored) = stored {
            manager.restore(&stored).map_err(|why| manager.bad_state(why))?;
        }
        manager.save()?;
        Ok(manager)
    }

    fn bad_state(&self, why: String) -> Error {
        Error::State { path: self.path.clone(), why }
    }

    fn restore(&mut self, stored: &Stored) -> Result<(), String> {
        if stored.policy_name != POLICY {
            return Err(format!(
                "configured policy {POLICY:?} differs from state checkpoint policy {:?}",
                stored.policy_name
            ));
        }
        let parse = |text: &String| text.parse::<CpuSet>().map_err(|error| error.to_string());
        let shared = parse(&stored.default_cpu_set)?;
        let own: Assignments = stored
            .entries
            .iter()
            .map(|(uid, containers)| {
                let sets = containers.iter().map(|(name, cpus)| Ok((name.clone(), parse(cpus)?)));
                Ok((uid.clone(), sets.collect::<Result<_, String>>()?))
            })
            .collect::<Result<_, String>>()?;
        if !self.options.strict_reservation && shared.intersection(&self.reserved) != self.reserved {
            let reserved = &self.reserved;
            return Err(format!(
                "not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\""
            ));
        }
        let mut known = shared.clone();
        for cpus in own.values().flat_map(BTreeMap::values) {
            if !shared.intersection(cpus).is_empty() {
                return Err(format!("cpuset \"{cpus}\" overlaps with default cpuset \"{shared}\""));
            }
            known.extend(cpus);
        }
        let expected = if self.options.strict_reservation {
            self.topology.all().without(&self.reserved)
        } else {
            self.topology.all()
        };
        if known != expected {
            return Err(format!(
                "current set of available CPUs \"{expected}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        (self.shared, self.own) = (shared, own);
        Ok(())
    }

    fn save(&self) -> Result<(), Error> {
        let texts = |containers: &BTreeMap<String, CpuSet>| {
            containers.iter().map(|(name, cpus)| (name.clone(), cpus.to_string())).collect()
        };
        let stored = Stored {
            policy_name: POLICY.to_owned(),
            default_cpu_set: self.shared.to_string(),
            entries: self.own.iter().map(|(uid, containers)| (uid.clone(), texts(containers))).collect(),
        };
        checkpoint::write(&self.path, &stored).map_err(|error| Error::Write(self.path.clone(), error))
    }

    /// CPUs that containers may have of their own.
    pub fn allocatable(&self) -> CpuSet {
        self.topology.all().without(&self.reserved)
    }

    /// What a container runs on.
    pub fn cpus_of(&self, uid: &str, container: &str) -> &CpuSet {
        self.own_cpus(uid, container).unwrap_or(&self.shared)
    }

    pub fn own_cpus(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.own.get(uid)?.get(container)
    }

    /// What containers may still have of their own.
    pub fn free(&self) -> CpuSet {
        self.shared.without(&self.reserved)
    }

    /// What they have.
    pub fn given(&self) -> CpuSet {
        self.own.values().flat_map(BTreeMap::values).flat_map(CpuSet::iter).collect()
    }

    /// What init containers that have ended leave to those that follow: nobody else in the pod has these.
    fn reusable(&self, pod: &Pod) -> CpuSet {
        let Some(given) = self.own.get(&pod.metadata.uid) else { return CpuSet::default() };
        let plain = |name: &str| pod.spec.init_containers.iter().any(|c| c.name == name && !is_sidecar(c));
        let (init, kept): (Vec<_>, Vec<_>) = given.iter().partition(|(name, _)| plain(name));
        let all = |sets: Vec<(&String, &CpuSet)>| {
            sets.into_iter().fold(CpuSet::default(), |all, (_, cpus)| all.union(cpus))
        };
        all(init).without(&all(kept))
    }

    /// Where the container's CPUs could be.
    pub fn offer(&self, pod: &Pod, container: &Container) -> Offer {
        let wanted = wanted(pod, container);
        if wanted == 0 {
            return None;
        }
        if let Some(given) = self.own_cpus(&pod.metadata.uid, &container.name) {
            return Some(self.hints(&CpuSet::default(), given, wanted));
        }
        Some(self.hints(&self.free(), &self.reusable(pod), wanted))
    }

    /// Where the CPUs could be that all the pod's containers have at one time.
    pub fn pod_offer(&self, pod: &Pod) -> Offer {
        let needed = needed_at_once(pod, |container| u64::try_from(wanted(pod, container)).unwrap_or(0));
        let needed = usize::try_from(needed).unwrap_or(usize::MAX);
        if needed == 0 {
            return None;
        }
        let given = self.own.get(&pod.metadata.uid).filter(|given| !given.is_empty());
        let Some(given) = given else { return Some(self.hints(&self.free(), &CpuSet::default(), needed)) };
        let all = given.values().fold(CpuSet::default(), |all, cpus| all.union(cpus));
        Some(self.hints(&CpuSet::default(), &all, needed))
    }

    fn hints(&self, free: &CpuSet, reusable: &CpuSet, wanted: usize) -> Vec<Hint> {
        let subsets = self.topology.numa_nodes().subsets();
        let within = |nodes: NumaNodes, cpus: &CpuSet| self.topology.within(nodes, cpus).len();
        let large_enough = |nodes: &&NumaNodes| within(**nodes, &self.topology.all()) >= wanted;
        let fewest = subsets.iter().find(large_enough).map_or(u32::MAX, |nodes| nodes.count());
        let fits = |nodes: &NumaNodes| {
            let reused = within(*nodes, reusable);
            reused == reusable.len() && reused + within(*nodes, &free.without(reusable)) >= wanted
        };
        subsets
            .iter()
            .copied()
            .filter(fits)
            .map(|nodes| Hint { nodes: Some(nodes), preferred: nodes.count() == fewest })
            .collect()
    }

    /// Gives a container its CPUs, if it is to have any of its own; those on `nodes` first.
    pub fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        nodes: Option<NumaNodes>,
    ) -> Result<(), Error> {
        let (uid, requested) = (&pod.metadata.uid, wanted(pod, container));
        if requested == 0 || self.own_cpus(uid, &container.name).is_some() {
            return Ok(());
        }
        let per_core = self.topology.threads_per_core();
        if self.options.full_pcpus_only && !requested.is_multiple_of(per_core) {
            return Err(Error::NotWholeCores { requested, per_core });
        }
        let free = self.free().union(&self.reusable(pod));
        let too_few = Error::TooFew { requested, available: free.len() };
        let near = nodes.map_or_else(CpuSet::default, |nodes| self.topology.within(nodes, &free));
        let take = |from: &CpuSet, count| assignment::take(&self.topology, from, count);
        let aligned = take(&near, requested.min(near.len()));
        let rest = aligned.as_ref().and_then(|cpus| take(&free.without(cpus), requested - cpus.len()));
        let (Some(mut cpus), Some(rest)) = (aligned, rest) else { return Err(too_few) };
        cpus.extend(&rest);
        self.shared = self.shared.without(&cpus);
        self.own.entry(uid.clone()).or_default().insert(container.name.clone(), cpus);
        self.save()
    }

    /// Takes back what a pod had; whether it had anything.
    pub fn release(&mut self, uid: &str) -> Result<bool, Error> {
        let Some(given) = self.own.remove(uid) else { return Ok(false) };
        given.values().for_each(|cpus| self.shared.extend(cpus));
        self.save().map(|()| true)
    }

    /// Pods that have CPUs of their own, by uid.
    pub fn pods(&self) -> Vec<String> {
        self.own.keys().cloned().collect()
    }
}

fn reserved(topology: &Topology, options: &Options) -> Result<CpuSet, Error> {
    if !options.reserved.is_empty() {
        let known = options.reserved.intersection(&topology.all()) == options.reserved;
        return if known {
            Ok(options.reserved.clone())
        } else {
            Err(Error::NoSuchCpus(options.reserved.clone()))
        };
    }
    let count =
        usize::try_from((options.reserved_milli_cpu + MILLI_PER_CPU - 1) / MILLI_PER_CPU).unwrap_or(0);
    if count == 0 {
        return Err(Error::NothingReserved);
    }
    let all = topology.all();
    assignment::take(topology, &all, count).ok_or(Error::TooFew { requested: count, available: all.len() })
}

/// How many CPUs a container is to have of its own (upstream: `guaranteedCPUs`).
pub fn wanted(pod: &Pod, container: &Container) -> usize {
    let cpu = milli(&container.resources.requests, "cpu");
    let whole =
        pod.status.qos_class == "Guaranteed" && pod.spec.resources.is_none() && cpu % MILLI_PER_CPU == 0;
    if whole { usize::try_from(cpu / MILLI_PER_CPU).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests;
