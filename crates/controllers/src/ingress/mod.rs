//! What becomes of an Ingress of the built-in class in the API: the nodes' addresses in its status, and a warning for
//! each thing that it names and that is not there. It also makes the class `cox` when it starts. What takes the traffic
//! is the crate `ingress`, on every node.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use api::resource::{INGRESS_CLASSES, INGRESSES, NODES, SERVICES};
use api::view::core::{Node, Secret, Service};
use api::view::networking::{Ingress, IngressClass};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers, NamedInformers};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::serviceloadbalancer::announces;

use reconcile::{CLASS_NAME, World, is_ours, named_secrets, named_services, new_class, reconcile};

/// Ingresses by what they name, as `NAMESPACE/NAME`.
const BY_SERVICE: &str = "ingress/service";
const BY_SECRET: &str = "ingress/secret";

struct IngressController {
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    services: Informer<Service>,
    secrets: NamedInformers<Secret>,
    /// Taken by the task that watches it.
    secret_changes: Mutex<Option<UnboundedReceiver<Key>>>,
    nodes: Informer<Node>,
    /// What each Ingress has been warned of, so that it is warned once.
    warned: Mutex<HashMap<Key, BTreeSet<String>>>,
}

pub fn new(_: &Config, informers: &Informers, client: &Client) -> Box<dyn Controller> {
    let ingresses: Informer<Ingress> = informers.get();
    ingresses.add_index(BY_SERVICE, |ingress| named_services(ingress).iter().map(Key::to_string).collect());
    ingresses.add_index(BY_SECRET, |ingress| named_secrets(ingress).iter().map(Key::to_string).collect());
    let (secrets, secret_changes) = NamedInformers::new(client.clone());
    Box::new(IngressController {
        ingresses,
        classes: informers.get(),
        services: informers.get(),
        secrets,
        secret_changes: Mutex::new(Some(secret_changes)),
        nodes: informers.get(),
        warned: Mutex::default(),
    })
}

/// Stands for the class; Ingresses have a namespace.
fn class_key() -> Key {
    Key::new("", CLASS_NAME)
}

fn all(ingresses: &Informer<Ingress>) -> Vec<Key> {
    ingresses.list().iter().map(|ingress| ingress.metadata.namespaced_name()).collect()
}

fn naming(ingresses: &Informer<Ingress>, index: &'static str, named: &Key) -> Vec<Key> {
    let found = ingresses.by_index(index, &named.to_string());
    found.iter().map(|ingress| ingress.metadata.namespaced_name()).collect()
}

impl IngressController {
    /// Only the Secrets that are needed are read.
    fn ours_secrets(&self) -> BTreeSet<Key> {
        let classes = self.classes.list();
        let ingresses = self.ingresses.list();
        let ours = ingresses.iter().filter(|ingress| is_ours(ingress, &classes));
        ours.flat_map(|ingress| named_secrets(ingress)).collect()
    }
}

#[async_trait]
impl Controller for IngressController {
    fn watch(&self, watches: &mut Watches) {
        watches.on(INGRESSES, &self.ingresses, itself);
        let ingresses = self.ingresses.clone();
        watches.on(INGRESS_CLASSES, &self.classes, move |_| all(&ingresses));
        let ingresses = self.ingresses.clone();
        watches.on(NODES, &self.nodes, move |delta| match delta {
            Delta::Updated { old, new } if announces(old) == announces(new) => Vec::new(),
            _ => all(&ingresses),
        });
        let ingresses = self.ingresses.clone();
        watches.on(SERVICES, &self.services, move |delta| {
            naming(&ingresses, BY_SERVICE, &delta.object().metadata.namespaced_name())
        });
        let ingresses = self.ingresses.clone();
        let changes = self.secret_changes.lock().take();
        watches.spawn(|queue| async move {
            let Some(mut changes) = changes else { return };
            while let Some(secret) = changes.recv().await {
                naming(&ingresses, BY_SECRET, &secret).into_iter().for_each(|key| queue.add(key));
            }
        });
        // Once: who deletes the class meanwhile does not want it.
        watches.spawn(|queue| async move { queue.add(class_key()) });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        if *key == class_key() {
            return Ok(new_class(&self.classes.list()));
        }
        let Some(ingress) = self.ingresses.get(&key.namespace, &key.name) else {
            self.warned.lock().remove(key);
            return Ok(Plan::default());
        };
        let service = |name: &Key| Some((name.clone(), self.services.get(&name.namespace, &name.name)?));
        self.secrets.follow(&self.ours_secrets()).await;
        let secret = |name: &Key| Some((name.clone(), self.secrets.get(name)?));
        let world = World {
            classes: self.classes.list(),
            services: named_services(&ingress).iter().filter_map(service).collect(),
            secrets: named_secrets(&ingress).iter().filter_map(secret).collect(),
            nodes: self.nodes.list(),
        };
        let mut plan = reconcile(&ingress, &world);
        let told: BTreeSet<String> = plan.events.iter().map(|event| event.message.clone()).collect();
        let before = self.warned.lock().insert(key.clone(), told).unwrap_or_default();
        plan.events.retain(|event| !before.contains(&event.message));
        Ok(plan)
    }
}
