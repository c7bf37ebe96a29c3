//! Which addresses an Ingress has, and what it names in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::resource::{INGRESS_CLASSES, INGRESSES};
use api::view::core::{Node, Secret, Service};
use api::view::networking::{Ingress, IngressClass, IngressLoadBalancerIngress};
use apimachinery::{Value, json};
use client::PatchType;

use crate::controller::Key;
use crate::plan::{Action, Event, Plan, reference};
use crate::serviceloadbalancer::announces;

/// The class that is there from the start.
pub const CLASS_NAME: &str = "cox";
/// Marks the class of Ingresses that name none.
const ANNOTATION_DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Keys of a Secret of type `kubernetes.io/tls`.
const TLS_KEYS: [&str; 2] = ["tls.crt", "tls.key"];

/// What there is beside the Ingress, of that which it names.
pub struct World {
    pub classes: Vec<Arc<IngressClass>>,
    pub services: BTreeMap<Key, Arc<Service>>,
    pub secrets: BTreeMap<Key, Arc<Secret>>,
    pub nodes: Vec<Arc<Node>>,
}

/// Whether its class is one of the built-in controller.
pub fn is_ours(ingress: &Ingress, classes: &[Arc<IngressClass>]) -> bool {
    let class = classes.iter().find(|class| Some(class.metadata.name.as_str()) == ingress.class());
    class.is_some_and(|class| class.is_built_in())
}

pub fn named_services(ingress: &Ingress) -> BTreeSet<Key> {
    let services = ingress.backends().filter_map(|backend| backend.service.as_ref());
    services.map(|service| Key::new(&*ingress.metadata.namespace, &*service.name)).collect()
}

pub fn named_secrets(ingress: &Ingress) -> BTreeSet<Key> {
    let secrets = ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref());
    let named = secrets.filter(|name| !name.is_empty());
    named.map(|name| Key::new(&*ingress.metadata.namespace, name)).collect()
}

/// Makes the class, if there is none of that name. It is the default unless another one is.
pub fn new_class(classes: &[Arc<IngressClass>]) -> Plan {
    let mut plan = Plan::default();
    if classes.iter().any(|class| class.metadata.name == CLASS_NAME) {
        return plan;
    }
    let is_default = |class: &Arc<IngressClass>| {
        class.metadata.annotations.get(ANNOTATION_DEFAULT_CLASS).is_some_and(|value| value == "true")
    };
    let annotations =
        if classes.iter().any(is_default) { json!({}) } else { json!({ANNOTATION_DEFAULT_CLASS: "true"}) };
    let class = json!({
        "apiVersion": INGRESS_CLASSES.api_version(), "kind": INGRESS_CLASSES.kind,
        "metadata": {"name": CLASS_NAME, "annotations": annotations},
        "spec": {"controller": IngressClass::BUILT_IN_CONTROLLER},
    });
    plan.act(Action::create(INGRESS_CLASSES, "", class));
    plan
}

pub fn reconcile(ingress: &Ingress, world: &World) -> Plan {
    let mut plan = Plan::default();
    if ingress.metadata.is_being_deleted() || !is_ours(ingress, &world.classes) {
        return plan;
    }
    let desired = addresses(&world.nodes);
    if ingress.status.load_balancer.ingress != desired {
        let ingresses = if desired.is_empty() { Value::Null } else { json!(desired) };
        let status = json!({"status": {"loadBalancer": {"ingress": ingresses}}});
        let mut action = Action::patch(INGRESSES, &ingress.metadata, status);
        if let Action::Patch { subresource, kind, .. } = &mut action {
            (*subresource, *kind) = (Some("status"), PatchType::Merge);
        }
        plan.act(action);
    }
    let regarding = || reference(INGRESSES, &ingress.metadata);
    let warnings = named_in_vain(ingress, world).into_iter();
    plan.events.extend(warnings.map(|(reason, message)| Event::warning(regarding(), reason, message)));
    plan
}

/// Of all nodes that take traffic, in ascending order.
fn addresses(nodes: &[Arc<Node>]) -> Vec<IngressLoadBalancerIngress> {
    let found: BTreeSet<IpAddr> = nodes.iter().flat_map(|node| announces(node)).collect();
    let one = |ip: &IpAddr| IngressLoadBalancerIngress { ip: ip.to_string(), ..Default::default() };
    found.iter().map(one).collect()
}

fn named_in_vain(ingress: &Ingress, world: &World) -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    for backend in ingress.backends() {
        let Some(named) = &backend.service else {
            found.insert(("BackendNotSupported", "a backend is no Service; it gets no traffic".to_owned()));
            continue;
        };
        let key = Key::new(&*ingress.metadata.namespace, &*named.name);
        match world.services.get(&key) {
            None => {
                found.insert(("ServiceNotFound", format!("service {:?} not found", key.to_string())));
            }
            Some(service) if service.spec.kind == "ExternalName" && named.port.number > 0 => {}
            Some(service) if service.spec.port_of(&named.port).is_none() => {
                let message = format!("service {:?} has no port {}", key.to_string(), named.port);
                found.insert(("ServicePortNotFound", message));
            }
            Some(_) => {}
        }
    }
    for key in named_secrets(ingress) {
        let Some(secret) = world.secrets.get(&key) else {
            found.insert(("SecretNotFound", format!("secret {:?} not found", key.to_string())));
            continue;
        };
        for missing in TLS_KEYS.iter().filter(|data| !secret.data.contains_key(**data)) {
            found.insert(("SecretInvalid", format!("secret {:?} has no {missing}", key.to_string())));
        }
    }
    found
}
