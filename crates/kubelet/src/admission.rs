//! Whether this node takes a pod that was bound to it, whoever bound it (follows the kubelet's `PodAdmitHandler`s).
//!
//! A pod is judged once, when it comes; one that this node has accepted before stays, as the scheduler's later
//! opinion of it does not matter here.

mod predicates;
mod pressure;
mod security;
mod sysctl;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::NODES;
use api::view::core::{Node, Pod};
use client::Informer;

pub use predicates::{Claim, Room};
pub use sysctl::{Allowlist, PatternError};

use crate::pod::memory::Failure;
use crate::worker::Shared;

/// Why a pod is refused; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
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
        let app_armor = security::app_armor_enabled();
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

    async fn judge(&self, pod: &Pod, claim: &Claim) -> Result<(), Refusal> {
        pressure::admit(pod, &self.shared.pressure.borrow())?;
        self.sysctls.admit(pod)?;
        let name = &self.own.metadata.name;
        let known = self.nodes.get("", name);
        let node = known.as_deref().unwrap_or(&self.own);
        match predicates::admit(pod, claim, node, self.claims.values(), &self.room) {
            // The scheduler may have seen a younger node.
            Err(refusal) if refusal.reason == predicates::NODE_AFFINITY => {
                let node: Node = self.shared.client.get(NODES, "", name).await.map_err(|_| refusal)?;
                predicates::admit(pod, claim, &node, self.claims.values(), &self.room)?;
            }
            other => other?,
        }
        security::admit(pod, self.app_armor)?;
        if *self.shared.shutting_down.borrow() {
            return Err(Refusal::new("NodeShutdown", "Pod was rejected as the node is shutting down."));
        }
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
