//! Who a node's agents are - DNS, service proxy, ingress proxy - and what they may read beyond upstream's policy.

use api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, Resource};
use apimachinery::{Value, json};
use client::{Client, PatchType};

use crate::rbac;

/// Who cluster DNS is when it asks the API server by itself; the role is named as the one of CoreDNS.
pub const DNS_USER: &str = "system:coredns";

/// The user that upstream's policy binds the proxy's role to. Network policies are enforced, and the
/// ways to other nodes found, under the same name.
const PROXY_USER: &str = "system:kube-proxy";
pub const PROXY_ROLE: &str = "coxswain:node-network";

/// Who the ingress proxy is, with a role of that name. It watches single Secrets by name.
pub const INGRESS_USER: &str = "coxswain:ingress";

/// Lets them read it.
pub async fn grant(admin: &Client) -> Result<(), client::Error> {
    for (resource, name, object) in rights() {
        admin.patch(resource, "", name, None, PatchType::Apply, &object).await?;
    }
    Ok(())
}

fn rights() -> [(Resource, &'static str, Value); 6] {
    let rule = |group: &str, resources: &[&str]| rbac::rule(group, resources, &["list", "watch"]);
    let binding = |name: &str, user: &str| rbac::cluster_role_binding(name, name, &[rbac::user(user)]);
    let mut settings = rule("", &["configmaps"]);
    settings["resourceNames"] = json!(network::dns::SETTINGS);
    let dns =
        [rule("", &["services", "namespaces"]), rule("discovery.k8s.io", &["endpointslices"]), settings];
    let network =
        [rule("", &["namespaces", "nodes", "pods"]), rule("networking.k8s.io", &["networkpolicies"])];
    let ingress = [
        rule("", &["secrets", "services"]),
        rule("discovery.k8s.io", &["endpointslices"]),
        rule("networking.k8s.io", &["ingressclasses", "ingresses"]),
    ];
    [
        (CLUSTER_ROLES, DNS_USER, rbac::cluster_role(DNS_USER, &dns)),
        (CLUSTER_ROLE_BINDINGS, DNS_USER, binding(DNS_USER, DNS_USER)),
        (CLUSTER_ROLES, PROXY_ROLE, rbac::cluster_role(PROXY_ROLE, &network)),
        (CLUSTER_ROLE_BINDINGS, PROXY_ROLE, binding(PROXY_ROLE, PROXY_USER)),
        (CLUSTER_ROLES, INGRESS_USER, rbac::cluster_role(INGRESS_USER, &ingress)),
        (CLUSTER_ROLE_BINDINGS, INGRESS_USER, binding(INGRESS_USER, INGRESS_USER)),
    ]
}
