//! Whether this node takes a pod that was bound to it, whoever bound it (follows the kubelet's `PodAdmitHandler`s).
//!
//! A pod is judged once, when it comes; one that this node has accepted before stays, as the scheduler's later
//! opinion of it does not matter here.

mod predicates;
mod preemption;
mod pressure;
mod security;
mod sysctl;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::core::pod::resources::qos_class;
use api::resource::NODES;
use api::view::core::{Node, Pod};
use apimachinery::json;
use client::Informer;
use client::event::EventType;

pub use predicates::{Claim, Room};
pub use sysctl::{Allowlist, PatternError};

use crate::active::Active;
use crate::eviction::is_critical;
use crate::pod::memory::Failure;
use crate::worker::{PodEvents, Shared};
use preemption::{Candidate, Qos};

/// Why a pod is refused; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal { reason: reason.into(), message: message.into() }
    }

    /// As the status of a refused pod words it.
    pub fn told(&self) -> Failure {
        let message = format!("Pod was rejected: {}", self.message);
        Failure { reason: self.reason.clone(), message, ..Default::default() }
    }
}

/// Judges pods, and knows those it let in.
pub struct Gate {
    shared: Arc<Shared>,
    nodes: Informer<Node>,
    /// The node as it knows itself, until the API tells.
    own: Node,
    room: Room,
    sysctls: Allowlist,
    /// Whether the kernel enforces AppArmor profiles.
    app_armor: bool,
    /// By pod uid; a pod that ended claims nothing.
    claims: HashMap<String, Claim>,
}

impl Gate {
    pub fn new(
        shared: Arc<Shared>,
        nodes: Informer<Node>,
        own: Node,
        room: Room,
        sysctls: Allowlist,
    ) -> Self {
        let app_armor = runtime::apparmor::is_enabled();
        Gate { shared, nodes, own, room, sysctls, app_armor, claims: HashMap::new() }
    }

    /// Lets a new pod in, if it can be beside those that are here.
    pub async fn admit(&mut self, pod: &Pod) -> Result<(), Refusal> {
        if pod.is_terminal() || pod.metadata.is_being_deleted() {
            return Ok(());
        }
        let claim = Claim::of(pod);
        if pod.status.start_time.is_none() {
            self.judge(pod, &claim).await?;
        }
        self.claims.insert(pod.metadata.uid.clone(), claim);
        Ok(())
    }

    async fn judge(&mut self, pod: &Pod, claim: &Claim) -> Result<(), Refusal> {
        pressure::admit(pod, &self.shared.pressure.borrow())?;
        self.sysctls.admit(pod)?;
        let name = self.own.metadata.name.clone();
        let known = self.nodes.get("", &name);
        let node = known.as_deref().unwrap_or(&self.own).clone();
        let node = &node;
        if is_critical(pod) {
            self.make_room(pod, claim, node).await?;
        }
        match predicates::admit(pod, claim, node, self.claims.values(), &self.room) {
            // The scheduler may have seen a younger node.
            Err(refusal) if refusal.reason == predicates::NODE_AFFINITY => {
                let node: Node = self.shared.client.get(NODES, "", &name).await.map_err(|_| refusal)?;
                predicates::admit(pod, claim, &node, self.claims.values(), &self.room)?;
            }
            other => other?,
        }
        security::admit(pod, self.app_armor)?;
        if *self.shared.shutting_down.borrow() {
            return Err(Refusal::new("NodeShutdown", "Pod was rejected as the node is shutting down."));
        }
        // The last word: what is given here is the pod's from now on.
        self.shared.containers.admit(pod).await
    }

    /// Ends pods that a critical one needs the room of, and returns when they have ended. Where only room is lacking it
    /// is let in; pods that have not ended in time will have soon.
    async fn make_room(&mut self, pod: &Pod, claim: &Claim, node: &Node) -> Result<(), Refusal> {
        let lacking = predicates::lacking(pod, claim, node, self.claims.values(), &self.room);
        let lacking = match lacking {
            // What else speaks against the pod is said by who admits it.
            Err(_) => return Ok(()),
            Ok(lacking) if lacking.is_empty() => return Ok(()),
            Ok(lacking) => lacking,
        };
        let active: Vec<Active> =
            self.shared.active.list().into_iter().filter(|of| makes_way(pod, &of.pod)).collect();
        let candidate = |active: &'_ Active| {
            let (uid, claim) = self.claims.get_key_value(&active.pod.metadata.uid)?;
            Some(Candidate { uid, qos: qos(&active.pod), claim })
        };
        let candidates: Vec<Candidate<'_>> = active.iter().filter_map(candidate).collect();
        let victims = preemption::victims(&candidates, &lacking).map_err(|why| {
            let message = format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: {why}"
            );
            Refusal::new("UnexpectedAdmissionError", message)
        })?;
        let victims: Vec<&Active> =
            active.iter().filter(|active| victims.contains(&active.pod.metadata.uid)).collect();
        for victim in &victims {
            self.shared.metrics.preempted(&lacking[0].resource);
            self.claims.remove(&victim.pod.metadata.uid);
        }
        preempt(&self.shared, &victims).await;
        Ok(())
    }

    /// A pod that is known here has changed.
    pub fn update(&mut self, pod: &Pod) {
        if pod.is_terminal() {
            self.claims.remove(&pod.metadata.uid);
        } else if let Some(claim) = self.claims.get_mut(&pod.metadata.uid) {
            *claim = Claim::of(pod);
        }
    }

    pub fn release(&mut self, uid: &str) {
        self.claims.remove(uid);
    }
}

/// Whether one pod may take the room of another (upstream: `Preemptable`).
fn makes_way(of: &Pod, other: &Pod) -> bool {
    !is_critical(other) || of.spec.priority.zip(other.spec.priority).is_some_and(|(own, other)| own > other)
}

fn qos(pod: &Pod) -> Qos {
    match qos_class(&json!({"spec": pod.spec})) {
        "BestEffort" => Qos::BestEffort,
        "Burstable" => Qos::Burstable,
        _ => Qos::Guaranteed,
    }
}

/// The least that pods get to end before the node goes on without waiting (upstream: `killPodNow`).
const END_TIMEOUT_MIN: Duration = Duration::from_secs(10);

async fn preempt(shared: &Shared, victims: &[&Active]) {
    let mut timeout = END_TIMEOUT_MIN;
    for victim in victims {
        let pod = &victim.pod;
        tracing::info!(pod = %pod.metadata.namespaced_name(), "preempting a pod to make room for a critical one");
        PodEvents { recorder: &shared.recorder, pod }.pod(
            EventType::Warning,
            preemption::REASON,
            preemption::MESSAGE.to_owned(),
        );
        let seconds = u64::try_from(crate::pod::grace_period_seconds(pod)).unwrap_or(0);
        timeout = timeout.max(Duration::from_secs(seconds) * 3 / 2);
        victim.end(Failure {
            reason: preemption::REASON.to_owned(),
            message: preemption::MESSAGE.to_owned(),
            grace_seconds: None,
            disruption: Some(preemption::DISRUPTION.to_owned()),
        });
    }
    let ended = async {
        for victim in victims {
            victim.ended().await;
        }
    };
    if tokio::time::timeout(timeout, ended).await.is_err() {
        tracing::warn!("preempted pods have not ended yet");
    }
}
