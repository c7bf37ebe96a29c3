//! Amounts of resources as plain numbers, and what a pod asks for (follows component-helpers'
//! `PodRequests`).

use std::collections::BTreeMap;

use api::validation::is_huge_page_resource;
use api::view::core::{Container, PodSpec, ResourceList};
use apimachinery::quantity::Quantity;

/// What scoring assumes of a container that requests no CPU (upstream: DefaultMilliCPURequest).
const DEFAULT_MILLI_CPU_REQUEST: i64 = 100;
/// What scoring assumes of a container that requests no memory (upstream: DefaultMemoryRequest).
const DEFAULT_MEMORY_REQUEST: i64 = 200 * 1024 * 1024;

/// Amounts by resource. CPU in thousandths, the rest in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<String, i64>,
}

impl Resource {
    /// What cannot be read counts as nothing: the API server has validated it.
    pub fn from_list(list: &ResourceList) -> Self {
        let mut resource = Resource::default();
        for (name, text) in list {
            let Ok(quantity) = text.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => resource.milli_cpu = quantity.milli_value(),
                "memory" => resource.memory = quantity.value(),
                "ephemeral-storage" => resource.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => drop(resource.scalar.insert(name.clone(), quantity.value())),
            }
        }
        resource
    }

    pub fn add(&mut self, other: &Resource) {
        self.combine(other, i64::saturating_add);
    }

    pub fn sub(&mut self, other: &Resource) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger amount of each.
    fn max(&mut self, other: &Resource) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resource, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_insert(0);
            *own = op(*own, *amount);
        }
    }
}

/// The number of pods a node takes.
pub fn allowed_pods(allocatable: &ResourceList) -> i64 {
    allocatable.get("pods").and_then(|text| text.parse::<Quantity>().ok()).map_or(0, |pods| pods.value())
}

/// What a pod requests.
pub fn pod_requests(spec: &PodSpec) -> Resource {
    sum(spec, |container| Resource::from_list(&container.resources.requests))
}

/// What scoring reckons a pod to need: containers that request nothing are not free.
pub fn non_zero_requests(spec: &PodSpec) -> Resource {
    sum(spec, |container| {
        let requests = &container.resources.requests;
        let mut resource = Resource::from_list(requests);
        if !requests.contains_key("cpu") {
            resource.milli_cpu = DEFAULT_MILLI_CPU_REQUEST;
        }
        if !requests.contains_key("memory") {
            resource.memory = DEFAULT_MEMORY_REQUEST;
        }
        resource
    })
}

/// Containers and sidecars run together; each other init container runs with the sidecars before it.
fn sum(spec: &PodSpec, of: impl Fn(&Container) -> Resource) -> Resource {
    let mut running = Resource::default();
    spec.containers.iter().for_each(|container| running.add(&of(container)));
    let mut sidecars = Resource::default();
    let mut starting = Resource::default();
    for container in &spec.init_containers {
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&of(container));
            sidecars.add(&of(container));
            starting.max(&sidecars);
        } else {
            let mut with_sidecars = of(container);
            with_sidecars.add(&sidecars);
            starting.max(&with_sidecars);
        }
    }
    running.max(&starting);
    apply_pod_level(&mut running, spec);
    running.add(&Resource::from_list(&spec.overhead));
    running
}

/// Requests of the pod as a whole take the place of its containers' sums.
fn apply_pod_level(sum: &mut Resource, spec: &PodSpec) {
    let Some(resources) = &spec.resources else { return };
    let whole = Resource::from_list(&resources.requests);
    if resources.requests.contains_key("cpu") {
        sum.milli_cpu = whole.milli_cpu;
    }
    if resources.requests.contains_key("memory") {
        sum.memory = whole.memory;
    }
    sum.scalar.extend(whole.scalar.into_iter().filter(|(name, _)| is_huge_page_resource(name)));
}

#[cfg(test)]
mod tests {
    use api::view::core::Pod;
    use apimachinery::json;

    use super::*;

    fn check(spec: apimachinery::Value, milli_cpu: i64, memory: i64) {
        let pod: Pod = apimachinery::from_value(json!({"spec": spec})).unwrap();
        let requests = pod_requests(&pod.spec);
        assert_eq!((requests.milli_cpu, requests.memory), (milli_cpu, memory), "{spec}");
    }

    fn container(cpu: &str) -> apimachinery::Value {
        json!({"resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}})
    }

    #[test]
    fn a_pod_requests_what_its_containers_do() {
        check(json!({"containers": [container("1"), container("500m")]}), 1500, 2048);
        check(json!({"containers": [container("1")], "overhead": {"cpu": "50m"}}), 1050, 1024);
        check(json!({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}), 3000, 1024);
    }

    #[test]
    fn init_containers_count_when_they_need_more_and_sidecars_always() {
        check(json!({"containers": [container("1")], "initContainers": [container("2")]}), 2000, 1024);
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = "Always".into();
        let inits = json!([sidecar, container("3")]);
        check(json!({"containers": [container("1")], "initContainers": inits}), 4000, 2048);
    }

    #[test]
    fn scoring_reckons_with_defaults_for_what_is_not_requested() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"containers": [{}, {}]}})).unwrap();
        let requests = non_zero_requests(&pod.spec);
        assert_eq!((requests.milli_cpu, requests.memory), (200, 400 * 1024 * 1024));
        assert_eq!(pod_requests(&pod.spec), Resource::default());
    }
}
