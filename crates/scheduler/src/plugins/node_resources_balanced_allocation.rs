//! NodeResourcesBalancedAllocation: better a node whose CPU and memory the pod brings closer to
//! being used alike.

use crate::framework::{MAX_NODE_SCORE, Score};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

struct BalancedAllocation<'a>(&'a PodInfo);

pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    let best_effort = pod.requests.milli_cpu == 0 && pod.requests.memory == 0;
    (!best_effort).then(|| Box::new(BalancedAllocation(pod)) as _)
}

impl Score for BalancedAllocation<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (pod, used, capacity) = (&self.0.requests, &node.requested, &node.allocatable);
        let before = [(used.milli_cpu, capacity.milli_cpu), (used.memory, capacity.memory)];
        let after = [
            (used.milli_cpu + pod.milli_cpu, capacity.milli_cpu),
            (used.memory + pod.memory, capacity.memory),
        ];
        // Either balance is within 50..=100; so is the result, 75 when the pod changes nothing.
        MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + balance(after) - balance(before)) / 2
    }
}

/// 100 when both shares are equal, less by their standard deviation.
fn balance(amounts: [(i64, i64); 2]) -> i64 {
    let shares =
        amounts.map(|(used, capacity)| (capacity != 0).then(|| (used as f64 / capacity as f64).min(1.0)));
    let deviation = match shares {
        [Some(cpu), Some(memory)] => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use crate::testing::check_scores;

    #[test]
    fn a_node_the_pod_brings_into_balance_is_better() {
        let node =
            |cpu: &str, memory: &str| json!({"status": {"allocatable": {"cpu": cpu, "memory": memory}}});
        let spec = json!({"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]});
        check_scores(
            super::score,
            spec,
            &[node("2", "2Gi"), node("2", "1Gi"), node("1", "100Gi")],
            &[75, 62, 50],
        );
    }
}
