//! Devices that plugins offer and containers ask for by name, such as `vendor.com/gpu` (follows `devicemanager`).
//!
//! A plugin registers on the kubelet's socket or in its plugin registry, and then tells on its own which devices it has
//! and how they are; who has which is written down in a checkpoint.

mod checkpoint;
mod devices;
mod endpoint;
pub mod proto {
    //! Messages, client and server of the device plugin API.
    tonic::include_proto!("v1beta1");
}
mod registration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use api::view::core::{Container, Pod};
use tokio::sync::watch;

#[cfg(test)]
pub use self::devices::Count;
pub use self::devices::Counts;
use self::devices::{Choice, Devices, Given};
use self::endpoint::Endpoint;
use self::proto::ContainerAllocateResponse;
pub use self::registration::Registration;
use super::metrics::DeviceMetrics;
use super::pod_scope::needed_at_once;
use super::resourcestatus::ResourceStatus;
use super::topologymanager::{NumaNodes, Offer};
use crate::pod::is_sidecar;
use crate::resources::whole;

const DIR: &str = "device-plugins";

/// Why devices could not be given; the texts are upstream's.
pub type Error = String;

pub struct DeviceManager {
    dir: PathBuf,
    devices: Mutex<Devices>,
    /// The plugins that answer, by resource.
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
    /// What there is of each resource, for the node's status.
    counts: watch::Sender<Counts>,
    /// The pods of which a device is not as it was, for who tells their status.
    unwell: watch::Sender<BTreeSet<String>>,
    pub metrics: DeviceMetrics,
}

impl DeviceManager {
    /// Knows who had what when the kubelet ran last.
    pub fn open(root_dir: &Path) -> Arc<Self> {
        let dir = root_dir.join(DIR);
        let devices = checkpoint::read(&dir).unwrap_or_else(|why| {
            tracing::warn!(why, "who has which device is not known any more");
            Devices::default()
        });
        let counts = watch::Sender::new(devices.counts());
        Arc::new(DeviceManager {
            dir,
            devices: Mutex::new(devices),
            endpoints: Mutex::default(),
            counts,
            unwell: watch::Sender::default(),
            metrics: DeviceMetrics::default(),
        })
    }

    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    pub fn unwell(&self) -> watch::Receiver<BTreeSet<String>> {
        self.unwell.subscribe()
    }

