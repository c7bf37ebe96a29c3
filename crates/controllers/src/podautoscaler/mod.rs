//! Sizes what a HorizontalPodAutoscaler points at by what its pods use (follows upstream's
//! `pkg/controller/podautoscaler`). Metrics are no objects that could be watched: each autoscaler looks again after a
//! period, which its plan names.

mod history;
mod metrics;
mod normalize;
mod reconcile;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{HORIZONTAL_POD_AUTOSCALERS, PODS};
use api::view::autoscaling::HorizontalPodAutoscaler;
use api::view::core::Pod;
use apimachinery::GroupVersion;
use apimachinery::labels::{self, Selector};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Failure, FailureKind, Key, Watches, itself};
use crate::plan::Plan;
use crate::scale::{self, Scale};

use history::History;
use reconcile::{Target, World, needs_metrics, reconcile};

struct Autoscalers {
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    state: Mutex<HashMap<Key, State>>,
}

/// What is remembered of one autoscaler.
#[derive(Default)]
struct State {
    history: History,
    /// The pods it was last found to be about.
    selector: Option<Selector>,
    /// Why its target could not be sized.
    failure: Option<String>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Autoscalers { autoscalers: informers.get(), pods: informers.get(), state: Mutex::default() })
}

#[async_trait]
impl Controller for Autoscalers {
    fn watch(&self, watches: &mut Watches) {
        watches.on(HORIZONTAL_POD_AUTOSCALERS, &self.autoscalers, |delta| match delta {
            Delta::Updated { old, new } if old.spec == new.spec => Vec::new(),
            _ => itself(delta),
        });
        watches.on(PODS, &self.pods, |_| Vec::new());
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(autoscaler) = self.autoscalers.get(&key.namespace, &key.name) else {
            self.state.lock().remove(key);
            return Ok(Plan::default());
        };
        let mut world = World { target: target(&autoscaler, client).await, ..World::default() };
        if let Ok(Target { scale, .. }) = &world.target
            && let Ok(selector) = labels::parse(&scale.status.selector)
            && !selector.is_empty()
        {
            world.pods = self.selected(&key.namespace, &selector);
            world.rivals = self.rivals(key, selector, &world.pods);
            if world.rivals.len() < 2 && needs_metrics(&autoscaler, scale) {
                let selector = scale.status.selector.clone();
                for metric in &autoscaler.spec.metrics {
                    world.readings.push(metrics::read(client, &key.namespace, &selector, metric).await);
                }
            }
        }
        let mut state = self.state.lock();
        let State { history, failure, .. } = state.entry(key.clone()).or_default();
        world.failure = failure.take();
        Ok(reconcile(&autoscaler, &world, history, now))
    }

    fn carried_out(&self, key: &Key, failure: Option<&Failure>) {
        if let Some(state) = self.state.lock().get_mut(key) {
            state
                .history
                .settle(failure.is_none_or(|failure| failure.resource == HORIZONTAL_POD_AUTOSCALERS));
            let refused = failure.filter(|failure| {
                failure.kind == FailureKind::Refused && failure.resource != HORIZONTAL_POD_AUTOSCALERS
            });
            state.failure = refused.map(|failure| failure.message.clone());
        }
    }
}

impl Autoscalers {
    fn selected(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list_namespace(namespace);
        pods.retain(|pod| selector.matches(&pod.metadata.labels));
        pods
    }

    /// All autoscalers, this one included, that are about one of the pods.
    fn rivals(&self, key: &Key, selector: Selector, pods: &[Arc<Pod>]) -> Vec<Key> {
        let mut state = self.state.lock();
        state.entry(key.clone()).or_default().selector = Some(selector);
        let is_about = |(other, state): &(&Key, &State)| {
            let selector = state.selector.as_ref().filter(|_| other.namespace == key.namespace);
            selector.is_some_and(|selector| pods.iter().any(|pod| selector.matches(&pod.metadata.labels)))
        };
        let mut rivals: Vec<Key> = state.iter().filter(is_about).map(|(other, _)| other.clone()).collect();
        rivals.sort();
        rivals
    }
}

/// What the autoscaler points at, and how large that is.
async fn target(autoscaler: &HorizontalPodAutoscaler, client: &Client) -> Result<Target, String> {
    let reference = &autoscaler.spec.scale_target_ref;
    let version = GroupVersion::parse(&reference.api_version)
        .ok_or_else(|| format!("unexpected GroupVersion string: {}", reference.api_version))?;
    let resource = scale::resource_of(client, &version, &reference.kind).await.map_err(|e| e.to_string())?;
    let resource = resource
        .ok_or_else(|| format!("no matches for kind {:?} in group {:?}", reference.kind, version.group))?;
    let namespace = &autoscaler.metadata.namespace;
    let scale: Scale =
        scale::get(client, resource, namespace, &reference.name).await.map_err(|error| error.to_string())?;
    Ok(Target { resource, scale })
}
