//! Takes back a pod's announced disruption that has not begun in time (follows `syncStalePodDisruption`).

use api::resource::PODS;
use api::view::core::Pod;
use apimachinery::json;
use apimachinery::time::format_time;
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::podstatus::{self, DISRUPTION_TARGET};

/// Upstream: `stalePodDisruptionTimeout`.
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// A kubelet's announcement holds, however long the pod takes to end.
const BY_KUBELET: &str = "TerminationByKubelet";

struct StaleDisruptions {
    pods: Informer<Pod>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(StaleDisruptions { pods: informers.get() })
}

#[async_trait]
impl Controller for StaleDisruptions {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PODS, &self.pods, |delta| match stale_at(delta.object()) {
            Some(_) => itself(delta),
            None => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let pod = self.pods.get(&key.namespace, &key.name);
        Ok(pod.map_or_else(Plan::default, |pod| reconcile(&pod, now)))
    }
}

pub fn reconcile(pod: &Pod, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match stale_at(pod) {
        Some(at) if at > now => plan.requeue(at),
        Some(_) => {
            let withdrawn = json!({"conditions": [{
                "type": DISRUPTION_TARGET, "status": "False", "reason": null, "message": null,
                "lastTransitionTime": format_time(now),
            }]});
            plan.act(podstatus::patch(pod, None, withdrawn));
        }
        None => {}
    }
    plan
}

/// When the announcement of a pod that is not ending gets stale.
fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let condition = pod.condition(DISRUPTION_TARGET).filter(|condition| condition.is_true())?;
    if pod.metadata.is_being_deleted() || pod.is_terminal() || condition.reason == BY_KUBELET {
        return None;
    }
    let since = condition.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH);
    Some(since.saturating_add(STALE_AFTER).unwrap_or(Timestamp::MAX))
}