    /// The devices that a container asks for: those limits that some plugin stands behind.
    fn wanted(&self, container: &Container) -> Vec<(String, usize)> {
        let (devices, limits) = (self.devices(), &container.resources.limits);
        let counts = limits.keys().filter(|name| devices.knows(name));
        let count = |name: &String| usize::try_from(asked(container, name)).unwrap_or(usize::MAX);
        let counts = counts.map(|name| (name.clone(), count(name)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Where each of the devices that a container asks for could be.
    pub fn offers(&self, pod: &Pod, container: &Container, all: NumaNodes) -> Vec<Offer> {
        let (wanted, reusable) = (self.wanted(container), self.reusable(pod));
        let at = (pod.metadata.uid.as_str(), container.name.as_str());
        let devices = self.devices();
        let none = BTreeSet::new();
        let of = |(resource, count): &(String, usize)| {
            devices.offer(at, resource, *count, reusable.get(resource).unwrap_or(&none), all)
        };
        wanted.iter().map(of).collect()
    }

    /// Where the devices could be that all the pod's containers have at one time.
    pub fn pod_offers(&self, pod: &Pod, all: NumaNodes) -> Vec<Offer> {
        let containers = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let resources: BTreeSet<String> =
            containers().flat_map(|container| self.wanted(container)).map(|(resource, _)| resource).collect();
        let uid = &pod.metadata.uid;
        let offer = |resource: &String| {
            let count = needed_at_once(pod, |container| asked(container, resource));
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.devices().pod_offer(uid, resource, count, all)
        };
        resources.iter().map(offer).collect()
    }

    /// What init containers that have ended leave to those that follow, by resource.
    fn reusable(&self, pod: &Pod) -> BTreeMap<String, BTreeSet<String>> {
        let plain: Vec<&str> =
            pod.spec.init_containers.iter().filter(|c| !is_sidecar(c)).map(|c| c.name.as_str()).collect();
        self.devices().reusable(&pod.metadata.uid, &plain)
    }

    /// Gives a container the devices that it asks for, those on `nodes` first.
    pub async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        nodes: Option<NumaNodes>,
    ) -> Result<(), Error> {
        let uid = pod.metadata.uid.as_str();
        for (resource, count) in self.wanted(container) {
            let reusable = self.reusable(pod).remove(&resource).unwrap_or_default();
            let choice = self.devices().choose((uid, &container.name), &resource, count, &reusable)?;
            let Some(choice) = choice else { continue };
            let endpoint = self.endpoint(&resource)?;
            let chosen = self.settle(&endpoint, &resource, choice, nodes).await?;
            let began = Instant::now();
            let response = endpoint.allocate(&chosen).await;
            self.metrics.allocated(&resource, began);
            let response = response?;
            let mut devices = self.devices();
            // Another container may have got one of them while the plugin was asked.
            devices.give((uid, &container.name), &resource, Given { devices: chosen, response })?;
            checkpoint::write(&self.dir, &devices)
                .map_err(|error| format!("failed to write checkpoint file: {error}"))?;
        }
        Ok(())
    }

    /// Those that must be taken, then those that the plugin prefers, then any.
    async fn settle(
        &self,
        endpoint: &Endpoint,
        resource: &str,
        choice: Choice,
        nodes: Option<NumaNodes>,
    ) -> Result<BTreeSet<String>, Error> {
        let needed = choice.count.saturating_sub(choice.must.len());
        let near = self.devices().near(resource, &choice.free, nodes);
        let candidates = if needed < near.len() { &near } else { &choice.free };
        let preferred = match needed {
            0 => BTreeSet::new(),
            _ => endpoint.preferred(candidates, &choice.must, choice.count).await?,
        };
        let mut chosen = choice.must.clone();
        let ordered = [&preferred.intersection(candidates).cloned().collect(), &near, &choice.free];
        for device in ordered.into_iter().flatten() {
            if chosen.len() < choice.count {
                chosen.insert(device.clone());
            }
        }
        Ok(chosen)
    }

    fn endpoint(&self, resource: &str) -> Result<Endpoint, Error> {
        let endpoints = self.endpoints.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        endpoints.get(resource).cloned().ok_or_else(|| format!("unknown Device Plugin {resource}"))
    }

    /// What a container is started with for its devices, which their plugins make ready where they want to.
    pub async fn start_options(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Vec<ContainerAllocateResponse>, Error> {
        for (resource, _) in self.wanted(container) {
            if self.given(pod, container, &resource).is_none() {
                self.allocate(pod, container, None).await?;
            }
            let given = self.given(pod, container, &resource);
            let endpoint = self.endpoint(&resource)?;
            if let Some(given) = given.filter(|_| endpoint.wants_pre_start()) {
                endpoint.pre_start(&given.devices).await?;
            }
        }
        Ok(self.devices().responses(&pod.metadata.uid, &container.name))
    }

    fn given(&self, pod: &Pod, container: &Container, resource: &str) -> Option<Given> {
        self.devices().given(&pod.metadata.uid, &container.name, resource).cloned()
    }

    /// How the devices of a container are, by resource.
    pub fn health(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        self.devices().health(uid, container)
    }

    /// The devices of a container with the nodes they are on, by resource.
    pub fn of_container(&self, uid: &str, container: &str) -> Vec<(String, Vec<String>, Vec<u32>)> {
        self.devices().of_container(uid, container)
    }

    /// All devices that are well, with the nodes they are on, by resource.
    pub fn allocatable(&self) -> Vec<(String, Vec<String>, Vec<u32>)> {
        self.devices().allocatable()
    }

    /// Takes back what a pod had.
    pub fn release(&self, uid: &str) {
        let mut devices = self.devices();
        if devices.release(uid)
            && let Err(error) = checkpoint::write(&self.dir, &devices)
        {
            tracing::warn!(pod = uid, %error, "devices that are free again stay written down");
        }
    }

    /// Pods that have devices, by uid.
    pub fn pods(&self) -> Vec<String> {
        self.devices().pods()
    }

    /// A plugin has told which devices it has.
    fn update(&self, resource: &str, found: Vec<proto::Device>) {
        let mut devices = self.devices();
        let changed = devices.update(resource, found);
        self.tell(&devices, changed);
    }

    /// A plugin does not answer any more: its devices are not well, as far as anybody knows.
    fn lost(&self, resource: &str) {
        let mut devices = self.devices();
        let changed = devices.lose(resource);
        self.tell(&devices, changed);
    }

    /// A plugin has stayed away: there is no such resource.
    fn forget(&self, resource: &str) {
        let mut devices = self.devices();
        devices.forget(resource);
        self.tell(&devices, BTreeSet::new());
    }

    fn tell(&self, devices: &Devices, changed: BTreeSet<String>) {
        if let Err(error) = checkpoint::write(&self.dir, devices) {
            tracing::warn!(%error, "registered devices cannot be written down");
        }
        let counts = devices.counts();
        self.counts.send_if_modified(|known| std::mem::replace(known, counts.clone()) != counts);
        if !changed.is_empty() {
            self.unwell.send_replace(changed);
        }
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How many of a resource a container asks for.
fn asked(container: &Container, resource: &str) -> u64 {
    u64::try_from(whole(&container.resources.limits, resource)).unwrap_or(0)
}
