//! From a Service and its pods to slices to create, update and delete (follows upstream's `Reconcile`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resource::{ENDPOINT_SLICES, SERVICES};
use api::view::core::{Pod, Service};
use api::view::discovery::{Endpoint, EndpointPort, EndpointSlice};
use apimachinery::meta::{ObjectMeta, StringMap};
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::endpoint::{endpoint, is_endpoint};
use super::ports::named_ports_of;
use super::slices::pack;
use super::{CONTROLLER_NAME, MANAGED_BY, SERVICE_NAME};
use crate::ownership::controller_reference;
use crate::plan::{Action, Plan};

/// Says that the Service has no cluster address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the pod or Service changed that made the slice change: what measures how fast endpoints spread.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods that the Service selects.
    pub pods: Vec<Arc<Pod>>,
    /// Nodes' names to their zones.
    pub zones: StringMap,
    /// The Service's slices that this controller manages.
    pub slices: Vec<Arc<EndpointSlice>>,
}

type Ports = Vec<EndpointPort>;

pub fn reconcile(service: &Service, world: &World) -> Plan {
    let mut plan = Plan::default();
    // Without a selector, endpoints are someone else's business; slices made before stay, as upstream's do.
    let has_endpoints = !service.spec.selector.is_empty() && service.spec.kind != "ExternalName";
    if !has_endpoints || service.metadata.is_being_deleted() {
        return plan;
    }
    let families = families(service);
    for family in &families {
        reconcile_family(service, world, family, &mut plan);
    }
    for slice in &world.slices {
        if !families.contains(&slice.address_type.as_str()) {
            plan.act(Action::delete(ENDPOINT_SLICES, &slice.metadata));
        }
    }
    plan
}

/// `IPv4`, `IPv6` or both (upstream: `getAddressTypesForService`).
fn families(service: &Service) -> Vec<&str> {
    if !service.spec.ip_families.is_empty() {
        return service.spec.ip_families.iter().map(String::as_str).collect();
    }
    let is_ipv6 = service.spec.cluster_ip.contains(':');
    vec![if is_ipv6 { "IPv6" } else { "IPv4" }]
}

fn reconcile_family(service: &Service, world: &World, family: &str, plan: &mut Plan) {
    let mut wanted: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in world.pods.iter().filter(|pod| is_endpoint(pod)) {
        if let Some(endpoint) = endpoint(service, pod, family == "IPv6", &world.zones) {
            wanted.entry(named_ports_of(service, pod)).or_default().push(endpoint);
        }
    }
    // A Service without endpoints has one empty slice, so that consumers see it is known.
    if wanted.is_empty() {
        wanted.insert(Ports::new(), Vec::new());
    }
    let trigger = trigger_time(service, &world.pods);
    let of_family: Vec<&Arc<EndpointSlice>> =
        world.slices.iter().filter(|slice| slice.address_type == family).collect();
    for (ports, endpoints) in &wanted {
        let same_ports: Vec<&EndpointSlice> =
            of_family.iter().filter(|slice| sorted(&slice.ports) == *ports).map(|slice| &***slice).collect();
        let draft = Draft { service, family, ports, trigger };
        draft.reconcile(&same_ports, endpoints.clone(), plan);
    }
    for slice in of_family.iter().filter(|slice| !wanted.contains_key(&sorted(&slice.ports))) {
        plan.act(Action::delete(ENDPOINT_SLICES, &slice.metadata));
    }
}

fn sorted(ports: &[EndpointPort]) -> Ports {
    let mut ports = ports.to_vec();
    ports.sort();
    ports
}

/// The newest change of the Service or of a pod's readiness that this could be about.
fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let ready = pods.iter().filter_map(|pod| pod.condition("Ready")?.last_transition_time);
    ready.chain(service.metadata.creation_timestamp).max()
}

/// Slices of one Service, address family and set of ports.
struct Draft<'a> {
    service: &'a Service,
    family: &'a str,
    ports: &'a [EndpointPort],
    trigger: Option<Timestamp>,
}

impl Draft<'_> {
    fn reconcile(&self, existing: &[&EndpointSlice], wanted: Vec<Endpoint>, plan: &mut Plan) {
        if wanted.is_empty() {
            return self.keep_placeholder(existing, plan);
        }
        let mut packing = pack(existing, wanted);
        // A slice that has nothing left is reused before one is made.
        while let (Some(index), true) = (packing.unneeded.last().copied(), !packing.new.is_empty()) {
            packing.unneeded.pop();
            packing.changed.push((index, packing.new.remove(0)));
        }
        let touched: Vec<usize> = packing.changed.iter().map(|(index, _)| *index).collect();
        for (index, endpoints) in packing.changed {
            plan.act(self.update(existing[index], &endpoints));
        }
        for (index, slice) in existing.iter().enumerate() {
            if packing.unneeded.contains(&index) {
                plan.act(Action::delete(ENDPOINT_SLICES, &slice.metadata));
            } else if !touched.contains(&index) && !self.is_labelled(&slice.metadata) {
                plan.act(self.update(slice, &slice.endpoints));
            }
        }
        for endpoints in packing.new {
            plan.act(self.create(&endpoints));
        }
    }

    fn keep_placeholder(&self, existing: &[&EndpointSlice], plan: &mut Plan) {
        let Some((first, rest)) = existing.split_first() else { return plan.act(self.create(&[])) };
        if !first.endpoints.is_empty() || !self.is_labelled(&first.metadata) {
            plan.act(self.update(first, &[]));
        }
        for slice in rest {
            plan.act(Action::delete(ENDPOINT_SLICES, &slice.metadata));
        }
    }

    /// The Service's labels, and those that say whose slice it is (upstream: `setEndpointSliceLabels`).
    fn labels(&self) -> StringMap {
        let mut labels = self.service.metadata.labels.clone();
        labels.remove(HEADLESS);
        if self.service.spec.is_headless() {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), self.service.metadata.name.clone());
        labels.insert(MANAGED_BY.into(), CONTROLLER_NAME.into());
        labels
    }

    fn is_labelled(&self, meta: &ObjectMeta) -> bool {
        meta.labels == self.labels() && meta.is_controlled_by(&self.service.metadata.uid)
    }

    fn create(&self, endpoints: &[Endpoint]) -> Action {
        let meta = ObjectMeta {
            generate_name: format!("{}-", self.service.metadata.name),
            namespace: self.service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        };
        Action::create(ENDPOINT_SLICES, &meta.namespace.clone(), self.object(meta, endpoints))
    }

    fn update(&self, slice: &EndpointSlice, endpoints: &[Endpoint]) -> Action {
        let object = self.object(slice.metadata.clone(), endpoints);
        Action::update(ENDPOINT_SLICES, &slice.metadata, object)
    }

    fn object(&self, mut meta: ObjectMeta, endpoints: &[Endpoint]) -> Value {
        meta.labels = self.labels();
        meta.owner_references = vec![controller_reference(SERVICES, &self.service.metadata)];
        match self.trigger {
            Some(at) => meta.annotations.insert(TRIGGER_TIME.into(), apimachinery::time::format_time(at)),
            None => meta.annotations.remove(TRIGGER_TIME),
        };
        json!({
            "apiVersion": ENDPOINT_SLICES.api_version(), "kind": ENDPOINT_SLICES.kind, "metadata": meta,
            "addressType": self.family, "ports": self.ports, "endpoints": endpoints,
        })
    }
}
