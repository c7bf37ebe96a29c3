//! The built-in metrics server as a part of the API server, and what the cluster must hold for it.

use std::sync::Arc;

use api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
use apimachinery::{GroupVersion, json};
use apiserver::{Backend, BackendFuture, GroupServed};
use auth::UserInfo;
use bytes::Bytes;
use client::{CancellationToken, Client, PatchType};
use http::Request;
use metricsserver::MetricsServer;
use metricsserver::api::{GROUP, VERSION};

use super::Services;
use super::control_plane::{AUTHENTICATED, Api};

/// As whom kubelets are asked, with a role of that name.
const USER: &str = "system:metrics-server";
/// Upstream's, which has whoever may view or edit things see what they use.
const READER_ROLE: &str = "system:aggregated-metrics-reader";
/// Upstream's manifest asks for these.
const GROUP_PRIORITY_MINIMUM: i64 = 100;
const VERSION_PRIORITY: i64 = 100;

struct InProcess(Arc<MetricsServer>);

impl Backend for InProcess {
    fn handle(&self, _: &UserInfo, request: Request<Bytes>) -> BackendFuture<'_> {
        Box::pin(async move { self.0.answer(&request).await })
    }
}

/// Serves `metrics.k8s.io`; nothing runs until somebody asks.
pub async fn start(services: &mut Services, api: &Api) -> anyhow::Result<()> {
    publish(&api.admin()).await?;
    let client = api.client(UserInfo::new(USER, [AUTHENTICATED]), "metrics-server");
    let asking = CancellationToken::new();
    let server = MetricsServer::new(client, &api.informers, asking.clone());
    services.start("metrics-server", |stop| async move {
        stop.cancelled().await;
        asking.cancel();
        Ok(())
    });
    let served = GroupServed {
        group_version: GroupVersion::new(GROUP, VERSION),
        group_priority_minimum: GROUP_PRIORITY_MINIMUM,
        version_priority: VERSION_PRIORITY,
    };
    api.serve_group(served, Arc::new(InProcess(server))).await
}

async fn publish(admin: &Client) -> Result<(), client::Error> {
    let rbac = "rbac.authorization.k8s.io";
    let aggregated = |role: &str| (format!("{rbac}/aggregate-to-{role}"), json!("true"));
    let labels: apimachinery::Map = ["view", "edit", "admin"].map(aggregated).into_iter().collect();
    let reader = json!({
        "kind": "ClusterRole", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": READER_ROLE, "labels": labels},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    });
    // The API server asks the kubelet in its own name, once it knows that this user may have it do so.
    let role = json!({
        "kind": "ClusterRole", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": USER},
        "rules": [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}],
    });
    let binding = json!({
        "kind": "ClusterRoleBinding", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": USER},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": USER},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": USER}],
    });
    admin.patch(CLUSTER_ROLES, "", READER_ROLE, None, PatchType::Apply, &reader).await?;
    admin.patch(CLUSTER_ROLES, "", USER, None, PatchType::Apply, &role).await?;
    admin.patch(CLUSTER_ROLE_BINDINGS, "", USER, None, PatchType::Apply, &binding).await?;
    Ok(())
}
