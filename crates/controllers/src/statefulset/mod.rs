//! Gives the pods of a StatefulSet names, order and volumes that last (follows upstream's
//! `pkg/controller/statefulset`).

mod claims;
mod pod;
mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use api::view::apps::{ControllerRevision, StatefulSet};
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, is_alive, orphans_of};
use crate::plan::Plan;

use claims::VolumeClaim;

pub use reconcile::{World, reconcile};

struct StatefulSets {
    stateful_sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<VolumeClaim>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods = informers.get::<Pod>();
    pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    Box::new(StatefulSets {
        stateful_sets: informers.get(),
        pods,
        revisions: informers.get(),
        claims: informers.get_selected(PERSISTENT_VOLUME_CLAIMS, ""),
    })
}

#[async_trait]
impl Controller for StatefulSets {
    fn watch(&self, watches: &mut Watches) {
        watches.on(STATEFUL_SETS, &self.stateful_sets, itself);
        watches.on(CONTROLLER_REVISIONS, &self.revisions, |delta| controller_of(delta, STATEFUL_SETS));
        let stateful_sets = self.stateful_sets.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut keys = controller_of(delta, STATEFUL_SETS);
            keys.extend(adopters(&stateful_sets, delta));
            keys
        });
        // A claim that goes, or is made, may be one that a set waits for.
        let stateful_sets = self.stateful_sets.clone();
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, move |delta| {
            let meta = &delta.object().metadata;
            let sets = stateful_sets.list_namespace(&meta.namespace);
            let of_set = sets.iter().filter(|set| claims::is_of(set, &meta.name));
            of_set.map(|set| set.metadata.namespaced_name()).collect()
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(set) = self.stateful_sets.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let mut world = self.world(&set);
        if world.has_adoptable(&set) {
            world.may_adopt = is_alive::<StatefulSet>(client, &set.metadata).await?;
        }
        Ok(reconcile(&set, &world, now))
    }
}

impl StatefulSets {
    fn world(&self, set: &StatefulSet) -> World {
        let meta = &set.metadata;
        let mut pods = self.pods.by_index(CONTROLLER, &meta.uid);
        pods.extend(self.pods.by_index(CONTROLLER, &orphans_of(&meta.namespace)));
        let claims: Vec<Arc<VolumeClaim>> = self.claims.list_namespace(&meta.namespace);
        World {
            pods,
            revisions: self.revisions.list_namespace(&meta.namespace),
            claims: claims.into_iter().filter(|claim| claims::is_of(set, &claim.metadata.name)).collect(),
            may_adopt: false,
        }
    }
}

/// The StatefulSets that would adopt a pod without a controller.
fn adopters(stateful_sets: &Informer<StatefulSet>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => &pod.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if pod.controller().is_some() || pod.labels.is_empty() {
        return Vec::new();
    }
    let candidates = stateful_sets.list_namespace(&pod.namespace);
    let matching = candidates.iter().filter(|set| {
        set.spec.selector.matches(&pod.labels) && pod::ordinal(&set.metadata.name, &pod.name).is_some()
    });
    matching.map(|set| set.metadata.namespaced_name()).collect()
}
