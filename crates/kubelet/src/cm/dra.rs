//! Has drivers make the devices of pods' claims ready, and tells the runtime of them (follows upstream's
//! `pkg/kubelet/cm/dra`).

mod claiminfo;
mod health;
mod plugin;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api::resource::RESOURCE_CLAIMS;
use api::view::core::{Container, Pod};
use api::view::dynamicresource::{ResourceClaim, claim_name};
use apimachinery::meta::ObjectMeta;
use client::Client;
use client::metrics::{head, sample};
use dra::v1::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use jiff::Timestamp;
use tokio::sync::watch;

pub use self::claiminfo::ClaimInfo;
use self::claiminfo::ClaimInfos;
use self::plugin::Plugins;
use super::checkpoint;
use super::devicemanager::proto::{CdiDevice, ContainerAllocateResponse};
use super::metrics::DraMetrics;
use super::resourcestatus::{ResourceHealth, ResourceStatus};
use crate::pluginmanager::PluginHandler;

/// Upstream: `draManagerStateFileName`.
const STATE_FILE: &str = "dra_manager_state";
/// Between attempts to give devices of pods back that are gone (upstream: `defaultReconcilePeriod`).
const RETRY: Duration = Duration::from_secs(60);

pub struct DraManager {
    client: Client,
    state_file: PathBuf,
    claims: Mutex<ClaimInfos>,
    plugins: Arc<Plugins>,
    metrics: DraMetrics,
}

/// Claims to ask a driver about.
type Batches = BTreeMap<String, Vec<Claim>>;

impl DraManager {
    /// Knows what was ready when the kubelet ran last.
    pub fn open(client: Client, node_name: String, root_dir: &Path) -> Arc<Self> {
        let plugins = Plugins::new(client.clone(), node_name);
        Self::with_plugins(client, root_dir, plugins)
    }

    fn with_plugins(client: Client, root_dir: &Path, plugins: Arc<Plugins>) -> Arc<Self> {
        let state_file = root_dir.join(STATE_FILE);
        let claims = checkpoint::read(&state_file).unwrap_or_else(|why| {
            tracing::warn!(why, "which claims are ready is not known any more");
            None
        });
        let claims = Mutex::new(claims.unwrap_or_default());
        Arc::new(DraManager { client, state_file, claims, plugins, metrics: DraMetrics::default() })
    }

    /// What there is to tell of how claims are made ready.
    pub fn write_metrics(&self, text: &mut String) {
        const IN_USE: &str = "dra_resource_claims_in_use";
        self.metrics.write(text);
        head(text, IN_USE, "Claims that pods of this node use, by driver.", "gauge");
        for (driver, count) in self.claims().in_use() {
            sample(text, IN_USE, "", &format!("driver_name={driver:?}"), "", count as f64);
        }
    }

    /// What the plugin registry hands drivers to.
    pub fn registration(&self) -> Arc<dyn PluginHandler> {
        Arc::new(plugin::Registration(self.plugins.clone()))
    }

    /// Until drivers register, the node has no devices to tell of.
    pub async fn forget_slices(self: Arc<Self>) {
        self.plugins.wipe(None).await;
    }

