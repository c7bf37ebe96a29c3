//! A decision in the making: working copies of the ReplicaSets and of the status, from which the plan is the difference.

use api::resource::{DEPLOYMENTS, REPLICA_SETS};
use api::view::apps::{Deployment, DeploymentStatus, ReplicaSet};
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::replicas::size;
use super::{revision, template};
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};

pub struct Draft<'a> {
    pub deployment: &'a Deployment,
    pub now: Timestamp,
    /// The ReplicaSet of the Deployment's template, as it is to become; with an empty UID it is to be made.
    pub new: Option<ReplicaSet>,
    /// All others, as they are to become.
    pub old: Vec<ReplicaSet>,
    pub status: DeploymentStatus,
    /// The revision that the Deployment is to be annotated with.
    pub revision: Option<String>,
    /// All of them as they are.
    before: Vec<ReplicaSet>,
    pub plan: Plan,
}

impl<'a> Draft<'a> {
    /// `plan` holds what has been decided before, such as adoptions.
    pub fn new(
        deployment: &'a Deployment,
        replica_sets: Vec<ReplicaSet>,
        plan: Plan,
        now: Timestamp,
    ) -> Self {
        let before = replica_sets.clone();
        let mut old = replica_sets;
        old.sort_by_key(|rs| (rs.metadata.creation_timestamp, rs.metadata.name.clone()));
        let new = template::find_new(deployment, &old).map(|index| old.remove(index));
        let status = deployment.status.clone();
        Draft { deployment, now, new, old, status, revision: None, before, plan }
    }

    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// The size of all ReplicaSets together.
    pub fn total(&self) -> i32 {
        self.all().map(size).sum()
    }

    /// By the status before: nothing but the difference to the old sizes tells whether something was scaled.
    pub fn has_scaled(&self) -> bool {
        self.all().any(|rs| self.former(rs).is_some_and(|before| size(before) != size(rs)))
    }

    fn former(&self, replica_set: &ReplicaSet) -> Option<&ReplicaSet> {
        self.before.iter().find(|before| before.metadata.uid == replica_set.metadata.uid)
    }

    pub fn delete(&mut self, replica_set: &ReplicaSet) {
        self.plan.act(Action::delete(REPLICA_SETS, &replica_set.metadata));
    }

    /// The plan that turns what is into the draft.
    pub fn finish(mut self) -> Plan {
        let all: Vec<ReplicaSet> = self.all().cloned().collect();
        for replica_set in &all {
            let step = match self.former(replica_set) {
                None => Some(self.creation(replica_set)),
                Some(before) => self.change(before, replica_set),
            };
            self.plan.steps.extend(step);
        }
        self.finish_status();
        self.plan
    }

    fn creation(&self, replica_set: &ReplicaSet) -> Step {
        let regarding = reference(DEPLOYMENTS, &self.deployment.metadata);
        let name = &replica_set.metadata.name;
        let message = format!("Failed to create new replica set {name:?}: {ERROR}");
        Step {
            action: Action::create(
                REPLICA_SETS,
                &replica_set.metadata.namespace,
                template::to_object(replica_set),
            ),
            done: self.scaled(name, 0, size(replica_set)),
            failed: Some(Event::warning(regarding, "ReplicaSetCreateError", message)),
        }
    }

    fn change(&self, before: &ReplicaSet, after: &ReplicaSet) -> Option<Step> {
        let mut spec = json!({});
        if size(before) != size(after) {
            spec["replicas"] = size(after).into();
        }
        if before.spec.min_ready_seconds != after.spec.min_ready_seconds {
            spec["minReadySeconds"] = after.spec.min_ready_seconds.into();
        }
        let mut patch = json!({});
        if spec != json!({}) {
            patch["spec"] = spec;
        }
        if before.metadata.annotations != after.metadata.annotations {
            patch["metadata"] = json!({"annotations": after.metadata.annotations});
        }
        (patch != json!({})).then(|| Step {
            action: Action::patch(REPLICA_SETS, &before.metadata, patch),
            done: self.scaled(&after.metadata.name, size(before), size(after)),
            failed: None,
        })
    }

    fn scaled(&self, name: &str, from: i32, to: i32) -> Option<Event> {
        let direction = match from.cmp(&to) {
            std::cmp::Ordering::Less => "up",
            std::cmp::Ordering::Greater => "down",
            std::cmp::Ordering::Equal => return None,
        };
        let regarding = reference(DEPLOYMENTS, &self.deployment.metadata);
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        Some(Event::normal(regarding, "ScalingReplicaSet", message))
    }

    /// A status update also carries the annotation of the revision, as upstream's does.
    fn finish_status(&mut self) {
        let mut meta = self.deployment.metadata.clone();
        if let Some(revision) = self.revision.take() {
            meta.annotations.insert(revision::REVISION.into(), revision);
        }
        let status: Value = apimachinery::to_value(&self.status).expect("a status encodes");
        if self.status != self.deployment.status || meta.annotations != self.deployment.metadata.annotations {
            self.plan.act(Action::update_status(DEPLOYMENTS, &meta, status));
        }
    }
}
