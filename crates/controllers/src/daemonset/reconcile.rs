//! From a DaemonSet, the nodes and its pods to pods to create and delete, its history, and its status
//! (follows `syncDaemonSet`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::resource::{DAEMON_SETS, PODS};
use api::view::apps::{ControllerRevision, DaemonSet, DaemonSetStatus};
use api::view::core::{Node, Pod, PodSpec};
use jiff::Timestamp;

use super::nodes::{Verdict, bind, spec_of, verdict};
use super::pods::{ByNode, by_node, is_updated};
use super::rollout;
use crate::history::{self, History, REVISION_LABEL};
use crate::ownership::{Claim, adopt, claim, release};
use crate::plan::{Action, ERROR, Event, NAME, Plan, Step, reference};
use crate::podavailability::{self, is_available};
use crate::podtemplate::from_template;

/// Pods made or deleted in one go (upstream: `BurstReplicas`).
const BURST_REPLICAS: usize = 250;

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods it controls, and the namespace's pods without controller.
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    /// All of the namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// The server has confirmed that the DaemonSet is not being deleted.
    pub may_adopt: bool,
    /// Where a failed pod is not replaced yet, and until when.
    pub paused_nodes: HashMap<String, Timestamp>,
}

impl World {
    pub fn has_adoptable(&self, daemon_set: &DaemonSet) -> bool {
        let (meta, selector) = (&daemon_set.metadata, &daemon_set.spec.selector);
        let adoptable = |pod: &Arc<Pod>| claim(meta, selector, &pod.metadata) == Claim::Adopt;
        self.pods.iter().any(adoptable) || history::has_adoptable(meta, selector, &self.revisions)
    }
}

/// What is decided about one DaemonSet at one time.
struct Sync<'a> {
    daemon_set: &'a DaemonSet,
    world: &'a World,
    now: Timestamp,
    spec: PodSpec,
    pods: ByNode,
    hash: String,
    plan: Plan,
}

pub fn reconcile(daemon_set: &DaemonSet, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let selector = &daemon_set.spec.selector;
    if selector.is_empty() {
        let regarding = reference(DAEMON_SETS, &daemon_set.metadata);
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        plan.events.push(Event::warning(regarding, "SelectingAll", message));
        return plan;
    }
    if daemon_set.metadata.is_being_deleted() {
        return plan;
    }
    let owner = history::Owner {
        resource: DAEMON_SETS,
        meta: &daemon_set.metadata,
        selector,
        template: &daemon_set.spec.template,
        collision_count: daemon_set.status.collision_count,
    };
    let history = history::sync(owner, &world.revisions, world.may_adopt, &mut plan);
    let pods = by_node(claim_pods(daemon_set, world, &mut plan));
    let hash = history::hash_of(&history.update).to_owned();
    let spec = spec_of(&daemon_set.spec.template);
    let mut sync = Sync { daemon_set, world, now, spec, pods, hash, plan };
    if history.collision_count == daemon_set.status.collision_count {
        let before = sync.plan.steps.len();
        sync.manage();
        if sync.plan.steps.len() == before && rollout::is_rolling(daemon_set) {
            sync.roll_out();
        }
        sync.clean_up(&history);
    }
    sync.update_status(&history);
    sync.plan
}

fn claim_pods(daemon_set: &DaemonSet, world: &World, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let owner = &daemon_set.metadata;
    let mut claimed = Vec::new();
    for pod in &world.pods {
        match claim(owner, &daemon_set.spec.selector, &pod.metadata) {
            Claim::Keep => claimed.push(pod.clone()),
            Claim::Adopt if world.may_adopt => {
                plan.act(adopt((DAEMON_SETS, owner), (PODS, &pod.metadata)));
                claimed.push(pod.clone());
            }
            Claim::Release => plan.act(release(owner, (PODS, &pod.metadata))),
            Claim::Adopt | Claim::Ignore => {}
        }
    }
    claimed
}

