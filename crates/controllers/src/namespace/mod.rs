//! Empties a namespace that is being deleted, then lets it go (follows upstream's `pkg/controller/namespace`).

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use api::resource::NAMESPACES;
use api::view::core::Namespace;
use api::view::{Object, PartialObject};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::catalogue::Config;
use crate::controller::{Controller, Failure, Key, Watches, itself};
use crate::discovery::{Monitors, Served, discover};
use crate::plan::Plan;

use reconcile::{Content, Remaining, reconcile};

/// Objects of one resource looked at per round; the rest is only counted.
const PAGE_SIZE: usize = 500;

struct Namespaces {
    client: Client,
    informers: Informers,
    namespaces: Informer<Namespace>,
    /// Why content could not be deleted last time.
    failures: Mutex<HashMap<Key, String>>,
}

pub fn new(_: &Config, informers: &Informers, client: &Client) -> Box<dyn Controller> {
    Box::new(Namespaces {
        client: client.clone(),
        informers: informers.clone(),
        namespaces: informers.get(),
        failures: Mutex::default(),
    })
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Option<Vec<PartialObject>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ListMeta {
    remaining_item_count: usize,
}

#[async_trait]
impl Controller for Namespaces {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NAMESPACES, &self.namespaces, itself);
        let monitors = Monitors { client: self.client.clone(), informers: self.informers.clone() };
        let namespaces = self.namespaces.clone();
        // Every object that goes may have been the last one.
        watches.spawn(|queue| {
            monitors.run(
                |_| {},
                move |_, delta| {
                    let Delta::Deleted(object) = delta else { return };
                    let name = &object.metadata.namespace;
                    let is_going = namespaces.get("", name).is_some_and(|n| n.metadata.is_being_deleted());
                    if !name.is_empty() && is_going {
                        queue.add(Key::new("", name.clone()));
                    }
                },
                || {},
            )
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let cached = self.namespaces.get("", &key.name);
        if cached.is_none_or(|namespace| !namespace.metadata.is_being_deleted()) {
            self.failures.lock().remove(key);
            return Ok(Plan::default());
        }
        let namespace: Namespace = match client.get(NAMESPACES, "", &key.name).await {
            Err(error) if error.is_not_found() => return Ok(Plan::default()),
            namespace => namespace?,
        };
        let mut content = Content { failure: self.failures.lock().get(key).cloned(), ..Content::default() };
        if reconcile::needs_content(&namespace) {
            self.look(client, &key.name, &mut content).await?;
        }
        Ok(reconcile(&namespace, &content, now))
    }

    fn carried_out(&self, key: &Key, failure: Option<&Failure>) {
        let mut failures = self.failures.lock();
        match failure {
            Some(failure) => failures.insert(key.clone(), failure.message.clone()),
            None => failures.remove(key),
        };
    }
}

impl Namespaces {
    /// Asks the server, not the caches: what they lack would be left behind.
    async fn look(
        &self,
        client: &Client,
        namespace: &str,
        content: &mut Content,
    ) -> client::error::Result<()> {
        let discovered = discover(client).await?;
        content.discovery_errors = discovered.errors;
        let deletable =
            |served: &&Served| served.resource.namespaced && served.can("delete") && served.can("list");
        for served in discovered.resources.iter().filter(deletable) {
            let list = client.list(served.resource, namespace, &format!("limit={PAGE_SIZE}")).await;
            let list: List = match list {
                Ok(list) => apimachinery::from_value(list)
                    .map_err(|error| client::Error::Malformed(error.to_string()))?,
                // A custom resource may have gone since discovery.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let objects: Vec<_> = list.items.unwrap_or_default().iter().map(|o| o.meta().clone()).collect();
            if !objects.is_empty() {
                let count = objects.len() + list.metadata.remaining_item_count;
                content.remaining.push(Remaining { served: served.clone(), objects, count });
            }
        }
        Ok(())
    }
}
