//! What the cluster must hold for the built-in provisioner: its StorageClass, and the nodes' right to let volumes go.

use api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, STORAGE_CLASSES};
use api::storage::localpath::PROVISIONER;
use apimachinery::json;
use client::{Client, PatchType};

const CLASS: &str = "local-path";
const ROLE: &str = "coxswain:local-path";

/// A class that is there already stays as its administrator left it.
pub async fn publish(admin: &Client) -> Result<(), client::Error> {
    let class = json!({
        "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    match admin.create(STORAGE_CLASSES, "", &class).await {
        Err(error) if !error.is_already_exists() => return Err(error),
        _ => {}
    }
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({
        "kind": "ClusterRole", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": ROLE},
        "rules": [{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "patch"]}],
    });
    let binding = json!({
        "kind": "ClusterRoleBinding", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"apiGroup": rbac, "kind": "Group", "name": "system:nodes"}],
    });
    admin.patch(CLUSTER_ROLES, "", ROLE, None, PatchType::Apply, &role).await?;
    admin.patch(CLUSTER_ROLE_BINDINGS, "", ROLE, None, PatchType::Apply, &binding).await?;
    Ok(())
}