impl Sync<'_> {
    fn verdict(&self, node: &Node) -> Verdict {
        verdict(&self.spec, node)
    }

    fn should_run(&self) -> BTreeSet<&str> {
        let nodes = self.world.nodes.iter().filter(|node| self.verdict(node).should_run);
        nodes.map(|node| node.metadata.name.as_str()).collect()
    }

    fn pods_on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    /// One pod on each node that should have one, none elsewhere (upstream: `manage`).
    fn manage(&mut self) {
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for node in &self.world.nodes {
            let name = &node.metadata.name;
            let verdict = self.verdict(node);
            let pods = self.pods_on(name).to_vec();
            if verdict.should_run && pods.is_empty() {
                create.push(name.clone());
            } else if verdict.may_stay {
                delete.extend(self.too_many(name, pods));
            } else {
                delete.extend(pods.into_iter().filter(|pod| !pod.metadata.is_being_deleted()));
            }
        }
        delete.extend(self.without_node());
        self.write(create, delete);
    }

    /// Ended pods, and all but the oldest of the others (upstream: `podsShouldBeOnNode`).
    fn too_many(&mut self, node: &str, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let mut delete = Vec::new();
        let mut running = Vec::new();
        for pod in pods.into_iter().filter(|pod| !pod.metadata.is_being_deleted()) {
            match pod.status.phase.as_str() {
                "Failed" => match self.world.paused_nodes.get(node) {
                    Some(until) => self.plan.requeue(*until),
                    None => {
                        let text = "Found failed daemon pod";
                        self.tell_ended("FailedDaemonPod", text, &pod, node, true);
                        delete.push(pod);
                    }
                },
                "Succeeded" => {
                    let text = "Found succeeded daemon pod";
                    self.tell_ended("SucceededDaemonPod", text, &pod, node, false);
                    delete.push(pod);
                }
                _ => running.push(pod),
            }
        }
        let surges = rollout::bounds(self.daemon_set, self.world.nodes.len()).surge > 0;
        if surges && rollout::is_rolling(self.daemon_set) {
            // During a rollout a node may have one pod of the new template beside one of the old.
            let (new, old): (Vec<_>, Vec<_>) =
                running.into_iter().partition(|pod| is_updated(pod, &self.hash));
            delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
        } else {
            delete.extend(running.into_iter().skip(1));
        }
        delete
    }

    fn tell_ended(&mut self, reason: &'static str, text: &str, pod: &Pod, node: &str, warn: bool) {
        let regarding = reference(DAEMON_SETS, &self.daemon_set.metadata);
        let meta = &pod.metadata;
        let message = format!("{text} {}/{} on node {node}, will try to kill it", meta.namespace, meta.name);
        let event = if warn { Event::warning } else { Event::normal };
        self.plan.events.push(event(regarding, reason, message));
    }

    /// Pods that wait for a node that has gone.
    fn without_node(&self) -> Vec<Arc<Pod>> {
        let known: BTreeSet<&str> = self.world.nodes.iter().map(|node| node.metadata.name.as_str()).collect();
        let waiting = self.pods.iter().filter(|(node, _)| !known.contains(node.as_str()));
        let pods = waiting.flat_map(|(_, pods)| pods).filter(|pod| pod.spec.node_name.is_empty());
        pods.filter(|pod| !pod.metadata.is_being_deleted()).cloned().collect()
    }

    fn roll_out(&mut self) {
        let nodes = self.should_run();
        let progress = rollout::progress(self.daemon_set, &nodes, &self.pods, &self.hash, self.now);
        self.write(progress.create, progress.delete);
    }

    fn write(&mut self, mut create: Vec<String>, mut delete: Vec<Arc<Pod>>) {
        create.truncate(BURST_REPLICAS);
        delete.truncate(BURST_REPLICAS);
        for node in &create {
            let step = self.creation(node);
            self.plan.steps.push(step);
        }
        for pod in &delete {
            let step = self.deletion(pod);
            self.plan.steps.push(step);
        }
    }

    fn creation(&self, node: &str) -> Step {
        let meta = &self.daemon_set.metadata;
        let mut pod = from_template(DAEMON_SETS, meta, &self.daemon_set.spec.template);
        pod["metadata"]["labels"][REVISION_LABEL] = self.hash.as_str().into();
        const GENERATION: &str = "deprecated.daemonset.template.generation";
        if let Some(generation) = meta.annotations.get(GENERATION) {
            pod["metadata"]["labels"]["pod-template-generation"] = generation.as_str().into();
        }
        bind(&mut pod, node);
        let regarding = reference(DAEMON_SETS, meta);
        Step {
            action: Action::create(PODS, &meta.namespace, pod),
            done: Some(Event::normal(regarding.clone(), "SuccessfulCreate", format!("Created pod: {NAME}"))),
            failed: Some(Event::warning(regarding, "FailedCreate", format!("Error creating: {ERROR}"))),
        }
    }

    fn deletion(&self, pod: &Pod) -> Step {
        let regarding = reference(DAEMON_SETS, &self.daemon_set.metadata);
        Step {
            action: Action::delete(PODS, &pod.metadata),
            done: Some(Event::normal(regarding.clone(), "SuccessfulDelete", format!("Deleted pod: {NAME}"))),
            failed: Some(Event::warning(regarding, "FailedDelete", format!("Error deleting: {ERROR}"))),
        }
    }

    fn clean_up(&mut self, history: &History) {
        let hashes: BTreeSet<&str> = self
            .pods
            .values()
            .flatten()
            .filter_map(|pod| pod.metadata.labels.get(REVISION_LABEL).map(String::as_str))
            .collect();
        let live = history.revisions.iter().filter(|revision| hashes.contains(history::hash_of(revision)));
        let live: BTreeSet<&str> = live.map(|revision| revision.metadata.name.as_str()).collect();
        history::truncate(history, self.daemon_set.spec.revision_history_limit, &live, &mut self.plan);
    }

    fn update_status(&mut self, history: &History) {
        let old = &self.daemon_set.status;
        let mut status = DaemonSetStatus {
            observed_generation: self.daemon_set.metadata.generation,
            collision_count: history.collision_count,
            conditions: old.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        for node in &self.world.nodes {
            self.count(node, &mut status);
        }
        status.number_unavailable = status.desired_number_scheduled - status.number_available;
        if status != *old {
            let value = apimachinery::to_value(&status).expect("a status encodes");
            self.plan.act(Action::update_status(DAEMON_SETS, &self.daemon_set.metadata, value));
        }
        let pods = self.pods.values().flatten().map(|pod| &**pod);
        if let Some(at) = podavailability::next(pods, self.daemon_set.spec.min_ready_seconds, self.now) {
            self.plan.requeue(at);
        }
    }

    fn count(&self, node: &Node, status: &mut DaemonSetStatus) {
        let pods = self.pods_on(&node.metadata.name);
        if !self.verdict(node).should_run {
            status.number_misscheduled += i32::from(!pods.is_empty());
            return;
        }
        status.desired_number_scheduled += 1;
        let Some(oldest) = pods.first() else { return };
        status.current_number_scheduled += 1;
        if oldest.is_ready() {
            status.number_ready += 1;
            let min_ready_seconds = self.daemon_set.spec.min_ready_seconds;
            status.number_available += i32::from(is_available(oldest, min_ready_seconds, self.now));
        }
        status.updated_number_scheduled += i32::from(is_updated(oldest, &self.hash));
    }
}
