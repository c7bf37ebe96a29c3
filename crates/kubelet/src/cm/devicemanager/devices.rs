//! Which devices there are, how they are, and which containers have them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::proto::{ContainerAllocateResponse, Device};
use crate::cm::resourcestatus::{Health, ResourceHealth, ResourceStatus};
use crate::cm::topologymanager::{Hint, NumaNodes, Offer};

/// What plugins call a device that can be used.
const HEALTHY: &str = "Healthy";

/// How many devices of each resource there are, and how many of them can be used.
pub type Counts = BTreeMap<String, Count>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub capacity: usize,
    pub allocatable: usize,
}

/// A pod's uid and a container's name.
pub type At<'a> = (&'a str, &'a str);

#[derive(Debug, Default)]
pub struct Devices {
    /// By resource.
    resources: BTreeMap<String, BTreeMap<String, Known>>,
    /// By pod uid, container and resource.
    given: BTreeMap<String, BTreeMap<String, BTreeMap<String, Given>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    healthy: bool,
    /// Empty when it does not matter where it is.
    nodes: BTreeSet<u32>,
}

/// What a container has of one resource, and what its plugin wants done for that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    pub devices: BTreeSet<String>,
    pub response: ContainerAllocateResponse,
}

/// What can be given to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub count: usize,
    /// Left by init containers of the same pod.
    pub must: BTreeSet<String>,
    pub free: BTreeSet<String>,
}

impl Devices {
    /// What was written down, before any plugin has told of its devices.
    pub fn restored(
        resources: impl Iterator<Item = String>,
        given: impl Iterator<Item = ((String, String, String), Given)>,
    ) -> Self {
        let mut devices = Devices {
            resources: resources.map(|name| (name, BTreeMap::new())).collect(),
            given: BTreeMap::new(),
        };
        for ((uid, container, resource), given) in given {
            let containers = devices.given.entry(uid).or_default();
            containers.entry(container).or_default().insert(resource, given);
        }
        devices
    }

    /// Everything that is given: pod uid, container, resource.
    pub fn all_given(&self) -> impl Iterator<Item = ((&str, &str, &str), &Given)> {
        self.given.iter().flat_map(|(uid, containers)| {
            containers.iter().flat_map(move |(container, resources)| {
                resources.iter().map(move |(resource, given)| {
                    ((uid.as_str(), container.as_str(), resource.as_str()), given)
                })
            })
        })
    }

