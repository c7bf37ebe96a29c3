//! Deletes what has lost its owners, and does what owners being deleted wait for (follows upstream's
//! `pkg/controller/garbagecollector`). Keys are UIDs.

mod graph;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::Resource;
use api::view::PartialObject;
use apimachinery::meta::OwnerReference;
use apimachinery::{GroupKind, GroupVersion};
use async_trait::async_trait;
use client::{Client, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::discovery::{Discovered, Monitors};
use crate::plan::Plan;

use graph::{Coordinates, Graph, Node};
use reconcile::{OwnerState, World, reconcile};

struct GarbageCollector {
    client: Client,
    informers: Informers,
    state: Arc<Mutex<State>>,
    /// Whether the graph holds what there was at the start.
    filled: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    graph: Graph,
    /// The resource of each kind the server has.
    kinds: HashMap<GroupKind, Resource>,
}

pub fn new(_: &Config, informers: &Informers, client: &Client) -> Box<dyn Controller> {
    Box::new(GarbageCollector {
        client: client.clone(),
        informers: informers.clone(),
        state: Arc::default(),
        filled: watch::Sender::new(false),
    })
}

#[async_trait]
impl Controller for GarbageCollector {
    fn watch(&self, watches: &mut Watches) {
        let monitors = Monitors { client: self.client.clone(), informers: self.informers.clone() };
        let (kinds, state, filled) = (self.state.clone(), self.state.clone(), self.filled.clone());
        watches.spawn(|queue| {
            monitors.run(
                move |discovered| kinds.lock().learn(discovered),
                move |resource, delta| {
                    let concerned = state.lock().graph.apply(resource, delta);
                    concerned.into_iter().for_each(|uid| queue.add(Key::new("", uid)));
                },
                move || {
                    filled.send_replace(true);
                },
            )
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        // An owner whose dependents have not been listed yet would be let go as if it had none.
        let filled = self.filled.subscribe().wait_for(|filled| *filled).await.map(drop);
        filled.expect("the sender lives as long as the controller");
        let Some((node, mut world)) = self.world(&key.name) else { return Ok(Plan::default()) };
        for (owner, state) in &mut world.owners {
            if *state == OwnerState::Unseen {
                *state = self.look(&node, owner, client).await?;
            }
        }
        Ok(reconcile(&node, &world))
    }
}

impl State {
    fn learn(&mut self, discovered: &Discovered) {
        let served = discovered.resources.iter().map(|served| served.resource);
        self.kinds = served.map(|resource| (resource.group_kind(), resource)).collect();
    }
}

impl GarbageCollector {
    fn world(&self, uid: &str) -> Option<(Node, World)> {
        let state = self.state.lock();
        let node = state.graph.get(uid)?.clone();
        let owners = node.meta().owner_references.iter();
        let owners = owners.map(|owner| (owner.clone(), state.graph.owner_state(&node, owner))).collect();
        Some((node, World { owners, dependents: state.graph.dependents(uid) }))
    }

    /// Asks the server about an owner that the graph lacks: it may only be late.
    async fn look(
        &self,
        node: &Node,
        owner: &OwnerReference,
        client: &Client,
    ) -> client::error::Result<OwnerState> {
        let Some(group_version) = GroupVersion::parse(&owner.api_version) else {
            return Ok(OwnerState::Unknown);
        };
        let kind = GroupKind { group: group_version.group, kind: owner.kind.clone() };
        let Some(resource) = self.state.lock().kinds.get(&kind).copied() else {
            return Ok(OwnerState::Unknown);
        };
        let namespace = node.meta().namespace.as_str();
        if resource.namespaced && namespace.is_empty() {
            return Ok(OwnerState::Unknown);
        }
        match client.get::<PartialObject>(resource, namespace, &owner.name).await {
            Ok(found) if found.metadata.uid != owner.uid => Ok(OwnerState::Dangling),
            Ok(found) if reconcile::is_waiting(&found.metadata) => Ok(OwnerState::Waiting),
            Ok(_) => Ok(OwnerState::Solid),
            Err(error) if error.is_not_found() => {
                let namespace = if resource.namespaced { namespace } else { "" };
                self.state.lock().graph.note_gone(Coordinates::new(owner, namespace));
                Ok(OwnerState::Dangling)
            }
            Err(error) => Err(error),
        }
    }
}
