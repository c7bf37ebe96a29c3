//! Extended resources that devices are: what a pod asks for in containers becomes the requests of one claim, made for it by
//! the scheduler (follows `extendeddynamicresources.go` of upstream's plugin).

use std::collections::{BTreeMap, BTreeSet};

use api::resource::PODS;
use api::view::core::{Container, ContainerExtendedResourceRequest};
use api::view::dynamicresource::{
    DeviceRequest, EXTENDED_RESOURCE_CLAIM, ExactDeviceRequest, ResourceClaim, may_be_devices,
};
use apimachinery::meta::{ObjectMeta, OwnerReference};
use apimachinery::quantity::Quantity;

use crate::devices::Devices;
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;

/// The name of the claim until it is made; no claim can have it.
const UNMADE: &str = "<extended-resources>";

/// What of a pod's requests devices may serve, each resource with its class.
#[derive(Clone, Debug)]
pub struct ExtendedResources<'a> {
    pod: &'a PodInfo,
    classes: BTreeMap<&'a str, &'a str>,
}

/// The claim for one node, and which container gets the devices of which of its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub claim: ResourceClaim,
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

/// Whether it is still to be made.
pub fn is_unmade(claim: &ResourceClaim) -> bool {
    claim.metadata.name == UNMADE
}

/// By what a claim that is not made yet is known (the claim itself gets another uid).
pub fn unmade_uid(pod_uid: &str) -> String {
    format!("{UNMADE}/{pod_uid}")
}

/// Whether devices have to serve the resource on this node, which has none of it itself (upstream:
/// `shouldDelegateResourceToDRA`).
pub fn is_served_by_devices(resource: &str, node: &NodeInfo, devices: &Devices) -> bool {
    !has_own(resource, node) && devices.class_of_resource(resource).is_some()
}

fn has_own(resource: &str, node: &NodeInfo) -> bool {
    node.allocatable.scalar.get(resource).is_some_and(|amount| *amount > 0)
}

