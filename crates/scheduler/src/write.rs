//! What decisions write to the API server: bindings, reasons, evictions, and the events about them.

mod claims;

use std::sync::Arc;

use api::resource::{BINDINGS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, Resource};
use api::view::core::persistentvolume::SELECTED_NODE;
use api::view::core::{ObjectReference, Pod};
use apimachinery::meta::{ObjectMeta, str_at};
use apimachinery::{Value, json, time};
use client::event::EventType;
use client::{Client, DeleteOptions, EventRecorder, PatchType};
use jiff::Timestamp;

use crate::diagnosis::event_message;
use crate::podinfo::PodInfo;
use crate::preemption::Preemption;
use crate::volumes::PodVolumes;

const POD_SCHEDULED: &str = "PodScheduled";
const UNSCHEDULABLE: &str = "Unschedulable";
const SCHEDULER_ERROR: &str = "SchedulerError";

/// Writes under the scheduler's identity. Cloning shares it.
#[derive(Clone)]
pub struct Writer {
    pub client: Client,
    pub recorder: EventRecorder,
    /// The scheduler's name, as pods ask for it.
    pub name: Arc<str>,
}

/// Of the objects of a `PodVolumes`, in its order.
#[derive(Debug, Default)]
pub struct Versions {
    pub volumes: Vec<u64>,
    pub claims: Vec<u64>,
}

/// Why a pod has no node yet.
pub struct Failure {
    pub message: String,
    /// Whether the cluster has no room, as opposed to something having gone wrong.
    pub unschedulable: bool,
    /// The node the pod is promised; empty takes a promise back.
    pub nominated_node: String,
}

impl Writer {
    /// Gives the pod its node.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> client::error::Result<()> {
        let metadata = &pod.pod.metadata;
        let binding = json!({
            "kind": BINDINGS.kind, "apiVersion": BINDINGS.api_version(),
            "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
            "target": {"kind": NODES.kind, "apiVersion": NODES.api_version(), "name": node},
        });
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        self.client.create_subresource(PODS, namespace, name, "binding", &binding).await?;
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.recorder.event(&reference(&pod.pod), EventType::Normal, "Scheduled", message);
        Ok(())
    }

    /// Writes on volumes and claims what was decided, and returns their versions then.
    pub async fn bind_volumes(&self, decided: &PodVolumes) -> client::error::Result<Versions> {
        let mut written = Versions::default();
        for (volume, _) in &decided.bindings {
            let metadata = &volume.metadata;
            let patch = json!({
                "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version,
                    "annotations": metadata.annotations},
                "spec": {"claimRef": volume.spec.claim_ref},
            });
            written.volumes.push(self.patch(PERSISTENT_VOLUMES, metadata, &patch).await?);
        }
        for claim in &decided.provisions {
            let metadata = &claim.metadata;
            let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version,
                "annotations": {SELECTED_NODE: metadata.annotations.get(SELECTED_NODE)}}});
            written.claims.push(self.patch(PERSISTENT_VOLUME_CLAIMS, metadata, &patch).await?);
        }
        Ok(written)
    }

    async fn patch(&self, resource: Resource, of: &ObjectMeta, patch: &Value) -> client::error::Result<u64> {
        let (namespace, name) = (&of.namespace, &of.name);
        let written = self.client.patch(resource, namespace, name, None, PatchType::Merge, patch).await?;
        Ok(str_at(&written, &["metadata", "resourceVersion"]).parse().unwrap_or(0))
    }

    /// Tells in an event and in the pod's status why it is still pending.
    pub async fn report(&self, pod: &PodInfo, failure: &Failure, now: Timestamp) {
        let message = event_message(&failure.message);
        self.recorder.event(&reference(&pod.pod), EventType::Warning, "FailedScheduling", message);
        let Some(status) = status_patch(&pod.pod, failure, now) else { return };
        if let Err(error) = self.patch_status(&pod.pod, status).await {
            tracing::warn!(pod = %pod.name(), %error, "pod status not updated");
        }
    }

    /// Removes the victims so that their node has room for `pod`.
    pub async fn evict(&self, pod: &PodInfo, preemption: &Preemption, now: Timestamp) {
        for victim in &preemption.victims {
            if let Err(error) = self.evict_one(pod, victim, &preemption.node, now).await {
                tracing::warn!(pod = %pod.name(), victim = %victim.name(), %error, "preemption failed");
            }
        }
    }

    async fn evict_one(
        &self,
        pod: &PodInfo,
        victim: &PodInfo,
        node: &str,
        now: Timestamp,
    ) -> client::error::Result<()> {
        let metadata = &victim.pod.metadata;
        if metadata.is_being_deleted() {
            return Ok(());
        }
        let message = format!("{}: preempting to accommodate a higher priority pod", self.name);
        let status = json!({"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message,
            "observedGeneration": metadata.generation, "lastProbeTime": null,
            "lastTransitionTime": time::format_time(now),
        }]});
        self.patch_status(&victim.pod, status).await?;
        let options = DeleteOptions { uid: Some(metadata.uid.clone()), ..DeleteOptions::default() };
        match self.client.delete(PODS, &metadata.namespace, &metadata.name, &options).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let message = format!("Preempted by pod {} on node {node}", pod.uid());
        self.recorder.event(&reference(&victim.pod), EventType::Normal, "Preempted", message);
        Ok(())
    }

    async fn patch_status(&self, pod: &Pod, status: Value) -> client::error::Result<()> {
        let metadata = &pod.metadata;
        let patch = json!({"metadata": {"uid": metadata.uid}, "status": status});
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        self.client.patch(PODS, namespace, name, Some("status"), PatchType::Strategic, &patch).await.map(drop)
    }
}

