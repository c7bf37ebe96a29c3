//! Shows in every aggregated ClusterRole the rules that it gathers (follows upstream's `clusterroleaggregation`).

use std::sync::Arc;

use api::resource::{CLUSTER_ROLES, Resource};
use api::view::{Object, View};
use apimachinery::meta::{LabelSelector, ObjectMeta};
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;
use serde::Deserialize;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::{Action, Plan};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRole {
    metadata: ObjectMeta,
    /// Whole rules: they are copied. A role without any may have null.
    rules: Option<Vec<Value>>,
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AggregationRule {
    cluster_role_selectors: Vec<LabelSelector>,
}

impl Object for ClusterRole {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl View for ClusterRole {
    const RESOURCE: Resource = CLUSTER_ROLES;
}

struct ClusterRoleAggregation {
    roles: Informer<ClusterRole>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(ClusterRoleAggregation { roles: informers.get() })
}

#[async_trait]
impl Controller for ClusterRoleAggregation {
    fn watch(&self, watches: &mut Watches) {
        let roles = self.roles.clone();
        // Any role may have come under, or gone from, any selector.
        watches.on(CLUSTER_ROLES, &self.roles, move |_| {
            let aggregated = roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            aggregated.map(|role| role.metadata.namespaced_name()).collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let role = self.roles.get("", &key.name);
        Ok(role.map_or_else(Plan::default, |role| reconcile(&role, &self.roles.list())))
    }
}

fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::default();
    let Some(aggregation) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<&Value> = Vec::new();
    for selector in &aggregation.cluster_role_selectors {
        let is_gathered = |other: &&Arc<ClusterRole>| {
            other.metadata.name != role.metadata.name && selector.matches(&other.metadata.labels)
        };
        for rule in all.iter().filter(is_gathered).flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if !role.rules.iter().flatten().eq(rules.iter().copied()) {
        plan.act(Action::patch(CLUSTER_ROLES, &role.metadata, json!({"rules": rules})));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn an_aggregated_role_has_the_rules_of_those_it_selects_each_once() {
        let mut cluster = Cluster::new();
        let rule = |resource: &str| json!({"resources": [resource], "verbs": ["get"]});
        let role = |name: &str, rules: Value| json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": rules});
        cluster.create(CLUSTER_ROLES, role("one", json!([rule("pods"), rule("nodes")])));
        cluster.create(CLUSTER_ROLES, role("two", json!([rule("pods"), rule("jobs")])));
        cluster.create(CLUSTER_ROLES, json!({"metadata": {"name": "other"}, "rules": [rule("secrets")]}));
        let mut view = role("view", Value::Null);
        view["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]});
        cluster.create(CLUSTER_ROLES, view);
        let decide = |cluster: &Cluster| {
            let view = cluster.get::<ClusterRole>("", "view").expect("it is there");
            reconcile(&view, &cluster.list())
        };
        let plan = decide(&cluster);
        cluster.apply(&plan);
        let rules = &cluster.value(CLUSTER_ROLES, "", "view").expect("it is there")["rules"];
        assert_eq!(*rules, json!([rule("pods"), rule("nodes"), rule("jobs")]));
        assert!(decide(&cluster).is_empty());
    }
}
