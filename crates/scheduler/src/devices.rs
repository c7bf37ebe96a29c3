//! Claims to devices and what drivers publish, kept up to date from changes (upstream: `DefaultDRAManager`).
//!
//! Devices that a decision has given out count as taken until the API server tells of the claim, so that the next
//! decision does not give them away again.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use api::view::core::ContainerExtendedResourceRequest;
use api::view::dynamicresource::{
    AllocationResult, DEVICE_CLASS_RESOURCES, DeviceClass, ResourceClaim, ResourceSlice,
};
use apimachinery::meta::NamespacedName;
use client::Delta;

use crate::extendedresources::unmade_uid;
use crate::framework::ClusterEvent;
use crate::objects::{Objects, put};
use crate::podinfo::PodInfo;
use crate::structured::Allocated;

#[derive(Clone, Debug, Default)]
pub struct Devices {
    claims: Objects<ResourceClaim>,
    classes: Objects<DeviceClass>,
    slices: Objects<ResourceSlice>,
    /// Decided but not yet heard of, by the claim's uid.
    in_flight: HashMap<String, Arc<AllocationResult>>,
}

/// A change of any of these.
pub enum Change {
    Claim(Delta<ResourceClaim>),
    Class(Delta<DeviceClass>),
    Slice(Delta<ResourceSlice>),
}

/// What a pod's placement needs of its claims before the pod may be bound: those that do not name it as a user yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodDevices {
    pub reservations: Vec<Reservation>,
    /// Which containers get the devices of the claim that is made for the pod's extended resources.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    pub claim: Arc<ResourceClaim>,
    /// The devices for a claim that has none.
    pub allocation: Option<Arc<AllocationResult>>,
}

impl PodDevices {
    pub fn is_empty(&self) -> bool {
        self.reservations.is_empty()
    }

    /// The claim for the pod's extended resources, if there is one.
    pub fn made_for(&self, pod: &PodInfo) -> Option<&Arc<ResourceClaim>> {
        let last = self.reservations.last().filter(|_| !self.mappings.is_empty())?;
        Some(&last.claim).filter(|claim| claim.extended_resources_of() == Some(pod.uid()))
    }
}

impl Devices {
    /// Takes a change and says what it may mean for waiting pods.
    pub fn apply(&mut self, change: &Change) -> ClusterEvent {
        match change {
            Change::Claim(delta) => {
                put(&mut self.claims, delta);
                let claim = delta.object();
                if claim.status.allocation.is_some() || matches!(delta, Delta::Deleted(_)) {
                    self.in_flight.remove(&claim.metadata.uid);
                    // The claim was not made yet when its devices were chosen.
                    if let Some(pod) = claim.extended_resources_of() {
                        self.in_flight.remove(&unmade_uid(pod));
                    }
                }
                ClusterEvent::ResourceClaim
            }
            Change::Class(delta) => {
                put(&mut self.classes, delta);
                ClusterEvent::DeviceClass
            }
            Change::Slice(delta) => {
                put(&mut self.slices, delta);
                ClusterEvent::ResourceSlice
            }
        }
    }

    /// From now on the decision counts as carried out.
    pub fn assume(&mut self, decided: &PodDevices) {
        for reservation in &decided.reservations {
            if let Some(allocation) = &reservation.allocation {
                self.in_flight.insert(reservation.claim.metadata.uid.clone(), allocation.clone());
            }
        }
    }

    /// The decision was not carried out.
    pub fn revert(&mut self, decided: &PodDevices) {
        for reservation in decided.reservations.iter().filter(|reservation| reservation.allocation.is_some())
        {
            self.in_flight.remove(&reservation.claim.metadata.uid);
        }
    }

    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(&NamespacedName::new(namespace, name))
    }

    pub fn is_in_flight(&self, claim: &ResourceClaim) -> bool {
        self.in_flight.contains_key(&claim.metadata.uid)
    }

    pub fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(&NamespacedName::new("", name))
    }

    pub fn classes(&self) -> impl Iterator<Item = &Arc<DeviceClass>> {
        self.classes.values()
    }

    /// The class whose devices this resource is: of several, the newest (upstream: `ExtendedResourceCache`).
    pub fn class_of_resource(&self, resource: &str) -> Option<&Arc<DeviceClass>> {
        if let Some(class) = resource.strip_prefix(DEVICE_CLASS_RESOURCES) {
            return self.class(class);
        }
        let named =
            self.classes().filter(|class| class.spec.extended_resource_name.as_deref() == Some(resource));
        named.max_by_key(|class| (class.metadata.creation_timestamp, Reverse(&class.metadata.name)))
    }

    /// The claim that was made for the extended resources of this pod.
    pub fn claim_of_extended_resources(&self, pod_uid: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.values().find(|claim| claim.extended_resources_of() == Some(pod_uid))
    }

    pub fn slices(&self) -> impl Iterator<Item = &Arc<ResourceSlice>> {
        self.slices.values()
    }

    /// What all claims have.
    pub fn allocated(&self) -> Allocated<'_> {
        let mut allocated = Allocated::default();
        let told = self.claims.values().filter_map(|claim| claim.status.allocation.as_ref());
        told.chain(self.in_flight.values().map(|allocation| &**allocation)).for_each(|a| allocated.add(a));
        allocated
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::structured::DeviceId;

    #[test]
    fn devices_count_as_taken_from_the_decision_until_they_are_given_back() {
        let result = json!({"request": "r", "driver": "d", "pool": "p", "device": "x"});
        let allocation = json!({"devices": {"results": [result]}});
        let claim = |status| -> Arc<ResourceClaim> {
            let meta = json!({"name": "c", "namespace": "n", "uid": "u"});
            Arc::new(apimachinery::from_value(json!({"metadata": meta, "status": status})).unwrap())
        };
        let is_taken = |devices: &Devices| {
            devices.allocated().is_whole(DeviceId { driver: "d", pool: "p", device: "x" })
        };
        let mut devices = Devices::default();
        devices.apply(&Change::Claim(Delta::Added(claim(json!({})))));
        let decided = PodDevices {
            reservations: vec![Reservation {
                claim: claim(json!({})),
                allocation: Some(Arc::new(apimachinery::from_value(allocation.clone()).unwrap())),
            }],
            ..PodDevices::default()
        };
        devices.assume(&decided);
        assert!(is_taken(&devices) && devices.is_in_flight(&claim(json!({}))));
        devices.revert(&decided);
        assert!(!is_taken(&devices));
        devices.assume(&decided);
        devices.apply(&Change::Claim(Delta::Added(claim(json!({"allocation": allocation})))));
        assert!(is_taken(&devices) && !devices.is_in_flight(&claim(json!({}))));
        devices.apply(&Change::Claim(Delta::Added(claim(json!({})))));
        assert!(!is_taken(&devices));
    }
}