    /// The devices of each resource that are well.
    pub fn healthy(&self) -> impl Iterator<Item = (&str, BTreeSet<String>)> {
        self.resources.iter().map(|(resource, known)| {
            let well = known.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone());
            (resource.as_str(), well.collect())
        })
    }

    /// Whether some plugin stands, or stood, behind the resource.
    pub fn knows(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
    }

    pub fn counts(&self) -> Counts {
        let count = |known: &BTreeMap<String, Known>| Count {
            capacity: known.len(),
            allocatable: known.values().filter(|device| device.healthy).count(),
        };
        self.resources.iter().map(|(resource, known)| (resource.clone(), count(known))).collect()
    }

    /// Takes over what a plugin says; the pods whose devices are not as they were.
    pub fn update(&mut self, resource: &str, found: Vec<Device>) -> BTreeSet<String> {
        let known = found.into_iter().map(|device| {
            let nodes = device.topology.into_iter().flat_map(|topology| topology.nodes);
            let nodes = nodes.filter_map(|node| u32::try_from(node.id).ok()).collect();
            (device.id, Known { healthy: device.health == HEALTHY, nodes })
        });
        self.replace(resource, known.collect())
    }

    /// None of the resource's devices is well any more.
    pub fn lose(&mut self, resource: &str) -> BTreeSet<String> {
        let mut known = self.resources.get(resource).cloned().unwrap_or_default();
        known.values_mut().for_each(|device| device.healthy = false);
        self.replace(resource, known)
    }

    /// Nothing is left of the resource; the node tells from now on that it has none.
    pub fn forget(&mut self, resource: &str) {
        self.resources.insert(resource.to_owned(), BTreeMap::new());
    }

    fn replace(&mut self, resource: &str, known: BTreeMap<String, Known>) -> BTreeSet<String> {
        let before = self.resources.insert(resource.to_owned(), known).unwrap_or_default();
        let now = &self.resources[resource];
        let well = |of: &BTreeMap<String, Known>, id: &String| of.get(id).map(|device| device.healthy);
        let changed = |given: &Given| given.devices.iter().any(|id| well(&before, id) != well(now, id));
        let given = self.all_given().filter(|((_, _, of), given)| *of == resource && changed(given));
        given.map(|((uid, ..), _)| uid.to_owned()).collect()
    }

    fn in_use(&self, resource: &str) -> BTreeSet<&String> {
        let given = self.all_given().filter(|((_, _, of), _)| *of == resource);
        given.flat_map(|(_, given)| &given.devices).collect()
    }

    /// What can be given to a container; `None` when it has what it needs.
    pub fn choose(
        &self,
        at: At<'_>,
        resource: &str,
        count: usize,
        reusable: &BTreeSet<String>,
    ) -> Result<Option<Choice>, String> {
        let known = self.resources.get(resource);
        let known = known.ok_or_else(|| format!("cannot allocate unregistered device {resource}"))?;
        let healthy: BTreeSet<&String> =
            known.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id).collect();
        let held = self.given(at.0, at.1, resource);
        if let Some(held) = held.filter(|held| held.devices.len() != count) {
            return Err(format!(
                "pod {:?} container {:?} changed request for resource {resource:?} from {} to {count}",
                at.0,
                at.1,
                held.devices.len()
            ));
        }
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        match held {
            Some(held) if held.devices.iter().all(|id| healthy.contains(id)) => return Ok(None),
            Some(_) => {
                return Err(format!(
                    "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                ));
            }
            None => {}
        }
        let must: BTreeSet<String> = reusable.iter().take(count).cloned().collect();
        let used = self.in_use(resource);
        let free: BTreeSet<String> = healthy.into_iter().filter(|id| !used.contains(id)).cloned().collect();
        if free.len() < count - must.len() {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {}, Available: {}",
                count - must.len(),
                free.len()
            ));
        }
        Ok(Some(Choice { count, must, free }))
    }

    /// Those of `free` that are on `nodes`; none when nothing has been agreed on.
    pub fn near(
        &self,
        resource: &str,
        free: &BTreeSet<String>,
        nodes: Option<NumaNodes>,
    ) -> BTreeSet<String> {
        let (Some(known), Some(nodes)) = (self.resources.get(resource), nodes) else {
            return BTreeSet::new();
        };
        let near =
            |id: &&String| known.get(*id).is_some_and(|d| d.nodes.iter().any(|node| nodes.contains(*node)));
        free.iter().filter(near).cloned().collect()
    }

    /// Where so many devices could be.
    pub fn offer(
        &self,
        at: At<'_>,
        resource: &str,
        count: usize,
        reusable: &BTreeSet<String>,
        all: NumaNodes,
    ) -> Offer {
        let known = self.resources.get(resource)?;
        if known.values().all(|device| device.nodes.is_empty()) {
            return None;
        }
        let held = self.given(at.0, at.1, resource).map(|held| &held.devices);
        let used = self.in_use(resource);
        let usable = |id: &String, device: &Known| match held {
            Some(held) => held.contains(id),
            None => device.healthy && (!used.contains(id) || reusable.contains(id)),
        };
        Some(hints(known, count, reusable, usable, all))
    }

    /// Where so many devices could be for the containers of a pod together.
    pub fn pod_offer(&self, uid: &str, resource: &str, count: usize, all: NumaNodes) -> Offer {
        let known = self.resources.get(resource)?;
        if known.values().all(|device| device.nodes.is_empty()) {
            return None;
        }
        let (used, none) = (self.in_use(resource), BTreeSet::new());
        let given = self.all_given().filter(|((of, _, name), _)| *of == uid && *name == resource);
        let held: BTreeSet<&String> = given.flat_map(|(_, given)| &given.devices).collect();
        let usable = |id: &String, device: &Known| {
            if held.is_empty() { device.healthy && !used.contains(id) } else { held.contains(id) }
        };
        Some(hints(known, count, &none, usable, all))
    }

    /// What plain init containers (`init`) of a pod have and its others do not, by resource.
    pub fn reusable(&self, uid: &str, init: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        let mut reusable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (container, resources) in self.given.get(uid).into_iter().flatten() {
            let list = if init.contains(&container.as_str()) { &mut reusable } else { &mut kept };
            for (resource, given) in resources {
                list.entry(resource.clone()).or_default().extend(given.devices.iter().cloned());
            }
        }
        for (resource, devices) in &mut reusable {
            devices.retain(|id| !kept.get(resource).is_some_and(|kept| kept.contains(id)));
        }
        reusable
    }

    /// Refuses devices that another pod has got meanwhile.
    pub fn give(&mut self, at: At<'_>, resource: &str, given: Given) -> Result<(), String> {
        let others = self.all_given().filter(|((uid, _, of), _)| *of == resource && *uid != at.0);
        if others.into_iter().any(|(_, other)| !other.devices.is_disjoint(&given.devices)) {
            return Err(format!("devices of {resource} were given to another pod, will retry"));
        }
        let containers = self.given.entry(at.0.to_owned()).or_default();
        containers.entry(at.1.to_owned()).or_default().insert(resource.to_owned(), given);
        Ok(())
    }

    pub fn given(&self, uid: &str, container: &str, resource: &str) -> Option<&Given> {
        self.given.get(uid)?.get(container)?.get(resource)
    }

    pub fn responses(&self, uid: &str, container: &str) -> Vec<ContainerAllocateResponse> {
        self.of(uid, container).map(|(_, given)| given.response.clone()).collect()
    }

    fn of(&self, uid: &str, container: &str) -> impl Iterator<Item = (&String, &Given)> {
        self.given.get(uid).and_then(|containers| containers.get(container)).into_iter().flatten()
    }

    pub fn health(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        let well = |resource: &str, id: &String| {
            // Of one that no plugin has told of nothing bad is known.
            self.resources.get(resource).and_then(|known| known.get(id)).is_none_or(|device| device.healthy)
        };
        let health = |resource: &str, id: &String| ResourceHealth {
            resource_id: id.clone(),
            health: if well(resource, id) { Health::Healthy } else { Health::Unhealthy },
            message: String::new(),
        };
        let of = self.of(uid, container).map(|(resource, given)| ResourceStatus {
            name: resource.clone(),
            resources: given.devices.iter().map(|id| health(resource, id)).collect(),
        });
        of.collect()
    }

    fn nodes_of<'d>(&self, resource: &str, ids: impl Iterator<Item = &'d String>) -> Vec<u32> {
        let known = self.resources.get(resource);
        let nodes = ids.filter_map(|id| known?.get(id)).flat_map(|device| &device.nodes);
        nodes.copied().collect::<BTreeSet<u32>>().into_iter().collect()
    }

    pub fn of_container(&self, uid: &str, container: &str) -> Vec<(String, Vec<String>, Vec<u32>)> {
        let of = self.of(uid, container).map(|(resource, given)| {
            let nodes = self.nodes_of(resource, given.devices.iter());
            (resource.clone(), given.devices.iter().cloned().collect(), nodes)
        });
        of.collect()
    }

    pub fn allocatable(&self) -> Vec<(String, Vec<String>, Vec<u32>)> {
        let of = self.healthy().map(|(resource, ids)| {
            let nodes = self.nodes_of(resource, ids.iter());
            (resource.to_owned(), ids.into_iter().collect(), nodes)
        });
        of.collect()
    }

    pub fn release(&mut self, uid: &str) -> bool {
        self.given.remove(uid).is_some()
    }

    pub fn pods(&self) -> Vec<String> {
        self.given.keys().cloned().collect()
    }
}

/// The sets of nodes with `count` devices that are usable, all of the reusable ones among them.
fn hints(
    known: &BTreeMap<String, Known>,
    count: usize,
    reusable: &BTreeSet<String>,
    usable: impl Fn(&String, &Known) -> bool,
    all: NumaNodes,
) -> Vec<Hint> {
    let within = |device: &Known, nodes: NumaNodes| device.nodes.iter().any(|node| nodes.contains(*node));
    let subsets = all.subsets();
    let large_enough =
        |nodes: &&NumaNodes| known.values().filter(|device| within(device, **nodes)).count() >= count;
    let fewest = subsets.iter().find(large_enough).map_or(u32::MAX, |nodes| nodes.count());
    let fits = |nodes: &NumaNodes| {
        let inside = known.iter().filter(|(id, device)| usable(id, device) && within(device, *nodes));
        let reused = reusable.iter().filter_map(|id| known.get(id)).all(|device| within(device, *nodes));
        reused && inside.count() >= count
    };
    let hints = subsets.into_iter().filter(fits);
    hints.map(|nodes| Hint { nodes: Some(nodes), preferred: nodes.count() == fewest }).collect()
}
