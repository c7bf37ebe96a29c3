//! Ends the node's pods in order before the node goes down: the least important first, each group with its share of the
//! time (follows the kubelet's `nodeshutdown` package).

use std::collections::BTreeMap;
use std::time::Duration;

use api::view::core::Pod;

use crate::active::{Active, ActivePods};
use crate::pod::memory::Failure;

/// The priority from which on pods get the critical share of the time.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Upstream's `shutdownGracePeriodByPodPriority`: seconds by the least priority that gets them. None means that pods go on
/// running when the kubelet ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods(BTreeMap<i32, u64>);

impl Periods {
    /// From `shutdownGracePeriod` and the part of it that is kept for critical pods.
    pub fn of(total: Duration, critical: Duration) -> Self {
        if total.is_zero() {
            return Periods::default();
        }
        let critical = critical.min(total);
        Periods([(0, (total - critical).as_secs()), (CRITICAL_PRIORITY, critical.as_secs())].into())
    }

    /// Whether pods go on running when the kubelet ends.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it takes at most.
    pub fn total(&self) -> Duration {
        Duration::from_secs(self.0.values().sum())
    }

    /// Which of the periods a pod belongs to; one that is less important than all belongs to the first.
    fn of_pod(&self, pod: &Pod) -> Option<i32> {
        let priority = pod.spec.priority.unwrap_or(0);
        let own = self.0.range(..=priority).next_back();
        own.or_else(|| self.0.first_key_value()).map(|(least, _)| *least)
    }
}

impl FromIterator<(i32, u64)> for Periods {
    fn from_iter<I: IntoIterator<Item = (i32, u64)>>(rows: I) -> Self {
        Periods(rows.into_iter().collect())
    }
}

/// Returns when all pods have ended, or their time is over.
pub async fn end_pods(active: &ActivePods, periods: &Periods) {
    for (least, seconds) in &periods.0 {
        let group = |active: &Active| periods.of_pod(&active.pod) == Some(*least);
        let group: Vec<Active> = active.list().into_iter().filter(group).collect();
        tracing::info!(
            pods = group.len(),
            seconds,
            priority = least,
            "ending pods before the node goes down"
        );
        let ended = async {
            for active in &group {
                active.end(failure(&active.pod, *seconds));
            }
            for active in &group {
                active.ended().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(*seconds), ended).await.is_err() {
            tracing::warn!(priority = least, "pods have not ended in their time");
        }
    }
}

fn failure(pod: &Pod, seconds: u64) -> Failure {
    let period = i64::try_from(seconds).unwrap_or(i64::MAX);
    let own = pod.spec.termination_grace_period_seconds;
    let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
    Failure {
        reason: "Terminated".to_owned(),
        message: message.clone(),
        grace_seconds: Some(own.map_or(period, |own| own.min(period))),
        disruption: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(periods: &Periods, priority: Option<i32>, expect: Option<i32>) {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"priority": priority}})).expect("a pod");
        assert_eq!(periods.of_pod(&pod), expect, "{priority:?}");
    }

    #[test]
    fn critical_pods_go_last_with_their_own_share() {
        let periods = Periods::of(Duration::from_secs(30), Duration::from_secs(10));
        assert_eq!(periods.0, [(0, 20), (CRITICAL_PRIORITY, 10)].into());
        assert_eq!(periods.total(), Duration::from_secs(30));
        check(&periods, None, Some(0));
        check(&periods, Some(-5), Some(0));
        check(&periods, Some(CRITICAL_PRIORITY - 1), Some(0));
        check(&periods, Some(CRITICAL_PRIORITY + 1000), Some(CRITICAL_PRIORITY));
    }

    #[test]
    fn without_a_period_nothing_is_ended() {
        let periods = Periods::of(Duration::ZERO, Duration::from_secs(10));
        assert!(periods.is_empty());
        check(&periods, Some(0), None);
    }

    #[test]
    fn a_pod_gets_no_more_time_than_it_asks_for() {
        let pod: Pod =
            apimachinery::from_value(json!({"spec": {"terminationGracePeriodSeconds": 5}})).expect("a pod");
        assert_eq!(failure(&pod, 20).grace_seconds, Some(5));
        assert_eq!(failure(&Pod::default(), 20).grace_seconds, Some(20));
    }
}
