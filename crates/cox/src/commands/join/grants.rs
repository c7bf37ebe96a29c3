//! What a cluster must hold for machines to join it: how it is found, what their token lets them do, and what nodes may
//! read. The first is kubeadm's `cluster-info`, by kubeadm's names.

use api::bootstraptoken::{CLUSTER_INFO, KUBECONFIG};
use api::resource::{CLUSTER_ROLE_BINDINGS, CONFIG_MAPS, ROLE_BINDINGS, ROLES, Resource};
use apimachinery::{Value, json};
use auth::user::NODES;
use client::{Client, PatchType};
use cluster::{Settings, kubeconfig};

use super::network::Network;
use crate::rbac::{cluster_role_binding, group, role, role_binding, rule, user};
use crate::services::agents;

/// Whoever joins is in this group until it has a certificate.
pub const GROUP: &str = "system:bootstrappers:coxswain:nodes";

const CLUSTER_INFO_ROLE: &str = "kubeadm:bootstrap-signer-clusterinfo";
/// Where nodes learn how the cluster's network is laid out.
pub const NETWORK: (&str, &str) = ("kube-system", "coxswain-network");

pub async fn give(admin: &Client, server: &str, authority: &str, settings: &Settings) -> anyhow::Result<()> {
    let network = serde_json::to_string(&Network::of(settings))?;
    let found = [cluster_info(server, authority), config_map(NETWORK, super::network::KEY, &network)];
    let found = found.into_iter().zip([CLUSTER_INFO, NETWORK]);
    let found = found.map(|(object, (namespace, name))| (CONFIG_MAPS, namespace, name, object));
    for (resource, namespace, name, object) in found.chain(joiners_rights()) {
        admin.patch(resource, namespace, name, None, PatchType::Apply, &object).await?;
    }
    Ok(())
}

fn cluster_info(server: &str, authority: &str) -> Value {
    config_map(CLUSTER_INFO, KUBECONFIG, &kubeconfig::render(&kubeconfig::anonymous(server, authority)))
}

fn config_map((namespace, name): (&str, &str), key: &str, text: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"namespace": namespace, "name": name},
        "data": {key: text}})
}

/// To read one ConfigMap.
fn reading((namespace, name): (&str, &str), called: &str) -> Value {
    let mut rule = rule("", &["configmaps"], &["get"]);
    rule["resourceNames"] = json!([name]);
    role(namespace, called, &[rule])
}

fn joiners_rights() -> [(Resource, &'static str, &'static str, Value); 9] {
    let cluster = |name: &'static str, role: &str, who: &str| {
        (CLUSTER_ROLE_BINDINGS, "", name, cluster_role_binding(name, role, &[group(who)]))
    };
    let (public, system, network) = (CLUSTER_INFO.0, NETWORK.0, "coxswain:network");
    [
        (ROLES, public, CLUSTER_INFO_ROLE, reading(CLUSTER_INFO, CLUSTER_INFO_ROLE)),
        (
            ROLE_BINDINGS,
            public,
            CLUSTER_INFO_ROLE,
            role_binding(public, CLUSTER_INFO_ROLE, &[user("system:anonymous")]),
        ),
        (ROLES, system, network, reading(NETWORK, network)),
        (ROLE_BINDINGS, system, network, role_binding(system, network, &[group(NODES)])),
        cluster("coxswain:kubelet-bootstrap", "system:node-bootstrapper", GROUP),
        cluster(
            "coxswain:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            GROUP,
        ),
        // On a node that has joined, proxy, policies and DNS are the kubelet to the API server.
        cluster("coxswain:nodes-proxy", "system:node-proxier", NODES),
        cluster("coxswain:nodes-network", agents::PROXY_ROLE, NODES),
        cluster("coxswain:nodes-dns", agents::DNS_USER, NODES),
    ]
}
