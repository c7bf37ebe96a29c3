//! From a namespace being deleted and what is left in it to the next step (follows `namespacedResourcesDeleter`): pods
//! first, since what they use must outlive them; then everything else; then the namespace itself.

use std::collections::BTreeMap;

use api::resource::NAMESPACES;
use api::view::core::Namespace;
use apimachinery::json;
use apimachinery::meta::{Condition, ObjectMeta, find_condition};
use client::DeleteOptions;
use jiff::{SignedDuration, Timestamp};

use crate::discovery::Served;
use crate::plan::{Action, Plan};

/// The finalizer in the namespace's spec that stands for this controller.
const FINALIZER: &str = "kubernetes";
/// When to look again at content whose going no watch shows (upstream: `finalizerEstimateSeconds`).
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// What is left in the namespace.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub remaining: Vec<Remaining>,
    pub discovery_errors: Vec<String>,
    /// Why the last round failed.
    pub failure: Option<String>,
}

/// Objects of one resource.
#[derive(Clone, Debug)]
pub struct Remaining {
    pub served: Served,
    /// The first of them.
    pub objects: Vec<ObjectMeta>,
    pub count: usize,
}

impl Remaining {
    fn is_pods(&self) -> bool {
        self.served.resource == api::resource::PODS
    }
}

/// Whether it is time to look into the namespace.
pub fn needs_content(namespace: &Namespace) -> bool {
    namespace.metadata.is_being_deleted()
        && namespace.status.phase == "Terminating"
        && namespace.spec.finalizers.iter().any(|f| f == FINALIZER)
}

pub fn reconcile(namespace: &Namespace, content: &Content, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !namespace.metadata.is_being_deleted() {
        return plan;
    }
    if namespace.status.phase != "Terminating" {
        let mut status = namespace.status.clone();
        status.phase = "Terminating".into();
        plan.act(Action::update_status(NAMESPACES, &namespace.metadata, json!(status)));
        plan.requeue(now);
        return plan;
    }
    if !needs_content(namespace) {
        return plan;
    }
    if content.remaining.is_empty() && content.discovery_errors.is_empty() {
        plan.act(finalize(namespace));
        return plan;
    }
    let deletions = deletions(namespace, content);
    plan.requeue(if deletions.is_empty() { now.saturating_add(LOOK_AGAIN).unwrap_or(now) } else { now });
    let conditions = conditions(namespace, content, now);
    if conditions != namespace.status.conditions {
        let mut status = namespace.status.clone();
        status.conditions = conditions;
        plan.act(Action::update_status(NAMESPACES, &namespace.metadata, json!(status)));
    }
    for action in deletions {
        plan.act(action);
    }
    plan
}

/// Deletes what is not on its way out yet.
fn deletions(namespace: &Namespace, content: &Content) -> Vec<Action> {
    let has_pods = content.remaining.iter().any(Remaining::is_pods);
    let due = content.remaining.iter().filter(|remaining| !has_pods || remaining.is_pods());
    let mut actions = Vec::new();
    for remaining in due {
        let mut left = remaining.objects.iter().filter(|meta| !meta.is_being_deleted()).peekable();
        let resource = remaining.served.resource;
        if left.peek().is_none() {
            continue;
        }
        if remaining.served.can("deletecollection") {
            let namespace = namespace.metadata.name.clone();
            actions.push(Action::DeleteCollection { resource, namespace });
        } else {
            let options =
                DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
            actions.extend(left.map(|meta| Action::delete_with(resource, meta, options.clone())));
        }
    }
    actions
}

fn finalize(namespace: &Namespace) -> Action {
    let mut spec = namespace.spec.clone();
    spec.finalizers.retain(|finalizer| finalizer != FINALIZER);
    Action::Update {
        resource: NAMESPACES,
        namespace: String::new(),
        name: namespace.metadata.name.clone(),
        subresource: Some("finalize"),
        object: json!({
            "apiVersion": NAMESPACES.api_version(), "kind": NAMESPACES.kind,
            "metadata": namespace.metadata, "spec": spec,
        }),
    }
}

/// One condition per way to be held up, in upstream's words, each either what holds or that nothing does.
fn conditions(namespace: &Namespace, content: &Content, now: Timestamp) -> Vec<Condition> {
    let problem = |text: Option<String>, reason: &'static str| text.map(|message| (reason, message));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            problem(discovery_failure(content), "DiscoveryFailed"),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            problem(content.failure.as_ref().map(deletion_failure), "ContentDeletionFailed"),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            problem(resources_remaining(content), "SomeResourcesRemain"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            problem(finalizers_remaining(content), "SomeFinalizersRemain"),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut conditions = namespace.status.conditions.clone();
    for (kind, problem, (fine_reason, fine_message)) in rows {
        let (status, reason, message) = match problem {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine_reason, fine_message.to_owned()),
        };
        let since = find_condition(&conditions, kind).filter(|c| c.status == status);
        let since = since.map_or(Some(now), |c| c.last_transition_time);
        let condition = Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            last_transition_time: since,
            ..Condition::default()
        };
        match conditions.iter_mut().find(|c| c.kind == kind) {
            Some(present) => *present = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

fn discovery_failure(content: &Content) -> Option<String> {
    let errors = &content.discovery_errors;
    let text = format!("Discovery failed for some groups, {} failing: {}", errors.len(), errors.join(", "));
    (!errors.is_empty()).then_some(text)
}

fn deletion_failure(message: &String) -> String {
    format!("Failed to delete all resource types, 1 remaining: {message}")
}

fn resources_remaining(content: &Content) -> Option<String> {
    let name = |r: &Remaining| {
        let resource = r.served.resource;
        format!("{}.{} has {} resource instances", resource.plural, resource.group, r.count)
    };
    let mut names: Vec<String> = content.remaining.iter().map(name).collect();
    names.sort();
    (!names.is_empty()).then(|| format!("Some resources are remaining: {}", names.join(", ")))
}

fn finalizers_remaining(content: &Content) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in content.remaining.iter().flat_map(|r| &r.objects).flat_map(|meta| &meta.finalizers) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let names: Vec<String> = counts
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let text = format!("Some content in the namespace has finalizers remaining: {}", names.join(", "));
    (!names.is_empty()).then_some(text)
}
