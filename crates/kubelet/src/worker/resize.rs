//! Accepts changes of a running pod's resources, and puts them in force.

use std::sync::Arc;

use api::view::core::{Container, Pod, ResourceRequirements};
use apimachinery::{Value, json};
use client::event::EventType;
use jiff::{SignedDuration, Timestamp};
use runtime::cri;

use super::{Outcome, PodEvents, Shared, Worker};
use crate::allocation::Requests;
use crate::pod::resize::{self, ResizeError};
use crate::resources::{fit_quota, linux_resources, whole};

/// Pause before a resize that failed or did not fit is looked at again: soon enough for room that another pod left,
/// without asking the runtime all the time.
pub const RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// The pod with the resources that the node has accepted, accepting what fits.
    pub(super) fn allocate(&mut self, pod: Arc<Pod>) -> Arc<Pod> {
        let uid = &pod.metadata.uid;
        if self.memory.allocated.is_empty() {
            self.memory.allocated = resize::restored(&pod);
            let mut known = (*pod).clone();
            resize::allocate(&mut known, &self.memory.allocated);
            self.shared.allocations.record(uid, Requests::of(&known));
        }
        let wanted = resize::wanted(&pod);
        if wanted == self.memory.allocated {
            self.memory.resize_pending = None;
            return pod;
        }
        match self.shared.allocations.resize(uid, Requests::of(&pod)) {
            Ok(()) => {
                self.memory.allocated = wanted;
                self.memory.resize_pending = None;
                self.memory.resize_errors.clear();
                self.stale = true;
                let message = format!("Pod resize started: {}", summary(&pod, ""));
                self.events().pod(EventType::Normal, "ResizeStarted", message);
                pod
            }
            Err(pending) => {
                if self.memory.resize_pending.as_ref() != Some(&pending) {
                    let event = format!("Resize{}", pending.reason);
                    let message =
                        format!("Pod resize {}: {}", pending.reason, summary(&pod, &pending.message));
                    self.events().pod(EventType::Warning, &event, message);
                }
                self.memory.resize_pending = Some(pending);
                let mut pod = (*pod).clone();
                resize::allocate(&mut pod, &self.memory.allocated);
                Arc::new(pod)
            }
        }
    }
}

/// The pod's resources as events tell them.
fn summary(pod: &Pod, error: &str) -> Value {
    let list = |specs: &[Container]| -> Vec<Value> {
        specs.iter().map(|c| json!({"name": c.name, "resources": resize::shown(&c.resources)})).collect()
    };
    let mut summary =
        json!({"containers": list(&pod.spec.containers), "generation": pod.metadata.generation});
    if !pod.spec.init_containers.is_empty() {
        summary["initContainers"] = json!(list(&pod.spec.init_containers));
    }
    if !error.is_empty() {
        summary["error"] = json!(error);
    }
    summary
}

/// Puts a container's allocated resources in force.
pub async fn update(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    spec: Container,
    id: String,
    actuated: ResourceRequirements,
) -> Outcome {
    match try_update(&shared, &pod, &spec, &id, &actuated).await {
        Ok(()) => Outcome { actuated: Some((id, spec.resources)), ..Default::default() },
        Err(message) => {
            let events = PodEvents { recorder: &shared.recorder, pod: &pod };
            let text = format!("Pod resize error: {}", summary(&pod, &message));
            events.pod(EventType::Warning, "ResizeError", text);
            let error = ResizeError { message, retry_at: Timestamp::now() + RETRY };
            Outcome { resize_error: Some((id, error)), ..Default::default() }
        }
    }
}

async fn try_update(
    shared: &Shared,
    pod: &Pod,
    spec: &Container,
    id: &str,
    actuated: &ResourceRequirements,
) -> Result<(), String> {
    let limit = whole(&spec.resources.limits, "memory");
    if limit > 0 && limit < whole(&actuated.limits, "memory") {
        let usage = memory_usage(shared, id).await?;
        if usage >= u64::try_from(limit).unwrap_or(0) {
            return Err(format!(
                "cannot decrease memory limits: attempting to set container {:?} memory limit ({limit}) below current usage ({usage})",
                spec.name
            ));
        }
    }
    let mut resources = linux_resources(pod, spec, shared.memory_capacity);
    fit_quota(&mut resources, &shared.config.kubelet);
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(resources),
        ..Default::default()
    };
    let updated = shared.runtime.runtime.clone().update_container_resources(request).await;
    updated.map(drop).map_err(|status| status.message().to_owned())
}

async fn memory_usage(shared: &Shared, id: &str) -> Result<u64, String> {
    let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
    let answer = shared.runtime.runtime.clone().container_stats(request).await;
    let stats = answer.map_err(|status| status.message().to_owned())?.into_inner().stats;
    let usage = stats.and_then(|stats| stats.memory).and_then(|memory| memory.usage_bytes);
    usage.map(|usage| usage.value).ok_or_else(|| "missing container memory usage".to_owned())
}
