//! The objects every cluster starts with: system namespaces, default roles, and the Service that leads to the API.
//! Follows the post-start hooks `start-system-namespaces-controller`, `rbac/bootstrap-roles`,
//! `scheduling/bootstrap-system-priority-classes` and `bootstrap-controller`.

use std::sync::Arc;

use api::catalogue::Kind;
use api::{Resource, resource};
use apimachinery::{GroupVersion, Status, Value, json};
use auth::bootstrap::Reconciliation;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::advertise::{self, SERVICE};
use crate::core::Core;
use crate::loopback;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const SERVICE_PORT: u16 = 443;
/// Enough to fill a batch of the store's log.
const WRITES_AT_ONCE: usize = 32;

#[derive(Debug, thiserror::Error)]
#[error("bring {what} {name:?} into its default state")]
pub struct BootstrapError {
    what: &'static str,
    name: String,
    #[source]
    source: Status,
}

pub async fn run(core: &Arc<Core>) -> Result<(), BootstrapError> {
    for name in NAMESPACES {
        ensure(core, resource::NAMESPACES, json!({"metadata": {"name": name}})).await?;
    }
    reconcile_roles(core).await?;
    for (name, value, description) in PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(core, resource::PRIORITY_CLASSES, class).await?;
    }
    reconcile_service(core).await?;
    let failed =
        |status| BootstrapError { what: "the endpoints of", name: SERVICE.to_owned(), source: status };
    advertise::publish(core).await.map_err(failed)
}

const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

fn kind_of(object: &Value) -> Option<&'static Kind> {
    let version = GroupVersion::parse(object["apiVersion"].as_str()?)?;
    api::catalogue::by_kind(&version.group, &version.version, object["kind"].as_str()?)
}

fn service(core: &Core) -> Value {
    let address = core.config.service_cidr.nth(0).map(|address| address.to_string());
    json!({
        "metadata": {"name": SERVICE, "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "ports": [{"name": "https", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": core.config.advertise.port()}],
            "sessionAffinity": "None",
        },
    })
}

/// Default roles and bindings, many at once, so that they share the flushes of the store's log.
async fn reconcile_roles(core: &Arc<Core>) -> Result<(), BootstrapError> {
    let objects = auth::bootstrap_objects();
    let known = objects.into_iter().filter_map(|object| Some((kind_of(&object)?.resource, object)));
    let writes = stream::iter(known).map(|(resource, object)| {
        let core = core.clone();
        async move { reconcile_role(&core, resource, object).await }
    });
    writes.buffer_unordered(WRITES_AT_ONCE).try_collect().await
}

async fn reconcile_role(core: &Arc<Core>, resource: Resource, object: Value) -> Result<(), BootstrapError> {
    let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
    let Some(existing) = core.object(resource, &namespace, &name) else {
        return ensure(core, resource, object).await;
    };
    let written = match auth::bootstrap::reconcile(&object, &existing) {
        Reconciliation::Keep => return Ok(()),
        Reconciliation::Update(wanted) => loopback::update(core, resource, &wanted).await,
        Reconciliation::Recreate => match loopback::delete(core, resource, &object).await {
            Ok(()) => loopback::create(core, resource, &object).await,
            refused => refused,
        },
    };
    settled(written).map_err(|status| failed(resource, &object, status))
}

/// Another server that starts at the same time may have been first.
fn settled(written: Result<(), Status>) -> Result<(), Status> {
    match written {
        Err(status) if status.is_conflict() || status.is_already_exists() => Ok(()),
        other => other,
    }
}

/// The Service keeps its address, and leads where the server now listens.
async fn reconcile_service(core: &Arc<Core>) -> Result<(), BootstrapError> {
    let expected = service(core);
    let Some(mut existing) = core.object(resource::SERVICES, "default", SERVICE) else {
        return ensure(core, resource::SERVICES, expected).await;
    };
    let changed: Vec<&str> = ["type", "ports", "sessionAffinity"]
        .into_iter()
        .filter(|field| existing["spec"][*field] != expected["spec"][*field])
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    for field in changed {
        existing["spec"][field] = expected["spec"][field].clone();
    }
    let written = loopback::update(core, resource::SERVICES, &existing).await;
    settled(written).map_err(|status| failed(resource::SERVICES, &expected, status))
}

/// Creates the object unless there is one of its name.
async fn ensure(core: &Arc<Core>, resource: Resource, object: Value) -> Result<(), BootstrapError> {
    // Looked for first: a Service's address is taken once the Service is there.
    if core.object(resource, &text(&object, "namespace"), &text(&object, "name")).is_some() {
        return Ok(());
    }
    let is_there = || core.object(resource, &text(&object, "namespace"), &text(&object, "name")).is_some();
    match loopback::create(core, resource, &object).await {
        // Another server may have made it meanwhile, which takes the address of a Service too.
        Err(status) if !is_there() => Err(failed(resource, &object, status)),
        _ => Ok(()),
    }
}

fn text(object: &Value, field: &str) -> String {
    apimachinery::meta::str_at(object, &["metadata", field]).to_owned()
}

fn failed(resource: Resource, object: &Value, source: Status) -> BootstrapError {
    BootstrapError { what: resource.singular, name: text(object, "name"), source }
}
