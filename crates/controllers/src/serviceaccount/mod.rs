//! Keeps the ServiceAccount `default` in every active namespace (follows upstream's `ServiceAccountsController`).

use api::resource::{NAMESPACES, SERVICE_ACCOUNTS};
use api::view::core::{Namespace, ServiceAccount};
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::{Action, Plan};

const DEFAULT: &str = "default";

/// Keys are namespaces' names.
struct ServiceAccounts {
    namespaces: Informer<Namespace>,
    service_accounts: Informer<ServiceAccount>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(ServiceAccounts { namespaces: informers.get(), service_accounts: informers.get() })
}

#[async_trait]
impl Controller for ServiceAccounts {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NAMESPACES, &self.namespaces, namespace_of_change);
        watches.on(SERVICE_ACCOUNTS, &self.service_accounts, |delta| match delta {
            Delta::Deleted(account) if account.metadata.name == DEFAULT => {
                vec![Key::new("", account.metadata.namespace.clone())]
            }
            _ => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(Plan::default()) };
        let account = self.service_accounts.get(&key.name, DEFAULT);
        Ok(reconcile(&namespace, account.as_deref()))
    }
}

/// Namespaces as they come and change; what is gone needs nothing.
pub fn namespace_of_change(delta: &Delta<Namespace>) -> Vec<Key> {
    match delta {
        Delta::Added(namespace) | Delta::Updated { new: namespace, .. } => {
            vec![namespace.metadata.namespaced_name()]
        }
        Delta::Deleted(_) => Vec::new(),
    }
}

/// Whether a namespace still takes new objects.
pub fn is_active(namespace: &Namespace) -> bool {
    !namespace.metadata.is_being_deleted() && namespace.status.phase != "Terminating"
}

fn reconcile(namespace: &Namespace, account: Option<&ServiceAccount>) -> Plan {
    let mut plan = Plan::default();
    if account.is_none() && is_active(namespace) {
        let name = &namespace.metadata.name;
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT, "namespace": name},
        });
        plan.act(Action::create(SERVICE_ACCOUNTS, name, object));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_namespace_gets_its_default_account_once() {
        let mut cluster = Cluster::new();
        cluster.create(NAMESPACES, json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
        let decide = |cluster: &Cluster| {
            let namespace = cluster.get::<Namespace>("", "a").expect("it is there");
            reconcile(&namespace, cluster.get::<ServiceAccount>("a", DEFAULT).as_deref())
        };
        let plan = decide(&cluster);
        cluster.apply(&plan);
        assert!(cluster.value(SERVICE_ACCOUNTS, "a", DEFAULT).is_some());
        assert!(decide(&cluster).is_empty());
        cluster.remove(SERVICE_ACCOUNTS, "a", DEFAULT);
        cluster.edit(NAMESPACES, "", "a", |n| n["status"]["phase"] = "Terminating".into());
        assert!(decide(&cluster).is_empty());
    }
}
