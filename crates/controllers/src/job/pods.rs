//! One pod of a Job: made, told apart from others by its index, and let go once it is counted.

use api::resource::{JOBS, PODS};
use api::view::batch::Job;
use api::view::core::Pod;
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::plan::{Action, ERROR, Event, NAME, Step, reference};
use crate::podtemplate::from_template;

/// Keeps a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of an Indexed Job's pod.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often pods of this index failed before.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Part of a pod's name that the server adds.
const SUFFIX_BYTES: usize = 6;
const NAME_BYTES_MAX: usize = 63;

pub fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode.as_deref() == Some("Indexed")
}

pub fn index(pod: &Pod) -> Option<i64> {
    pod.metadata.annotations.get(INDEX)?.parse().ok()
}

pub fn failures_before(pod: &Pod) -> i64 {
    pod.metadata.annotations.get(INDEX_FAILURES).and_then(|text| text.parse().ok()).unwrap_or_default()
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// When the last of a pod's containers ended.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.container_statuses.iter();
    let ends = statuses.filter_map(|status| status.state.terminated.as_ref()?.finished_at);
    ends.max().or_else(|| pod.condition("Ready")?.last_transition_time).or(pod.metadata.deletion_timestamp)
}

/// The step that makes a pod, of an index if the Job is Indexed, which failed so often before.
pub fn creation(job: &Job, index: Option<i64>, failures: i64) -> Step {
    let mut pod = from_template(JOBS, &job.metadata, &job.spec.template);
    let metadata = &mut pod["metadata"];
    let mut finalizers = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    finalizers.push(FINALIZER.into());
    metadata["finalizers"] = finalizers.into();
    if let Some(index) = index {
        let kept = job.metadata.name.len().min(NAME_BYTES_MAX - SUFFIX_BYTES - index.to_string().len() - 1);
        metadata["generateName"] = format!("{}-{index}-", &job.metadata.name[..kept]).into();
        for place in ["labels", "annotations"] {
            metadata[place][INDEX] = index.to_string().into();
        }
        if job.spec.backoff_limit_per_index.is_some() {
            metadata["annotations"][INDEX_FAILURES] = failures.to_string().into();
        }
        tell_index(&mut pod["spec"]);
        pod["spec"]["hostname"] = format!("{}-{index}", job.metadata.name).into();
    }
    let regarding = reference(JOBS, &job.metadata);
    Step {
        action: Action::create(PODS, &job.metadata.namespace, pod),
        done: Some(Event::normal(regarding.clone(), "SuccessfulCreate", format!("Created pod: {NAME}"))),
        failed: Some(Event::warning(regarding, "FailedCreate", format!("Error creating: {ERROR}"))),
    }
}

/// Every container knows its index by a variable, unless it has one of that name.
fn tell_index(spec: &mut Value) {
    const VARIABLE: &str = "JOB_COMPLETION_INDEX";
    let path = format!("metadata.labels['{INDEX}']");
    let variable =
        json!({"name": VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mut env = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            if !env.iter().any(|known| known["name"] == VARIABLE) {
                env.push(variable.clone());
                container["env"] = env.into();
            }
        }
    }
}

/// Deletes a pod that is no longer wanted; what it counts as is seen when it has ended.
pub fn deletion(job: &Job, pod: &Pod) -> Step {
    let regarding = reference(JOBS, &job.metadata);
    Step {
        action: Action::delete(PODS, &pod.metadata),
        done: Some(Event::normal(regarding.clone(), "SuccessfulDelete", format!("Deleted pod: {NAME}"))),
        failed: Some(Event::warning(regarding, "FailedDelete", format!("Error deleting: {ERROR}"))),
    }
}

/// Lets a pod go; `None` when it is free already.
pub fn without_finalizer(pod: &Pod) -> Option<Step> {
    let left: Vec<&String> = pod.metadata.finalizers.iter().filter(|f| *f != FINALIZER).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    is_tracked(pod).then(|| Step {
        action: Action::patch(PODS, &pod.metadata, patch),
        done: None,
        failed: None,
    })
}
