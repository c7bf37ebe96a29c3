//! Who counts the objects of which resource, and by which names.

use super::{Counting, ResourceList, Scope, amounts, claims, devices, pods, scopes_of};
use crate::columns::items;
use apimachinery::Value;
use apimachinery::meta::str_at;
use apimachinery::quantity::{Format, Quantity};

pub(super) const COUNT_PREFIX: &str = "count/";

/// Resources that are not stored, or written too often to be worth it.
const IGNORED: [(&str, &str); 9] = [
    ("bindings", ""),
    ("componentstatuses", ""),
    ("tokenreviews", "authentication.k8s.io"),
    ("selfsubjectreviews", "authentication.k8s.io"),
    ("subjectaccessreviews", "authorization.k8s.io"),
    ("selfsubjectaccessreviews", "authorization.k8s.io"),
    ("localsubjectaccessreviews", "authorization.k8s.io"),
    ("selfsubjectrulesreviews", "authorization.k8s.io"),
    ("events", ""),
];
const EVENTS: &str = "events";
const EVENTS_GROUP: &str = "events.k8s.io";

/// Resources that are counted under their bare name too.
const LEGACY_COUNTS: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// The name under which a quota counts the objects of a resource.
pub fn count_name(resource: &str) -> String {
    format!("{COUNT_PREFIX}{resource}")
}

/// One object, or one of something.
pub(super) fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    PersistentVolumeClaims,
    ResourceClaims,
    /// Counts objects; holds the resource with its group, `deployments.apps`.
    ObjectCount(String),
}

impl Evaluator {
    /// Who counts the objects of a resource; nobody does for those that quotas leave alone.
    pub fn of(group: &str, resource: &str) -> Option<Evaluator> {
        if IGNORED.contains(&(resource, group)) || (resource, group) == (EVENTS, EVENTS_GROUP) {
            return None;
        }
        Some(match (group, resource) {
            ("", "pods") => Evaluator::Pods,
            ("", "services") => Evaluator::Services,
            ("", "persistentvolumeclaims") => Evaluator::PersistentVolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Evaluator::ResourceClaims,
            ("", resource) => Evaluator::ObjectCount(resource.to_owned()),
            (group, resource) => Evaluator::ObjectCount(format!("{resource}.{group}")),
        })
    }

    /// Those who count under names of their own.
    pub(super) fn well_known() -> impl Iterator<Item = Evaluator> {
        let special = [
            Evaluator::Pods,
            Evaluator::Services,
            Evaluator::PersistentVolumeClaims,
            Evaluator::ResourceClaims,
        ];
        special.into_iter().chain(LEGACY_COUNTS.map(|name| Evaluator::ObjectCount(name.to_owned())))
    }

    /// The counted resource with its group.
    pub fn resource(&self) -> &str {
        match self {
            Evaluator::Pods => "pods",
            Evaluator::Services => "services",
            Evaluator::PersistentVolumeClaims => "persistentvolumeclaims",
            Evaluator::ResourceClaims => devices::CLAIMS,
            Evaluator::ObjectCount(resource) => resource,
        }
    }

    /// Those of the names that this one counts.
    pub fn matching_resources<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        counting: &Counting,
    ) -> Vec<&'a str> {
        let counts = |name: &&str| {
            self.may_count(name)
                && (*self != Evaluator::ResourceClaims || devices::are_devices(name, counting))
        };
        names.into_iter().filter(counts).collect()
    }

    /// By the name alone.
    pub(super) fn may_count(&self, name: &str) -> bool {
        if name.strip_prefix(COUNT_PREFIX) == Some(self.resource()) {
            return true;
        }
        match self {
            Evaluator::Pods => pods::counts(name),
            Evaluator::Services => {
                matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
            }
            Evaluator::PersistentVolumeClaims => claims::counts_volume_claims_as(name),
            Evaluator::ResourceClaims => devices::may_count(name),
            Evaluator::ObjectCount(resource) => {
                LEGACY_COUNTS.contains(&resource.as_str()) && name == resource
            }
        }
    }

    /// Whether the quota limits something of this object.
    pub fn matches(&self, quota: &Value, object: &Value, counting: &Counting) -> bool {
        let hard = amounts(quota.get("status"), "hard");
        !self.matching_resources(hard.keys().map(String::as_str), counting).is_empty()
            && scopes_of(quota).iter().all(|scope| self.matches_scope(scope, object))
    }

    pub fn matches_scope(&self, scope: &Scope, object: &Value) -> bool {
        match self {
            Evaluator::Pods => pods::matches_scope(scope, object),
            Evaluator::PersistentVolumeClaims => claims::matches_scope(scope, object),
            _ => false,
        }
    }

    /// What one object uses.
    pub fn usage(&self, object: &Value, counting: &Counting) -> ResourceList {
        let mut usage = match self {
            Evaluator::Pods => pods::usage(object, counting.now),
            Evaluator::Services => services(object),
            Evaluator::PersistentVolumeClaims => claims::volume_claim(object),
            Evaluator::ResourceClaims => devices::usage(object, counting),
            Evaluator::ObjectCount(resource) if LEGACY_COUNTS.contains(&resource.as_str()) => {
                ResourceList::from([(resource.clone(), one())])
            }
            Evaluator::ObjectCount(_) => ResourceList::new(),
        };
        usage.insert(count_name(self.resource()), one());
        usage
    }

    /// What must be said in an object so that it can be counted.
    pub fn constraints(&self, required: &[&str], object: &Value) -> Result<(), String> {
        match self {
            Evaluator::Pods => pods::constraints(required, object),
            _ => Ok(()),
        }
    }
}

/// Node ports are counted before they are allocated: by what the Service will be given.
fn services(service: &Value) -> ResourceList {
    let ports = items(service, &["spec", "ports"]);
    let given = ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or_default() != 0).count();
    let (node_ports, load_balancers) = match str_at(service, &["spec", "type"]) {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"] == false => (given, 1),
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |n: usize| Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi);
    ResourceList::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(load_balancers)),
    ])
}
