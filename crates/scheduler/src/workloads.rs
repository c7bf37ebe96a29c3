//! What is known of those that own, select or protect pods: by them alike pods are told, and pods that should stay.

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{REPLICA_SETS, REPLICATION_CONTROLLERS, Resource, STATEFUL_SETS};
use api::view::Object;
use api::view::apps::{ReplicaSet, ReplicationController, StatefulSet};
use api::view::core::{Pod, Service};
use api::view::policy::PodDisruptionBudget;
use apimachinery::meta::{LabelSelector, NamespacedName, StringMap};
use client::Delta;

#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// The selectors of Services, by namespace.
    services: HashMap<String, HashMap<String, StringMap>>,
    /// The selectors of what owns pods.
    owners: HashMap<(Resource, NamespacedName), LabelSelector>,
    budgets: HashMap<NamespacedName, Arc<PodDisruptionBudget>>,
}

/// A change of any of these.
pub enum Change {
    Service(Delta<Service>),
    ReplicationController(Delta<ReplicationController>),
    ReplicaSet(Delta<ReplicaSet>),
    StatefulSet(Delta<StatefulSet>),
    Budget(Delta<PodDisruptionBudget>),
}

impl Workloads {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Service(delta) => self.apply_service(delta),
            Change::ReplicationController(delta) => {
                self.apply_owner(REPLICATION_CONTROLLERS, delta, |owner| &owner.0.spec.selector);
            }
            Change::ReplicaSet(delta) => self.apply_owner(REPLICA_SETS, delta, |owner| &owner.spec.selector),
            Change::StatefulSet(delta) => {
                self.apply_owner(STATEFUL_SETS, delta, |owner| &owner.spec.selector)
            }
            Change::Budget(delta) => {
                let budget = delta.object();
                let key = budget.metadata.namespaced_name();
                match delta {
                    Delta::Deleted(_) => self.budgets.remove(&key),
                    Delta::Added(_) | Delta::Updated { .. } => self.budgets.insert(key, budget.clone()),
                };
            }
        }
    }

    fn apply_service(&mut self, delta: &Delta<Service>) {
        let service = delta.object();
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        let in_namespace = self.services.entry(namespace.clone()).or_default();
        match delta {
            Delta::Deleted(_) => in_namespace.remove(name),
            Delta::Added(_) | Delta::Updated { .. } => {
                in_namespace.insert(name.clone(), service.spec.selector.clone())
            }
        };
    }

    fn apply_owner<V: Object>(
        &mut self,
        resource: Resource,
        delta: &Delta<V>,
        selector: impl Fn(&V) -> &LabelSelector,
    ) {
        let key = (resource, delta.object().meta().namespaced_name());
        match delta {
            Delta::Deleted(_) => self.owners.remove(&key),
            Delta::Added(owner) | Delta::Updated { new: owner, .. } => {
                self.owners.insert(key, selector(owner).clone())
            }
        };
    }

    /// Selects the pods that are alike: of the same Services and the same owner. `None` where nothing says so
    /// (upstream: `DefaultSelector`).
    pub fn alike(&self, pod: &Pod) -> Option<LabelSelector> {
        let metadata = &pod.metadata;
        let mut selector = LabelSelector::default();
        for of_service in self.services.get(&metadata.namespace).into_iter().flat_map(HashMap::values) {
            let selects = |(key, value): (&String, &String)| metadata.labels.get(key) == Some(value);
            if !of_service.is_empty() && of_service.iter().all(selects) {
                selector.match_labels.extend(of_service.clone());
            }
        }
        let owner = metadata.controller().and_then(|owner| {
            let kinds = [REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS];
            let is_kind =
                |kind: &Resource| owner.kind == kind.kind && owner.api_version == kind.api_version();
            let kind = kinds.into_iter().find(is_kind)?;
            self.owners.get(&(kind, NamespacedName::new(metadata.namespace.clone(), owner.name.clone())))
        });
        if let Some(owner) = owner {
            selector.match_labels.extend(owner.match_labels.clone());
            selector.match_expressions.extend(owner.match_expressions.clone());
        }
        (!selector.is_empty()).then_some(selector)
    }

    pub fn budgets(&self) -> impl Iterator<Item = &Arc<PodDisruptionBudget>> {
        self.budgets.values()
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn added<V: Object>(object: Value) -> Delta<V> {
        Delta::Added(Arc::new(apimachinery::from_value(object).expect("an object")))
    }

    #[test]
    fn pods_are_alike_that_share_services_and_owner() {
        let mut workloads = Workloads::default();
        let meta = |name: &str| json!({"name": name, "namespace": "d"});
        workloads
            .apply(&Change::Service(added(json!({"metadata": meta("s"), "spec": {"selector": {"a": "1"}}}))));
        workloads
            .apply(&Change::Service(added(json!({"metadata": meta("t"), "spec": {"selector": {"a": "2"}}}))));
        let set = json!({"metadata": meta("r"), "spec": {"selector": {"matchLabels": {"b": "1"}}}});
        workloads.apply(&Change::ReplicaSet(added(set)));
        let pod = |labels: Value, owner: &str| -> Pod {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u", "controller": true});
            let meta = json!({"name": "p", "namespace": "d", "labels": labels, "ownerReferences": [owner]});
            apimachinery::from_value(json!({"metadata": meta})).expect("a pod")
        };
        let alike = |pod: Pod| workloads.alike(&pod).map(|selector| json!(selector.match_labels));
        assert_eq!(alike(pod(json!({"a": "1", "b": "1"}), "r")), Some(json!({"a": "1", "b": "1"})));
        assert_eq!(alike(pod(json!({"b": "1"}), "r")), Some(json!({"b": "1"})));
        assert_eq!(alike(pod(json!({"a": "3"}), "other")), None);
    }
}
