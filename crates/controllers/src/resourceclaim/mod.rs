//! Makes the claims that pods ask for by template, and gives back devices that nobody uses any more (follows upstream's
//! `pkg/controller/resourceclaim`).

mod claim;
mod pod;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use api::resource::{PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS};
use api::view::Object;
use api::view::core::Pod;
use api::view::dynamicresource::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate, claim_name,
};
use apimachinery::meta::ObjectMeta;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::ownership::{CONTROLLER, controller_index};
use crate::plan::Plan;

/// Indexes of pods by what they name in their own namespace.
const BY_CLAIM: &str = "resourceclaim";
const BY_TEMPLATE: &str = "resourceclaimtemplate";

struct ResourceClaims {
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    /// Claims, by uid, whose allocation was taken back and whose finalizer is to follow. A claim that only lacks an
    /// allocation keeps it: the scheduler may be about to write one.
    released: Mutex<HashSet<String>>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let (pods, claims) = (informers.get::<Pod>(), informers.get::<ResourceClaim>());
    index_by_claim(&pods);
    pods.add_index(BY_TEMPLATE, |pod| {
        let templates = pod.spec.resource_claims.iter();
        let templates: Vec<_> = templates.filter_map(|c| c.resource_claim_template_name.clone()).collect();
        named(pod, &templates)
    });
    claims.add_index(CONTROLLER, |claim| controller_index(&claim.metadata));
    Box::new(ResourceClaims { pods, claims, templates: informers.get(), released: Mutex::default() })
}

/// Lets pods be found by the claims that they name.
pub fn index_by_claim(pods: &Informer<Pod>) {
    pods.add_index(BY_CLAIM, |pod| named(pod, &claims_of(pod)));
}

/// The pods that name this claim.
pub fn users_of(pods: &Informer<Pod>, claim: &ObjectMeta) -> Vec<Arc<Pod>> {
    pods.by_index(BY_CLAIM, &place(&claim.namespace, &claim.name))
}

#[async_trait]
impl Controller for ResourceClaims {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PODS, &self.pods, |delta| {
            let mut keys = pod_keys(delta.object(), matches!(delta, Delta::Deleted(_)));
            if let Delta::Updated { old, new } = delta
                && old.metadata.uid != new.metadata.uid
            {
                keys.extend(pod_keys(old, true));
            }
            keys
        });
        let pods = self.pods.clone();
        watches.on(RESOURCE_CLAIMS, &self.claims, move |delta| {
            let meta = delta.object().meta();
            let mut keys: Vec<Key> = users_of(&pods, meta).iter().map(|pod| pod_key(pod)).collect();
            if let Some(owner) = claim::owning_pod(delta.object()) {
                keys.push(Subject::Pod(owner.name.clone()).key(&meta.namespace));
            }
            if !matches!(delta, Delta::Deleted(_)) {
                keys.push(Subject::Claim(meta.name.clone()).key(&meta.namespace));
            }
            keys
        });
        let pods = self.pods.clone();
        watches.on(RESOURCE_CLAIM_TEMPLATES, &self.templates, move |delta| {
            let meta = delta.object().meta();
            pods.by_index(BY_TEMPLATE, &place(&meta.namespace, &meta.name))
                .iter()
                .map(|pod| pod_key(pod))
                .collect()
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        match Subject::of(key) {
            Subject::Pod(name) => Ok(self.reconcile_pod(&key.namespace, &name)),
            Subject::Claim(name) => self.reconcile_claim(&key.namespace, &name, client).await,
        }
    }
}

impl ResourceClaims {
    fn reconcile_pod(&self, namespace: &str, name: &str) -> Plan {
        let Some(pod) = self.pods.get(namespace, name) else { return Plan::default() };
        pod::reconcile(
            &pod,
            &pod::World {
                claim: &|name| self.claims.get(namespace, name),
                made: self.claims.by_index(CONTROLLER, &pod.metadata.uid),
                template: &|name| self.templates.get(namespace, name),
            },
        )
    }

