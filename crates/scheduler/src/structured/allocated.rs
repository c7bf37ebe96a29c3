//! Which devices others have, whole or in shares.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::view::dynamicresource::AllocationResult;
use apimachinery::quantity::Quantity;

use super::DeviceId;

/// By the name of a capacity, how much of it is taken.
pub type Shares<'a> = BTreeMap<&'a str, Quantity>;

#[derive(Debug, Default)]
pub struct Allocated<'a> {
    whole: HashSet<DeviceId<'a>>,
    shared: HashMap<DeviceId<'a>, Shares<'a>>,
}

impl<'a> Allocated<'a> {
    pub fn add(&mut self, allocation: &'a AllocationResult) {
        for result in &allocation.devices.results {
            let id = DeviceId { driver: &result.driver, pool: &result.pool, device: &result.device };
            match (&result.share_id, result.admin_access) {
                // Who only looks after a device takes nothing from others.
                (_, Some(true)) => {}
                (None, _) => drop(self.whole.insert(id)),
                (Some(_), _) => {
                    let shares = self.shared.entry(id).or_default();
                    for (name, amount) in &result.consumed_capacity {
                        shares.entry(name).or_default().add(amount);
                    }
                }
            }
        }
    }

    pub fn is_whole(&self, id: DeviceId<'_>) -> bool {
        self.whole.contains(&id)
    }

    pub fn shares<'s>(&'s self, id: DeviceId<'s>) -> Option<&'s Shares<'a>> {
        self.shared.get(&id)
    }

    pub fn is_in_use(&self, id: DeviceId<'_>) -> bool {
        self.is_whole(id) || self.shared.contains_key(&id)
    }
}
