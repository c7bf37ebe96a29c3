//! What parts of one device share: a part can be had while what all of them take is there (follows upstream's
//! `checkAvailableCounters`).

use std::collections::BTreeMap;

use api::view::dynamicresource::{CounterSet, Device};
use apimachinery::quantity::Quantity;

use super::DeviceId;
use super::allocated::Allocated;
use super::pools::Pool;

/// By set and counter.
type Taken<'a> = BTreeMap<(&'a str, &'a str), Quantity>;

/// Whether devices take only from counters that the pool has.
pub fn are_known(pool: &Pool<'_>) -> bool {
    let devices = pool.slices.iter().flat_map(|slice| &slice.spec.devices);
    let mut sets = devices.flat_map(|device| &device.consumes_counters);
    sets.all(|taken| {
        let known = pool.counter_sets.get(taken.name.as_str());
        known.is_some_and(|known| taken.counters.keys().all(|name| known.counters.contains_key(name)))
    })
}

/// Whether the device's counters suffice besides what is allocated and chosen already.
pub fn suffice<'a>(
    pool: &Pool<'a>,
    allocated: &Allocated<'_>,
    chosen: impl Iterator<Item = &'a Device>,
    device: &'a Device,
) -> bool {
    if device.consumes_counters.is_empty() {
        return true;
    }
    let mut taken = Taken::new();
    let mut take = |sets: &'a [CounterSet]| {
        for set in sets {
            for (name, counter) in &set.counters {
                taken.entry((&set.name, name)).or_default().add(&counter.value);
            }
        }
    };
    for slice in &pool.slices {
        let of_others = |device: &&Device| {
            allocated.is_in_use(DeviceId { driver: pool.id.0, pool: pool.id.1, device: &device.name })
        };
        slice.spec.devices.iter().filter(of_others).for_each(|device| take(&device.consumes_counters));
    }
    chosen.chain([device]).for_each(|device| take(&device.consumes_counters));
    taken.iter().all(|((set, name), amount)| {
        let counter = pool.counter_sets.get(set).and_then(|set| set.counters.get(*name));
        counter.is_some_and(|counter| *amount <= counter.value)
    })
}
