//! A node that is short of something takes no more pods than it must (follows `Admit` of the eviction manager). Pure.

use api::core::pod::resources::qos_class;
use api::view::core::{Pod, Taint};
use apimachinery::json;

use super::Refusal;
use crate::eviction::{Condition, Pressure, is_critical};

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

pub fn admit(pod: &Pod, pressure: &Pressure) -> Result<(), Refusal> {
    if pressure.is_empty() || is_critical(pod) {
        return Ok(());
    }
    if *pressure == Pressure::from([Condition::Memory]) {
        let taint =
            Taint { key: MEMORY_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let tolerates = pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&taint));
        if tolerates || qos_class(&json!({"spec": pod.spec})) != "BestEffort" {
            return Ok(());
        }
    }
    let kinds: Vec<&str> = pressure.iter().map(|condition| condition.kind()).collect();
    Err(Refusal::new("Evicted", format!("The node had condition: [{}]. ", kinds.join(" "))))
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;

    fn check(spec: Value, pressure: &[Condition], expect: Option<&str>) {
        let pod: Pod = apimachinery::from_value(json!({"spec": spec})).expect("a pod");
        let refused = admit(&pod, &pressure.iter().copied().collect()).err().map(|refusal| refusal.message);
        assert_eq!(refused.as_deref(), expect);
    }

    #[test]
    fn short_of_memory_a_node_takes_who_says_what_it_needs() {
        let burstable = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1m"}}}]});
        let best_effort = json!({"containers": [{"name": "a"}]});
        let tolerant = json!({"containers": [{"name": "a"}], "tolerations": [{"key": MEMORY_TAINT, "operator": "Exists"}]});
        let memory = Some("The node had condition: [MemoryPressure]. ");
        check(best_effort.clone(), &[], None);
        check(best_effort, &[Condition::Memory], memory);
        check(burstable.clone(), &[Condition::Memory], None);
        check(tolerant, &[Condition::Memory], None);
        check(
            burstable,
            &[Condition::Memory, Condition::Disk],
            Some("The node had condition: [MemoryPressure DiskPressure]. "),
        );
        check(json!({"priority": 2_000_000_000, "containers": []}), &[Condition::Disk], None);
    }
}