    async fn reconcile_claim(
        &self,
        namespace: &str,
        name: &str,
        client: &Client,
    ) -> client::error::Result<Plan> {
        let Some(claim) = self.claims.get(namespace, name) else { return Ok(Plan::default()) };
        let mut world = claim::World { owner: None, consumers: Vec::new(), is_released: false };
        for consumer in &claim.status.reserved_for {
            if self.is_used_by(namespace, consumer, client).await? {
                world.consumers.push(consumer.clone());
            }
        }
        if let Some(owner) = claim::owning_pod(&claim) {
            world.owner = self.pods.get(namespace, &owner.name);
        }
        world.is_released = self.released.lock().remove(&claim.metadata.uid);
        let (plan, releases) = claim::reconcile(&claim, &world);
        if releases {
            self.released.lock().insert(claim.metadata.uid.clone());
        }
        Ok(plan)
    }

    /// What is no pod may use it for ever, as far as is known here.
    async fn is_used_by(
        &self,
        namespace: &str,
        consumer: &ResourceClaimConsumerReference,
        client: &Client,
    ) -> client::error::Result<bool> {
        if !consumer.is_pod() {
            return Ok(true);
        }
        let pod = match self.pods.get(namespace, &consumer.name) {
            Some(pod) => Some(pod),
            // It may not have reached the cache yet: only the server can tell that there is none.
            None => match client.get::<Pod>(PODS, namespace, &consumer.name).await {
                Ok(pod) => Some(Arc::new(pod)),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            },
        };
        Ok(pod.is_some_and(|pod| pod.metadata.uid == consumer.uid && !is_done(&pod)))
    }
}

/// What a key is about: both pods and claims have their turn.
enum Subject {
    Pod(String),
    Claim(String),
}

const POD: &str = "pod:";
const CLAIM: &str = "claim:";

impl Subject {
    fn key(&self, namespace: &str) -> Key {
        let name = match self {
            Subject::Pod(name) => format!("{POD}{name}"),
            Subject::Claim(name) => format!("{CLAIM}{name}"),
        };
        Key::new(namespace, name)
    }

    fn of(key: &Key) -> Subject {
        match key.name.strip_prefix(POD) {
            Some(name) => Subject::Pod(name.to_owned()),
            None => Subject::Claim(key.name.trim_start_matches(CLAIM).to_owned()),
        }
    }
}

/// A pod that may run needs its claims; of one that will not, the claims have their turn.
fn pod_keys(pod: &Pod, is_gone: bool) -> Vec<Key> {
    let namespace = &pod.metadata.namespace;
    if is_gone || is_done(pod) {
        claims_of(pod).into_iter().map(|name| Subject::Claim(name).key(namespace)).collect()
    } else if pod.spec.resource_claims.is_empty() {
        Vec::new()
    } else {
        vec![pod_key(pod)]
    }
}

fn pod_key(pod: &Pod) -> Key {
    Subject::Pod(pod.metadata.name.clone()).key(&pod.metadata.namespace)
}

/// Whether it has run, or will not run any more (upstream: `isPodDone`).
fn is_done(pod: &Pod) -> bool {
    pod.is_terminal() || (pod.metadata.is_being_deleted() && pod.spec.node_name.is_empty())
}

/// The names of its claims, as far as they are known, that for its extended resources included.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let names = pod.spec.resource_claims.iter().filter_map(|claim| claim_name(pod, claim).ok().flatten());
    let extended = pod.status.extended_resource_claim_status.as_ref();
    let extended = extended.map(|extended| extended.resource_claim_name.as_str());
    names.chain(extended).map(str::to_owned).collect()
}

fn named(pod: &Pod, names: &[String]) -> Vec<String> {
    names.iter().map(|name| place(&pod.metadata.namespace, name)).collect()
}

fn place(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