impl<'a> ExtendedResources<'a> {
    /// None where the pod asks for nothing that is devices.
    pub fn of(pod: &'a PodInfo, devices: &'a Devices) -> Option<ExtendedResources<'a>> {
        let wanted = pod.requests.scalar.iter().filter(|(name, amount)| **amount > 0 && may_be_devices(name));
        let classes: BTreeMap<_, _> = wanted
            .filter_map(|(name, _)| {
                Some((name.as_str(), devices.class_of_resource(name)?.metadata.name.as_str()))
            })
            .collect();
        (!classes.is_empty()).then_some(ExtendedResources { pod, classes })
    }

    /// None where the node has all of it itself.
    pub fn on(&self, node: &NodeInfo) -> Option<Asked> {
        let wanted = self.classes.iter().filter(|(resource, _)| !has_own(resource, node));
        let (mut requests, mut mappings) = (Vec::new(), Vec::new());
        for (resource, class) in wanted {
            let (more, of_containers) = Demand::new(self.pod, resource, class).served();
            requests.extend(more);
            mappings.extend(of_containers);
        }
        if requests.is_empty() {
            return None;
        }
        requests.sort_by(|a, b| a.name.cmp(&b.name));
        let mut claim = self.claim();
        claim.spec.devices.requests = requests;
        Some(Asked { claim, mappings })
    }

    fn claim(&self) -> ResourceClaim {
        let pod = &self.pod.pod.metadata;
        let owner = OwnerReference {
            api_version: PODS.api_version(),
            kind: PODS.kind.to_owned(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let metadata = ObjectMeta {
            name: UNMADE.to_owned(),
            generate_name: format!("{}-extended-resources-", pod.name),
            namespace: pod.namespace.clone(),
            uid: unmade_uid(&pod.uid),
            annotations: BTreeMap::from([(EXTENDED_RESOURCE_CLAIM.to_owned(), "true".to_owned())]),
            owner_references: vec![owner],
            ..ObjectMeta::default()
        };
        ResourceClaim { metadata, ..ResourceClaim::default() }
    }
}

/// One resource as the containers of a pod ask for it. Init containers that end, end before others begin: they use the
/// devices of those that come later, and of each other.
struct Demand<'a> {
    resource: &'a str,
    class: &'a str,
    /// Those that ask for it, by their places among all.
    containers: Vec<(usize, &'a Container, i64)>,
    /// The places of init containers that end.
    short_lived: BTreeSet<usize>,
}

impl<'a> Demand<'a> {
    fn new(pod: &'a PodInfo, resource: &'a str, class: &'a str) -> Demand<'a> {
        let spec = &pod.pod.spec;
        let all = spec.init_containers.iter().chain(&spec.containers).enumerate();
        let containers = all.filter_map(|(place, container)| {
            let amount = container.resources.requests.get(resource)?.parse::<Quantity>().ok()?.value();
            (amount > 0).then_some((place, container, amount))
        });
        let ends =
            |(_, container): &(usize, &Container)| container.restart_policy.as_deref() != Some("Always");
        let short_lived =
            spec.init_containers.iter().enumerate().filter(ends).map(|(place, _)| place).collect();
        Demand { resource, class, containers: containers.collect(), short_lived }
    }

    fn served(&self) -> (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>) {
        let is_short = |place: &usize| self.short_lived.contains(place);
        let mut mappings = Vec::new();
        let mut lasting = BTreeMap::new();
        for (place, container, amount) in self.containers.iter().filter(|(place, ..)| !is_short(place)) {
            let request = self.request(*place, container, *amount);
            mappings.push(self.mapping(container, &request.0));
            lasting.insert(*place, request);
        }
        // The largest of the requests that only short-lived ones have serves them all.
        let mut largest: Option<Request> = None;
        let (mut of_short, mut own_names) = (Vec::new(), BTreeSet::new());
        for (place, container, amount) in self.containers.iter().filter(|(place, ..)| is_short(place)) {
            let mut left = *amount;
            for (name, count) in lasting.range(place..).map(|(_, request)| request) {
                if left > 0 {
                    of_short.push(self.mapping(container, name));
                    left -= count;
                }
            }
            if left > 0 {
                let own = self.request(*place, container, left);
                of_short.push(self.mapping(container, &own.0));
                own_names.insert(own.0.clone());
                if largest.as_ref().is_none_or(|largest| largest.1 < own.1) {
                    largest = Some(own);
                }
            }
        }
        if let Some((name, _)) = &largest {
            let shared = of_short.iter_mut().filter(|mapping| own_names.contains(&mapping.request_name));
            shared.for_each(|mapping| mapping.request_name.clone_from(name));
        }
        mappings.extend(of_short);
        let requests = largest.into_iter().chain(lasting.into_values());
        (requests.map(|request| self.exactly(request)).collect(), mappings)
    }

    /// Named by the places of the container and of the resource among what it asks for.
    fn request(&self, place: usize, container: &Container, count: i64) -> Request {
        let position = container.resources.requests.keys().position(|name| name == self.resource);
        (format!("container-{place}-request-{}", position.unwrap_or_default()), count)
    }

    fn exactly(&self, (name, count): Request) -> DeviceRequest {
        let exactly = ExactDeviceRequest {
            device_class_name: self.class.to_owned(),
            allocation_mode: "ExactCount".to_owned(),
            count,
            ..ExactDeviceRequest::default()
        };
        DeviceRequest { name, exactly: Some(exactly), ..DeviceRequest::default() }
    }

    fn mapping(&self, container: &Container, request: &str) -> ContainerExtendedResourceRequest {
        ContainerExtendedResourceRequest {
            container_name: container.name.clone(),
            resource_name: self.resource.to_owned(),
            request_name: request.to_owned(),
        }
    }
}

/// A name, and how many devices.
type Request = (String, i64);

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::devices::Change;
    use crate::testing::{added, node_info, pod_info};

    fn devices() -> Devices {
        let class = |name: &str, resource: &str, at: &str| json!({"metadata": {"name": name, "creationTimestamp": at}, "spec": {"extendedResourceName": resource}});
        let mut devices = Devices::default();
        for class in [
            class("old", "e.com/gpu", "2026-01-01T00:00:00Z"),
            class("new", "e.com/gpu", "2026-01-02T00:00:00Z"),
            class("same", "e.com/gpu", "2026-01-02T00:00:00Z"),
        ] {
            devices.apply(&Change::Class(added(&class)));
        }
        devices
    }

    fn container(name: &str, requests: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests}})
    }

    /// On a node with these amounts: requests as `name=class*count`, and mappings as `container/resource/request`.
    fn check(spec: Value, allocatable: Value, expect: Option<(&[&str], &[&str])>) {
        let (pod, devices) = (pod_info(spec.clone()), devices());
        let node = node_info(json!({"status": {"allocatable": allocatable}}));
        let asked = ExtendedResources::of(&pod, &devices).and_then(|extended| extended.on(&node));
        let shown = asked.map(|Asked { claim, mappings }| {
            let requests = claim.spec.devices.requests.iter().map(|request| {
                let exactly = request.exactly.as_ref().expect("is exact");
                format!("{}={}*{}", request.name, exactly.device_class_name, exactly.count)
            });
            let mappings = mappings
                .iter()
                .map(|m| format!("{}/{}/{}", m.container_name, m.resource_name, m.request_name));
            (requests.collect::<Vec<_>>(), mappings.collect::<Vec<_>>())
        });
        let strings = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            shown,
            expect.map(|(requests, mappings)| (strings(requests), strings(mappings))),
            "{spec}"
        );
    }

    #[test]
    fn what_the_node_has_not_is_claimed_by_container_and_resource() {
        let requests = json!({"cpu": "1", "e.com/gpu": "2", "deviceclass.resource.kubernetes.io/old": "1"});
        let spec =
            json!({"containers": [container("a", json!({"e.com/none": "1"})), container("b", requests)]});
        let implicit = "b/deviceclass.resource.kubernetes.io/old/container-1-request-1";
        check(
            spec.clone(),
            json!({}),
            Some((
                &["container-1-request-1=old*1", "container-1-request-2=new*2"],
                &[implicit, "b/e.com/gpu/container-1-request-2"],
            )),
        );
        check(spec, json!({"e.com/gpu": "4"}), Some((&["container-1-request-1=old*1"], &[implicit])));
        check(
            json!({"containers": [container("a", json!({"e.com/gpu": "2"}))]}),
            json!({"e.com/gpu": "4"}),
            None,
        );
        check(
            json!({"containers": [container("a", json!({"e.com/gpu": "0", "cpu": "1"}))]}),
            json!({}),
            None,
        );
    }

    #[test]
    fn init_containers_that_end_use_the_devices_of_others() {
        let gpus = |name: &str, count: &str| container(name, json!({"e.com/gpu": count}));
        let mut sidecar = gpus("s", "1");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"initContainers": [gpus("i", "2"), sidecar, gpus("j", "5"), gpus("k", "4")],
            "containers": [gpus("c", "3")]});
        check(
            spec,
            json!({}),
            Some((
                &[
                    "container-1-request-0=new*1",
                    "container-2-request-0=new*2",
                    "container-4-request-0=new*3",
                ],
                &[
                    "s/e.com/gpu/container-1-request-0",
                    "c/e.com/gpu/container-4-request-0",
                    // The first finds enough with the sidecar and the container that lasts.
                    "i/e.com/gpu/container-1-request-0",
                    "i/e.com/gpu/container-4-request-0",
                    // The others come after the sidecar has begun.
                    "j/e.com/gpu/container-4-request-0",
                    "j/e.com/gpu/container-2-request-0",
                    "k/e.com/gpu/container-4-request-0",
                    "k/e.com/gpu/container-2-request-0",
                ],
            )),
        );
    }
}