/// What of the pod's status is new; `None` when it says all this already.
fn status_patch(pod: &Pod, failure: &Failure, now: Timestamp) -> Option<Value> {
    let reason = if failure.unschedulable { UNSCHEDULABLE } else { SCHEDULER_ERROR };
    let old = pod.condition(POD_SCHEDULED);
    let said = old
        .is_some_and(|old| old.status == "False" && old.reason == reason && old.message == failure.message);
    let promised = pod.status.nominated_node_name == failure.nominated_node;
    if said && promised {
        return None;
    }
    let since =
        old.filter(|old| old.status == "False").and_then(|old| old.last_transition_time).unwrap_or(now);
    let mut status = json!({"conditions": [{
        "type": POD_SCHEDULED, "status": "False", "reason": reason, "message": failure.message,
        "observedGeneration": pod.metadata.generation, "lastProbeTime": null,
        "lastTransitionTime": time::format_time(since),
    }]});
    if !promised {
        let node = failure.nominated_node.as_str();
        status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { node.into() };
    }
    Some(status)
}

fn reference(pod: &Pod) -> ObjectReference {
    let metadata = &pod.metadata;
    ObjectReference {
        kind: PODS.kind.to_owned(),
        api_version: PODS.api_version(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str, nominated_node: &str) -> Failure {
        Failure { message: message.into(), unschedulable: true, nominated_node: nominated_node.into() }
    }

    #[test]
    fn a_reason_is_written_once_and_keeps_its_time() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut pod = Pod::default();
        let patch = status_patch(&pod, &failure("no room", ""), at(60)).unwrap();
        assert_eq!(patch["conditions"][0]["reason"], "Unschedulable");
        assert_eq!(patch["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z");
        assert!(patch.get("nominatedNodeName").is_none());

        pod.status.conditions = apimachinery::from_value(patch["conditions"].clone()).unwrap();
        assert_eq!(status_patch(&pod, &failure("no room", ""), at(90)), None);
        let patch = status_patch(&pod, &failure("less room", "n"), at(90)).unwrap();
        assert_eq!(patch["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z");
        assert_eq!(patch["nominatedNodeName"], "n");

        pod.status.nominated_node_name = "n".into();
        assert_eq!(
            status_patch(&pod, &failure("no room", ""), at(90)).unwrap()["nominatedNodeName"],
            Value::Null
        );
    }
}
