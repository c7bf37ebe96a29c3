//! Who owns whom, by UID (follows upstream's `GraphBuilder`).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use api::resource::Resource;
use api::view::PartialObject;
use apimachinery::meta::{ObjectMeta, OwnerReference};
use client::Delta;

use super::reconcile::{OwnerState, is_orphaning, is_waiting};

/// Owners remembered as gone, so that the dependents of one owner do not each ask for it (upstream:
/// `NewReferenceCache(500)`).
const GONE_MAX: usize = 500;

#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Resource,
    pub object: Arc<PartialObject>,
}

impl Node {
    pub fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }
}

/// An owner as a reference in some namespace names it. Not the UID alone: who refers to another's UID under a false name,
/// or from another namespace, would have the true dependents deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// Empty for what is not namespaced.
    namespace: String,
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

impl Coordinates {
    pub fn new(owner: &OwnerReference, namespace: &str) -> Self {
        Coordinates {
            namespace: namespace.to_owned(),
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }
    }

    fn of(node: &Node) -> Self {
        Coordinates {
            namespace: node.meta().namespace.clone(),
            api_version: node.resource.api_version(),
            kind: node.resource.kind.to_owned(),
            name: node.meta().name.clone(),
            uid: node.meta().uid.clone(),
        }
    }
}

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// An owner's UID to those of its dependents, whether the owner is known or not.
    dependents: HashMap<String, BTreeSet<String>>,
    gone: HashSet<Coordinates>,
    /// `gone`, oldest first.
    gone_order: VecDeque<Coordinates>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid)).cloned().collect()
    }

    /// Takes a change in; returns the UIDs about which it may matter.
    pub fn apply(&mut self, resource: Resource, delta: &Delta<PartialObject>) -> Vec<String> {
        match delta {
            Delta::Added(new) | Delta::Updated { new, .. } => {
                self.set(Node { resource, object: new.clone() })
            }
            Delta::Deleted(last) => self.remove(&last.metadata.uid),
        }
    }

    fn set(&mut self, node: Node) -> Vec<String> {
        let uid = node.meta().uid.clone();
        let mut concerned = vec![uid.clone()];
        concerned.extend(self.unlink(&uid));
        for owner in &node.meta().owner_references {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        concerned.extend(self.waiting_owners(node.meta()));
        if is_waiting(node.meta()) {
            concerned.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        self.nodes.insert(uid, node);
        concerned
    }

    fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut concerned: Vec<String> = self.unlink(uid);
        concerned.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        if let Some(node) = self.nodes.remove(uid)
            && self.dependents.contains_key(uid)
        {
            self.note_gone(Coordinates::of(&node));
        }
        concerned
    }

    /// Takes a node's references out; returns the owners that wait for such.
    fn unlink(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.get(uid).cloned() else { return Vec::new() };
        for owner in &node.meta().owner_references {
            if let Some(uids) = self.dependents.get_mut(&owner.uid) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        self.waiting_owners(node.meta())
    }

    fn waiting_owners(&self, meta: &ObjectMeta) -> Vec<String> {
        let waits = |uid: &String| {
            self.nodes.get(uid).is_some_and(|owner| is_waiting(owner.meta()) || is_orphaning(owner.meta()))
        };
        meta.owner_references.iter().map(|owner| owner.uid.clone()).filter(waits).collect()
    }

    /// A UID never comes back.
    pub fn note_gone(&mut self, owner: Coordinates) {
        if self.gone.insert(owner.clone()) {
            self.gone_order.push_back(owner);
        }
        if self.gone_order.len() > GONE_MAX
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// What the graph knows of an owner. One that stands elsewhere than the reference says is no owner, but only the
    /// server can say so for certain.
    pub fn owner_state(&self, node: &Node, owner: &OwnerReference) -> OwnerState {
        let namespaces = ["", node.meta().namespace.as_str()];
        if namespaces.iter().any(|namespace| self.gone.contains(&Coordinates::new(owner, namespace))) {
            return OwnerState::Dangling;
        }
        let Some(found) = self.nodes.get(&owner.uid) else { return OwnerState::Unseen };
        let meta = found.meta();
        let is_reachable = meta.namespace.is_empty() || meta.namespace == node.meta().namespace;
        if !is_reachable || meta.name != owner.name || found.resource.kind != owner.kind {
            return OwnerState::Unseen;
        }
        if is_waiting(meta) { OwnerState::Waiting } else { OwnerState::Solid }
    }
}