    /// Makes all devices of the pod's claims ready that are not yet.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        if pod.spec.resource_claims.is_empty() && pod.status.extended_resource_claim_status.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let prepared = self.try_prepare(pod).await;
        self.metrics.done("PrepareResources", prepared.is_err(), began);
        prepared.map_err(|why| format!("prepare dynamic resources: {why}"))
    }

    async fn try_prepare(&self, pod: &Pod) -> Result<(), String> {
        let mut wanted = Vec::new();
        for claim in self.claims_of(pod).await? {
            let Some(info) = ClaimInfo::of(&claim) else {
                return Err(format!("ResourceClaim {}: claim not allocated", claim.metadata.name));
            };
            // Found out before anything is written down: a pod that never had its driver can go without it.
            info.drivers.keys().try_for_each(|driver| self.plugins.get(driver).map(drop))?;
            wanted.push(info);
        }
        let unprepared = {
            let mut claims = self.claims();
            let unprepared = claims.add(&pod.metadata.uid, wanted)?;
            self.write(&claims).map_err(|error| format!("checkpoint ResourceClaim cache: {error}"))?;
            unprepared
        };
        for (driver, claims) in batches(&unprepared) {
            self.prepare_batch(&driver, claims).await?;
        }
        let mut claims = self.claims();
        unprepared.iter().for_each(|info| claims.set_prepared(&info.told()));
        self.write(&claims).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// The pod's claims as the API server has them, each checked to be for the pod.
    async fn claims_of(&self, pod: &Pod) -> Result<Vec<ResourceClaim>, String> {
        let meta = &pod.metadata;
        let mut claims = Vec::new();
        for wanted in &pod.spec.resource_claims {
            let Some(name) = claim_name(pod, wanted)? else { continue };
            let claim = self.claim_for(meta, name).await?;
            if wanted.resource_claim_template_name.is_some() {
                claim.check_made_for(meta)?;
            }
            claims.push(claim);
        }
        if let Some(extended) = &pod.status.extended_resource_claim_status {
            claims.push(self.claim_for(meta, &extended.resource_claim_name).await?);
        }
        Ok(claims)
    }

    /// The claim, if the pod may use it.
    async fn claim_for(&self, pod: &ObjectMeta, name: &str) -> Result<ResourceClaim, String> {
        let claim = self.client.get::<ResourceClaim>(RESOURCE_CLAIMS, &pod.namespace, name).await;
        let claim = claim.map_err(|error| format!("fetch ResourceClaim {name}: {error}"))?;
        if claim.is_reserved_for(&pod.uid) {
            return Ok(claim);
        }
        let (pod, uid, claim_uid) = (&pod.name, &pod.uid, &claim.metadata.uid);
        Err(format!("pod {pod} ({uid}) is not allowed to use ResourceClaim {name} ({claim_uid})"))
    }

    async fn prepare_batch(&self, driver: &str, claims: Vec<Claim>) -> Result<(), String> {
        let request = NodePrepareResourcesRequest { claims: claims.clone() };
        let answer = self.plugins.get(driver)?.prepare(request).await;
        let answer = answer.map_err(|status| failed("NodePrepareResources", &status))?;
        let errors = answer.claims.iter().map(|(uid, result)| (uid.as_str(), result.error.as_str()));
        check("NodePrepareResources", &claims, errors)?;
        let mut known = self.claims();
        for claim in &claims {
            let devices = answer.claims.get(&claim.uid).map(|result| result.devices.clone());
            known.set_devices(claim, driver, devices.unwrap_or_default());
        }
        Ok(())
    }

    /// What a container is started with for the devices of the claims that it names, and of its extended resources.
    pub fn start_options(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<ContainerAllocateResponse, String> {
        let mut requests: Vec<(&str, &str)> = Vec::new();
        for used in &container.resources.claims {
            let Some(claim) = pod.spec.resource_claims.iter().find(|claim| claim.name == used.name) else {
                continue;
            };
            let name = claim_name(pod, claim)?;
            requests.extend(name.map(|name| (name, used.request.as_str())));
        }
        if let Some(extended) = &pod.status.extended_resource_claim_status {
            let name = extended.resource_claim_name.as_str();
            requests.extend(extended.requests_of(container).map(|request| (name, request)));
        }
        let mut cdi_devices: Vec<String> = Vec::new();
        for (claim, request) in requests {
            for device in self.claims().cdi_devices(&pod.metadata.namespace, claim, request)? {
                if !cdi_devices.contains(&device) {
                    cdi_devices.push(device);
                }
            }
        }
        let cdi_devices = cdi_devices.into_iter().map(|name| CdiDevice { name }).collect();
        Ok(ContainerAllocateResponse { cdi_devices, ..ContainerAllocateResponse::default() })
    }

    /// Hears when drivers tell otherwise than before how devices are.
    pub fn told(&self) -> watch::Receiver<u64> {
        self.plugins.told()
    }

    /// Pods with claims that are ready or about to be, by uid.
    pub fn pods(&self) -> BTreeSet<String> {
        self.claims().pods()
    }

    /// How the devices of a container are, by what it says of claims.
    pub fn health(&self, pod: &Pod, container: &Container, now: Timestamp) -> Vec<ResourceStatus> {
        let mut statuses = Vec::new();
        for used in &container.resources.claims {
            let claim = pod.spec.resource_claims.iter().find(|claim| claim.name == used.name);
            let name = claim.and_then(|claim| claim_name(pod, claim).ok().flatten());
            let resources =
                name.map(|name| self.health_of(&pod.metadata.namespace, name, &used.request, now));
            let request = if used.request.is_empty() { String::new() } else { format!("/{}", used.request) };
            if let Some(resources) = resources.filter(|resources| !resources.is_empty()) {
                statuses.push(ResourceStatus { name: format!("claim:{}{request}", used.name), resources });
            }
        }
        statuses
    }

    fn health_of(&self, namespace: &str, claim: &str, request: &str, now: Timestamp) -> Vec<ResourceHealth> {
        let claims = self.claims();
        let mut resources: Vec<ResourceHealth> = Vec::new();
        for (driver, device) in
            claims.get(namespace, claim).into_iter().flat_map(|info| info.devices(request))
        {
            let (health, message) = self.plugins.health(driver, &device.pool_name, &device.device_name, now);
            let own_name = || format!("{driver}/{}/{}", device.pool_name, device.device_name);
            let resource_id = device.cdi_device_ids.first().cloned().unwrap_or_else(own_name);
            if !resources.iter().any(|known| known.resource_id == resource_id) {
                resources.push(ResourceHealth { resource_id, health, message });
            }
        }
        resources
    }

    /// The claims that a container uses, as far as they are ready.
    pub fn of_container(&self, pod: &Pod, container: &Container) -> Vec<ClaimInfo> {
        let claims = self.claims();
        let is_used = |name: &str| container.resources.claims.iter().any(|used| used.name == name);
        let used = pod.spec.resource_claims.iter().filter(|claim| is_used(&claim.name));
        let names = used.filter_map(|claim| claim_name(pod, claim).ok().flatten());
        let extended = pod.status.extended_resource_claim_status.iter();
        let extended = extended.filter(|extended| extended.requests_of(container).next().is_some());
        let names = names.chain(extended.map(|extended| extended.resource_claim_name.as_str()));
        names.filter_map(|name| claims.get(&pod.metadata.namespace, name).cloned()).collect()
    }

    /// Gives the devices back that only this pod, which is over, has used.
    pub async fn unprepare(&self, uid: &str) -> Result<(), String> {
        if !self.claims().has_pod(uid) {
            return Ok(());
        }
        let began = Instant::now();
        let unprepared = self.try_unprepare(uid).await;
        self.metrics.done("UnprepareResources", unprepared.is_err(), began);
        unprepared.map_err(|why| format!("unprepare dynamic resources: {why}"))
    }

    async fn try_unprepare(&self, uid: &str) -> Result<(), String> {
        let alone = self.claims().leave_shared(uid);
        for (driver, claims) in batches(&alone) {
            let request = NodeUnprepareResourcesRequest { claims: claims.clone() };
            let answer = self.plugins.get(&driver)?.unprepare(request).await;
            let answer = answer.map_err(|status| failed("NodeUnprepareResources", &status))?;
            let errors = answer.claims.iter().map(|(uid, result)| (uid.as_str(), result.error.as_str()));
            check("NodeUnprepareResources", &claims, errors)?;
        }
        let mut claims = self.claims();
        alone.iter().for_each(|info| claims.remove(&info.told(), uid));
        self.write(&claims).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// Gives back what pods had that are not here any more, as when they ended while no kubelet ran.
    pub async fn unprepare_all_but(self: Arc<Self>, is_here: impl Fn(&str) -> bool) {
        let mut gone: Vec<String> = self.claims().pods().into_iter().filter(|uid| !is_here(uid)).collect();
        while !gone.is_empty() {
            let mut left = Vec::new();
            for uid in gone {
                if let Err(why) = self.unprepare(&uid).await {
                    tracing::warn!(
                        pod = uid,
                        why,
                        "devices of a pod that is gone are not given back, will retry"
                    );
                    left.push(uid);
                }
            }
            gone = left;
            if !gone.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn write(&self, claims: &ClaimInfos) -> std::io::Result<()> {
        checkpoint::write(&self.state_file, claims)
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn claims(&self) -> MutexGuard<'_, ClaimInfos> {
        self.claims.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn batches(claims: &[ClaimInfo]) -> Batches {
    let mut batches = Batches::new();
    for claim in claims {
        for driver in claim.drivers.keys() {
            batches.entry(driver.clone()).or_default().push(claim.told());
        }
    }
    batches
}

/// Whether the driver has answered for each claim, and for no other, without complaint.
fn check<'a>(
    call: &str,
    asked: &[Claim],
    answered: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), String> {
    let mut count = 0;
    for (uid, error) in answered {
        let Some(claim) = asked.iter().find(|claim| claim.uid == uid) else {
            return Err(format!("{call} returned result for unknown claim UID {uid}"));
        };
        if !error.is_empty() {
            return Err(format!("{call} failed for ResourceClaim {}: {error}", claim.name));
        }
        count += 1;
    }
    match asked.len() - count {
        0 => Ok(()),
        unfinished => Err(format!("{call} skipped {unfinished} ResourceClaims")),
    }
}

fn failed(call: &str, status: &tonic::Status) -> String {
    format!("{call}: rpc error: code = {:?} desc = {}", status.code(), status.message())
}
