//! Publishes the cluster's root certificates in every namespace, so that pods can trust the API server (follows
//! upstream's `rootcacertpublisher`).

use api::resource::{CONFIG_MAPS, NAMESPACES};
use api::view::core::{ConfigMap, Namespace};
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::{Action, Plan};
use crate::serviceaccount::{is_active, namespace_of_change};

const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION_ANNOTATION: &str = "kubernetes.io/description";
/// Shown by clients; upstream's tests compare it.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

/// Keys are namespaces' names.
struct RootCaCertPublisher {
    root_ca: String,
    namespaces: Informer<Namespace>,
    config_maps: Informer<ConfigMap>,
}

pub fn new(config: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(RootCaCertPublisher {
        root_ca: config.root_ca.clone(),
        namespaces: informers.get(),
        config_maps: informers.get_selected(CONFIG_MAPS, &format!("metadata.name={NAME}")),
    })
}

#[async_trait]
impl Controller for RootCaCertPublisher {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NAMESPACES, &self.namespaces, namespace_of_change);
        watches.on(CONFIG_MAPS, &self.config_maps, |delta| {
            vec![Key::new("", delta.object().metadata.namespace.clone())]
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(Plan::default()) };
        let published = self.config_maps.get(&key.name, NAME);
        Ok(reconcile(&namespace, published.as_deref(), &self.root_ca))
    }
}

fn reconcile(namespace: &Namespace, published: Option<&ConfigMap>, root_ca: &str) -> Plan {
    let mut plan = Plan::default();
    if !is_active(namespace) {
        return plan;
    }
    let name = &namespace.metadata.name;
    match published {
        None => {
            let metadata = json!({"name": NAME, "namespace": name, "annotations": {DESCRIPTION_ANNOTATION: DESCRIPTION}});
            plan.act(Action::create(CONFIG_MAPS, name, config_map(metadata, root_ca)));
        }
        Some(published) if !is_right(published, root_ca) => {
            let mut meta = published.metadata.clone();
            meta.annotations.insert(DESCRIPTION_ANNOTATION.into(), DESCRIPTION.into());
            plan.act(Action::update(CONFIG_MAPS, &meta, config_map(json!(meta), root_ca)));
        }
        Some(_) => {}
    }
    plan
}

fn config_map(metadata: apimachinery::Value, root_ca: &str) -> apimachinery::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {FIELD: root_ca}})
}

fn is_right(published: &ConfigMap, root_ca: &str) -> bool {
    published.data.len() == 1
        && published.data.get(FIELD).is_some_and(|held| held == root_ca)
        && published.metadata.annotations.get(DESCRIPTION_ANNOTATION).is_some_and(|text| text == DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_namespace_keeps_the_right_certificates() {
        let mut cluster = Cluster::new();
        cluster.create(NAMESPACES, json!({"metadata": {"name": "a"}}));
        let step = |cluster: &mut Cluster| {
            let namespace = cluster.get::<Namespace>("", "a").expect("it is there");
            let plan = reconcile(&namespace, cluster.get::<ConfigMap>("a", NAME).as_deref(), "PEM");
            cluster.apply(&plan);
            plan.is_empty()
        };
        assert!(!step(&mut cluster));
        assert!(step(&mut cluster));
        cluster.edit(CONFIG_MAPS, "a", NAME, |map| map["data"] = json!({"other": "x"}));
        assert!(!step(&mut cluster));
        let published = cluster.get::<ConfigMap>("a", NAME).expect("it is there");
        assert_eq!(published.data.get(FIELD).map(String::as_str), Some("PEM"));
        assert!(step(&mut cluster));
    }
}
