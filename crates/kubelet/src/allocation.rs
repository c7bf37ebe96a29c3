//! What the node has promised to its pods, so that a resize is accepted only where there is room
//! (follows `pkg/kubelet/allocation`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use api::core::pod::resources::{Counted, pod_requests};
use api::view::core::Pod;
use apimachinery::json;

use crate::pod::resize::Pending;
use crate::volumes::downward::Allocatable;

/// What one pod requests as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    milli_cpu: i64,
    memory_bytes: i64,
    burstable: bool,
}

/// One of the amounts that are requested.
type Amount = fn(&Requests) -> i64;

impl Requests {
    pub fn of(pod: &Pod) -> Self {
        let total = pod_requests(&json!({"spec": pod.spec}), Counted::Spec);
        Requests {
            milli_cpu: total.get("cpu").map_or(0, |amount| amount.milli_value()),
            memory_bytes: total.get("memory").map_or(0, |amount| amount.value()),
            burstable: pod.status.qos_class == "Burstable",
        }
    }
}

/// Written by the pods' workers; one that ends takes its pod's share out.
#[derive(Debug, Default)]
pub struct Ledger {
    capacity: Allocatable,
    /// By pod uid.
    promised: Mutex<HashMap<String, Requests>>,
}

impl Ledger {
    pub fn new(capacity: Allocatable) -> Self {
        Ledger { capacity, promised: Mutex::default() }
    }

    /// Records what a pod already has, whether there is room or not.
    pub fn record(&self, uid: &str, requests: Requests) {
        self.promised().insert(uid.to_owned(), requests);
    }

    pub fn release(&self, uid: &str) {
        self.promised().remove(uid);
    }

    /// What the burstable pods have of the CPU together.
    pub fn burstable_milli_cpu(&self) -> i64 {
        self.promised()
            .values()
            .filter(|requests| requests.burstable)
            .map(|requests| requests.milli_cpu)
            .sum()
    }

    /// Promises a pod what it requests now, if that fits beside the others. What the pod does not ask more of always fits.
    pub fn resize(&self, uid: &str, requests: Requests) -> Result<(), Pending> {
        let mut promised = self.promised();
        let before = promised.get(uid).copied().unwrap_or_default();
        let used = |of: Amount| -> i64 {
            promised.iter().filter(|(other, _)| *other != uid).map(|(_, requests)| of(requests)).sum()
        };
        let cpu: Amount = |requests| requests.milli_cpu;
        let memory: Amount = |requests| requests.memory_bytes;
        for (name, of, capacity) in
            [("cpu", cpu, self.capacity.milli_cpu), ("memory", memory, self.capacity.memory_bytes)]
        {
            let (requested, used) = (of(&requests), used(of));
            if requested > of(&before) && requested + used > capacity {
                let reason = if requested > capacity { "Infeasible" } else { "Deferred" };
                let message = format!(
                    "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                );
                return Err(Pending { reason, message });
            }
        }
        promised.insert(uid.to_owned(), requests);
        Ok(())
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn promised(&self) -> MutexGuard<'_, HashMap<String, Requests>> {
        self.promised.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_waits_for_room_and_one_beyond_the_node_is_infeasible() {
        let ledger = Ledger::new(Allocatable { milli_cpu: 1000, memory_bytes: 1000, ..Default::default() });
        let cpu = |milli_cpu| Requests { milli_cpu, memory_bytes: 10, burstable: false };
        ledger.record("a", cpu(600));
        ledger.record("b", cpu(300));
        let reason = |milli_cpu| ledger.resize("b", cpu(milli_cpu)).err().map(|pending| pending.reason);
        assert_eq!(reason(400), None);
        assert_eq!(reason(401), Some("Deferred"));
        assert_eq!(reason(1001), Some("Infeasible"));
        ledger.release("a");
        assert_eq!(reason(1000), None);
    }

    #[test]
    fn a_pod_may_shrink_on_a_node_that_is_too_full() {
        let ledger = Ledger::new(Allocatable::default());
        let requests = |milli_cpu| Requests { milli_cpu, memory_bytes: 5, burstable: true };
        ledger.record("a", requests(5));
        assert_eq!(ledger.resize("a", requests(4)), Ok(()));
        assert_eq!(ledger.burstable_milli_cpu(), 4);
    }
}
