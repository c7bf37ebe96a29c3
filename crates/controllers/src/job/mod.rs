//! Runs the pods of a Job until enough have succeeded or too many have failed (follows upstream's
//! `pkg/controller/job`).

mod backoff;
mod counts;
mod metrics;
mod outcome;
mod pods;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::resource::{JOBS, PODS};
use api::view::batch::Job;
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Failure, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, is_alive, orphans_of};
use crate::plan::Plan;

pub use metrics::JobMetrics;
pub use reconcile::{World, reconcile};

use metrics::Sync;

/// No Job has this name: by it a key stands for a namespace's pods that nobody controls.
const ORPHANS: &str = "";

struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    metrics: Arc<JobMetrics>,
    /// What is under way for each key, and since when.
    syncs: Mutex<HashMap<Key, (Sync, Instant)>>,
}

pub fn new(config: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods = informers.get::<Pod>();
    pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    Box::new(Jobs { jobs: informers.get(), pods, metrics: config.jobs.clone(), syncs: Mutex::default() })
}

#[async_trait]
impl Controller for Jobs {
    fn watch(&self, watches: &mut Watches) {
        watches.on(JOBS, &self.jobs, itself);
        let jobs = self.jobs.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut keys = controller_of(delta, JOBS);
            keys.extend(adopters(&jobs, delta));
            keys.extend(orphans(delta));
            keys
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        if key.name == ORPHANS {
            return Ok(let_orphans_go(&self.pods.by_index(CONTROLLER, &orphans_of(&key.namespace))));
        }
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            return Ok(self.let_go(key));
        };
        let began = Instant::now();
        let mut pods = self.pods.by_index(CONTROLLER, &job.metadata.uid);
        pods.extend(self.pods.by_index(CONTROLLER, &orphans_of(&key.namespace)));
        let mut world = World { pods, may_adopt: false };
        if world.has_adoptable(&job) {
            world.may_adopt = is_alive::<Job>(client, &job.metadata).await?;
        }
        let plan = reconcile(&job, &world, now);
        if reconcile::is_worked_on(&job) {
            let sync = Sync::of(&job, &world.pods, &plan);
            self.syncs.lock().insert(key.clone(), (sync, began));
        }
        Ok(plan)
    }

    fn carried_out(&self, key: &Key, failure: Option<&Failure>) {
        if let Some((sync, began)) = self.syncs.lock().remove(key) {
            self.metrics.synced(&sync, began.elapsed(), failure.is_none());
        }
    }
}

impl Jobs {
    /// Pods whose Job has gone are counted by nobody any more.
    fn let_go(&self, key: &Key) -> Plan {
        let of_key = |pod: &Arc<Pod>| {
            let owner = pod.metadata.controller();
            owner.is_some_and(|owner| owner.kind == JOBS.kind && owner.name == key.name)
        };
        let mut plan = Plan::default();
        for pod in self.pods.list_namespace(&key.namespace).iter().filter(|pod| of_key(pod)) {
            plan.steps.extend(pods::without_finalizer(pod));
        }
        plan
    }
}

/// Who counted them has let them go, by its deletion or by hand (upstream: `syncOrphanPod`).
fn let_orphans_go(pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::default();
    plan.steps.extend(pods.iter().filter_map(|pod| pods::without_finalizer(pod)));
    plan
}

/// The key of a namespace's orphans, when a pod has become one that still waits to be counted.
fn orphans(delta: &Delta<Pod>) -> Option<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => pod,
        Delta::Deleted(_) => return None,
    };
    let waits = pod.metadata.controller().is_none() && pods::is_tracked(pod);
    waits.then(|| Key::new(pod.metadata.namespace.clone(), ORPHANS))
}

/// The Jobs that would adopt a pod without a controller.
fn adopters(jobs: &Informer<Job>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => &pod.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if pod.controller().is_some() || pod.labels.is_empty() {
        return Vec::new();
    }
    let candidates = jobs.list_namespace(&pod.namespace);
    let matching = candidates.iter().filter(|job| job.spec.selector.matches(&pod.labels));
    matching.map(|job| job.metadata.namespaced_name()).collect()
}
