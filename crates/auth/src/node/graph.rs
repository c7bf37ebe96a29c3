//! Which node needs which object, kept up to date object by object (upstream: `plugin/pkg/auth/authorizer/node.Graph`).
//!
//! The ways to a node are few and short: from what a pod uses, over the pod; from a volume, over the claim it is bound
//! to; from a volume's secret, over that volume; from what names its node itself. So each has an index of its own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::Value;
use apimachinery::meta::str_at;

use super::references::{self, NamespacedName};

/// A resource, and which object of it.
type Object = (&'static str, NamespacedName);

/// A pod that is bound to a node.
struct BoundPod {
    node: Arc<str>,
    uses: HashSet<references::Use>,
}

/// A volume that is bound to a claim.
struct BoundVolume {
    claim: NamespacedName,
    secrets: HashSet<NamespacedName>,
}

#[derive(Default)]
pub struct Graph {
    pods: HashMap<NamespacedName, BoundPod>,
    /// Per object that pods use: how many pods of each node.
    users: HashMap<Object, HashMap<Arc<str>, usize>>,
    volumes: HashMap<Box<str>, BoundVolume>,
    /// Per secret that volumes name: which volumes.
    secrets: HashMap<NamespacedName, HashSet<Box<str>>>,
    /// What names its node itself: attachments of volumes and slices of devices.
    owned: HashMap<(&'static str, Box<str>), Arc<str>>,
}

impl Graph {
    /// Takes in an object, new or changed; kinds that lead to no node are skipped.
    pub fn apply(&mut self, object: &Value) {
        self.remove(object);
        match str_at(object, &["kind"]) {
            "Pod" => self.add_pod(object),
            "PersistentVolume" => self.add_volume(object),
            kind => self.add_owned(kind, object),
        }
    }

    /// Forgets a deleted object.
    pub fn remove(&mut self, object: &Value) {
        match str_at(object, &["kind"]) {
            "Pod" => self.remove_pod(object),
            "PersistentVolume" => self.remove_volume(name_of(object)),
            kind => {
                if let Some(resource) = owned_resource(kind) {
                    self.owned.remove(&(resource, Box::from(name_of(object))));
                }
            }
        }
    }

    /// Whether an object leads to the node.
    pub fn leads_to(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let key = || -> NamespacedName { (namespace.into(), name.into()) };
        match resource {
            "pods" => self.pods.get(&key()).is_some_and(|pod| *pod.node == *node),
            "persistentvolumes" => self.volume_leads_to(node, name),
            "secrets" => self.is_used(node, "secrets", key()) || self.secret_leads_to(node, &key()),
            "volumeattachments" => self.owner_is(node, "volumeattachments", name),
            "resourceslices" => self.owner_is(node, "resourceslices", name),
            _ => references::used_resource(resource).is_some_and(|used| self.is_used(node, used, key())),
        }
    }

    fn is_used(&self, node: &str, resource: &'static str, key: NamespacedName) -> bool {
        self.users.get(&(resource, key)).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_leads_to(&self, node: &str, name: &str) -> bool {
        let claim = self.volumes.get(name).map(|volume| volume.claim.clone());
        claim.is_some_and(|claim| self.is_used(node, references::CLAIMS, claim))
    }

    fn secret_leads_to(&self, node: &str, secret: &NamespacedName) -> bool {
        let volumes = self.secrets.get(secret).into_iter().flatten();
        volumes.into_iter().any(|volume| self.volume_leads_to(node, volume))
    }

    fn owner_is(&self, node: &str, resource: &'static str, name: &str) -> bool {
        self.owned.get(&(resource, Box::from(name))).is_some_and(|owner| **owner == *node)
    }

    fn add_pod(&mut self, pod: &Value) {
        let node = str_at(pod, &["spec", "nodeName"]);
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        let uses = references::of_pod(pod);
        for (resource, name) in &uses {
            let key = (*resource, (Box::from(namespace_of(pod)), name.clone()));
            *self.users.entry(key).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(key_of(pod), BoundPod { node, uses });
    }

    fn remove_pod(&mut self, pod: &Value) {
        let Some(BoundPod { node, uses }) = self.pods.remove(&key_of(pod)) else { return };
        for (resource, name) in uses {
            let key = (resource, (Box::from(namespace_of(pod)), name));
            let Some(nodes) = self.users.get_mut(&key) else { continue };
            let count = nodes.get_mut(&node).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if count == 0 {
                nodes.remove(&node);
            }
            if nodes.is_empty() {
                self.users.remove(&key);
            }
        }
    }

    fn add_volume(&mut self, volume: &Value) {
        if volume["spec"]["claimRef"].is_null() {
            return;
        }
        let claim = |field| Box::from(str_at(volume, &["spec", "claimRef", field]));
        let name: Box<str> = name_of(volume).into();
        let secrets = references::secrets_of_volume(volume);
        for secret in &secrets {
            self.secrets.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name, BoundVolume { claim: (claim("namespace"), claim("name")), secrets });
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in volume.secrets {
            let Some(volumes) = self.secrets.get_mut(&secret) else { continue };
            volumes.remove(name);
            if volumes.is_empty() {
                self.secrets.remove(&secret);
            }
        }
    }

    fn add_owned(&mut self, kind: &str, object: &Value) {
        let node = str_at(object, &["spec", "nodeName"]);
        if let Some(resource) = owned_resource(kind).filter(|_| !node.is_empty()) {
            self.owned.insert((resource, name_of(object).into()), node.into());
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.users.is_empty()
            && self.volumes.is_empty()
            && self.secrets.is_empty()
            && self.owned.is_empty()
    }
}

/// The resource of a kind whose objects name their node.
fn owned_resource(kind: &str) -> Option<&'static str> {
    match kind {
        "VolumeAttachment" => Some("volumeattachments"),
        "ResourceSlice" => Some("resourceslices"),
        _ => None,
    }
}

fn namespace_of(object: &Value) -> &str {
    str_at(object, &["metadata", "namespace"])
}

fn name_of(object: &Value) -> &str {
    str_at(object, &["metadata", "name"])
}

fn key_of(object: &Value) -> NamespacedName {
    (namespace_of(object).into(), name_of(object).into())
}
