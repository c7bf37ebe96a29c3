//! Claims to devices and what drivers publish, kept up to date from changes (upstream: `DefaultDRAManager`).
//!
//! Devices that a decision has given out count as taken until the API server tells of the claim, so that the next
//! decision does not give them away again.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::dynamicresource::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use apimachinery::meta::NamespacedName;
use client::Delta;

use crate::framework::ClusterEvent;
use crate::objects::{Objects, put};
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
            Arc::new(serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap())
        };
        let is_taken = |devices: &Devices| {
            devices.allocated().is_whole(DeviceId { driver: "d", pool: "p", device: "x" })
        };
        let mut devices = Devices::default();
        devices.apply(&Change::Claim(Delta::Added(claim(json!({})))));
        let decided = PodDevices {
            reservations: vec![Reservation {
                claim: claim(json!({})),
                allocation: Some(Arc::new(serde_json::from_value(allocation.clone()).unwrap())),
            }],
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
