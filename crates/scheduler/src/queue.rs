//! Pods that want a node: ready ones by priority, those backing off by when they may try again, and
//! those that wait for the cluster to change (upstream: PriorityQueue).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::view::core::Pod;
use api::view::dynamicresource::claim_name;
use jiff::Timestamp;

use crate::framework::{ClusterEvent, EventSet};
use crate::plugins::PLUGINS;
use crate::podinfo::PodInfo;

/// The pause after the first failed attempt; it doubles with each (upstream: podInitialBackoffSeconds).
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// The longest pause (upstream: podMaxBackoffSeconds).
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Higher priority first, then who has waited longer, then by UID.
type ActiveKey = (Reverse<i32>, Timestamp, String);

#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, Queued>,
    /// Pods in `Place::Active`.
    active: BTreeSet<ActiveKey>,
    /// Pods in `Place::Backoff`, by when they become active.
    backoff: BTreeSet<(Timestamp, String)>,
    /// How many pods are in `Place::Unschedulable`, and in `Place::Gated`.
    unschedulable: usize,
    gated: usize,
}

/// How many pods are in which place, but for those with an attempt under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pending {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

struct Queued {
    pod: Arc<PodInfo>,
    place: Place,
    /// When it was last put where it is.
    since: Timestamp,
    attempts: u32,
}

enum Place {
    Active,
    Backoff {
        until: Timestamp,
        /// Failed for no fault of the pod's; only then the pause is kept even when nothing else waits.
        after_error: bool,
    },
    /// Waits for an event that one of these plugins wants; none means any event.
    Unschedulable {
        rejectors: Vec<&'static str>,
    },
    /// Has scheduling gates.
    Gated,
    /// An attempt is under way, during which these events came.
    InFlight {
        events: EventSet,
        changed: bool,
    },
}

impl Queue {
    /// Takes a pending pod as it is now.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Timestamp) {
        let uid = pod.uid().to_owned();
        let Some(queued) = self.pods.get_mut(&uid) else {
            let place = if is_gated(&pod) { Place::Gated } else { Place::Active };
            self.pods.insert(uid.clone(), Queued { pod, place: Place::Gated, since: now, attempts: 0 });
            self.gated += 1;
            return self.put(&uid, place, now);
        };
        let matters = matters(&queued.pod.pod, &pod.pod);
        let same_order = queued.pod.priority() == pod.priority();
        let old = std::mem::replace(&mut queued.pod, pod);
        match &mut queued.place {
            Place::InFlight { changed, .. } => *changed |= matters,
            Place::Gated if !is_gated(&queued.pod) => self.put(&uid, Place::Active, now),
            Place::Unschedulable { .. } if matters => self.retry(&uid, now),
            Place::Active if !same_order => {
                self.active.remove(&(Reverse(old.priority()), queued.since, uid.clone()));
                self.put(&uid, Place::Active, now);
            }
            _ => {}
        }
    }

    /// Forgets a pod, wherever it is.
    pub fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.pods.remove(uid);
    }

    /// The pod to schedule next; `fail`, `error` or `remove` must follow. Like upstream's, a pod that
    /// backs off after finding no room comes when nothing else is ready.
    pub fn pop(&mut self, now: Timestamp) -> Option<Arc<PodInfo>> {
        self.release(now);
        let ready = self.active.first().map(|(_, _, uid)| uid.clone());
        let uid = ready.or_else(|| {
            let patient = |(_, uid): &&(Timestamp, String)| {
                matches!(self.pods[uid].place, Place::Backoff { after_error: false, .. })
            };
            self.backoff.iter().find(patient).map(|(_, uid)| uid.clone())
        })?;
        self.put(&uid, Place::InFlight { events: EventSet::default(), changed: false }, now);
        let queued = self.pods.get_mut(&uid).expect("a pod in a queue is known");
        queued.attempts = queued.attempts.saturating_add(1);
        Some(queued.pod.clone())
    }

    /// No node was found, for these plugins' reasons.
    pub fn fail(&mut self, uid: &str, rejectors: Vec<&'static str>, now: Timestamp) {
        let Some(Queued { place: Place::InFlight { events, changed }, .. }) = self.pods.get(uid) else {
            return;
        };
        let again = *changed || wakes(&rejectors, *events);
        self.put(uid, Place::Unschedulable { rejectors }, now);
        if again {
            self.retry(uid, now);
        }
    }

    /// The attempt failed for no fault of the pod's.
    pub fn error(&mut self, uid: &str, now: Timestamp) {
        if let Some(queued) = self.pods.get(uid) {
            let until = now + backoff(queued.attempts);
            self.put(uid, Place::Backoff { until, after_error: true }, now);
        }
    }

    /// Has those pods try again whose refusal these events may reverse.
    pub fn wake(&mut self, events: &[ClusterEvent], now: Timestamp) {
        let set: EventSet = events.iter().copied().collect();
        let mut woken = Vec::new();
        for (uid, queued) in &mut self.pods {
            match &mut queued.place {
                Place::InFlight { events: seen, .. } => events.iter().for_each(|event| seen.insert(*event)),
                Place::Unschedulable { rejectors } if wakes(rejectors, set) => woken.push(uid.clone()),
                _ => {}
            }
        }
        woken.iter().for_each(|uid| self.retry(uid, now));
    }

    /// When `pop` may give a pod it does not give now.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.backoff.first().map(|(until, _)| *until)
    }

    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|queued| &queued.pod)
    }

    /// How many attempts there have been for a pod.
    pub fn attempts(&self, uid: &str) -> u32 {
        self.pods.get(uid).map_or(0, |queued| queued.attempts)
    }

    pub fn pending(&self) -> Pending {
        Pending {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable,
            gated: self.gated,
        }
    }

    /// Into the active queue, or into backoff when the last attempt is too recent.
    fn retry(&mut self, uid: &str, now: Timestamp) {
        let queued = &self.pods[uid];
        let until = queued.since + backoff(queued.attempts);
        let place = if until <= now { Place::Active } else { Place::Backoff { until, after_error: false } };
        self.put(uid, place, now);
    }

    fn release(&mut self, now: Timestamp) {
        while let Some((_, uid)) = self.backoff.first().filter(|(until, _)| *until <= now) {
            let uid = uid.clone();
            self.put(&uid, Place::Active, now);
        }
    }

    /// Moves a known pod.
    fn put(&mut self, uid: &str, place: Place, now: Timestamp) {
        self.take_out(uid);
        let queued = self.pods.get_mut(uid).expect("only known pods are moved");
        match &place {
            Place::Active => drop(self.active.insert((Reverse(queued.pod.priority()), now, uid.to_owned()))),
            Place::Backoff { until, .. } => drop(self.backoff.insert((*until, uid.to_owned()))),
            Place::Unschedulable { .. } => self.unschedulable += 1,
            Place::Gated => self.gated += 1,
            Place::InFlight { .. } => {}
        }
        queued.since = now;
        queued.place = place;
    }

    fn take_out(&mut self, uid: &str) {
        let Some(queued) = self.pods.get(uid) else { return };
        match queued.place {
            Place::Active => {
                self.active.remove(&(Reverse(queued.pod.priority()), queued.since, uid.to_owned()));
            }
            Place::Backoff { until, .. } => drop(self.backoff.remove(&(until, uid.to_owned()))),
            Place::Unschedulable { .. } => self.unschedulable -= 1,
            Place::Gated => self.gated -= 1,
            Place::InFlight { .. } => {}
        }
    }
}

/// By its own gates, or because a claim has yet to be made for it (upstream: PreEnqueue of the plugins).
fn is_gated(pod: &PodInfo) -> bool {
    let lacks_claim = |claim| claim_name(&pod.pod, claim).is_err();
    !pod.pod.spec.scheduling_gates.is_empty() || pod.pod.spec.resource_claims.iter().any(lacks_claim)
}

/// Whether a change of a pending pod may change its own chances.
fn matters(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.status.resource_claim_statuses != new.status.resource_claim_statuses
}

fn wakes(rejectors: &[&str], events: EventSet) -> bool {
    if rejectors.is_empty() {
        return events != EventSet::default();
    }
    let refused = PLUGINS.iter().filter(|plugin| rejectors.contains(&plugin.name));
    refused.map(|plugin| plugin.wakes).any(|wanted| events.contains_any(wanted))
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::labelled_pod;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn with_priority(name: &str, priority: i32) -> Arc<PodInfo> {
        labelled_pod(name, json!({}), json!({"priority": priority}))
    }

    fn pop(queue: &mut Queue, now: i64) -> Option<String> {
        queue.pop(at(now)).map(|pod| pod.uid().to_owned())
    }

    /// A queue whose only pod `a` has failed at second 0 for want of CPU.
    fn failed() -> Queue {
        let mut queue = Queue::default();
        queue.set(with_priority("a", 0), at(0));
        assert_eq!(pop(&mut queue, 0).as_deref(), Some("a"));
        queue.fail("a", vec!["NodeResourcesFit"], at(0));
        queue
    }

    #[test]
    fn pods_come_by_priority_and_then_by_age() {
        let mut queue = Queue::default();
        for (name, priority, now) in [("c", 0, 2), ("b", 0, 1), ("a", 7, 3)] {
            queue.set(with_priority(name, priority), at(now));
        }
        assert_eq!([pop(&mut queue, 3), pop(&mut queue, 3)], [Some("a".into()), Some("b".into())]);
        queue.remove("c");
        assert_eq!(pop(&mut queue, 3), None);
    }

    #[test]
    fn a_refused_pod_waits_for_an_event_its_plugin_wants() {
        let mut queue = failed();
        queue.wake(&[ClusterEvent::NodeTaint], at(60));
        assert_eq!(pop(&mut queue, 60), None);
        queue.wake(&[ClusterEvent::AssignedPodDelete], at(60));
        assert_eq!(pop(&mut queue, 60).as_deref(), Some("a"));
    }

    #[test]
    fn an_event_during_the_attempt_is_not_lost() {
        let mut queue = failed();
        queue.wake(&[ClusterEvent::NodeAdd], at(9));
        assert_eq!(pop(&mut queue, 9).as_deref(), Some("a"));
        queue.wake(&[ClusterEvent::NodeAllocatable], at(9));
        queue.fail("a", vec!["NodeResourcesFit"], at(9));
        assert_eq!(pop(&mut queue, 9).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_backing_off_lets_others_go_first() {
        let mut queue = failed();
        queue.wake(&[ClusterEvent::NodeAdd], at(0));
        queue.set(with_priority("b", -1), at(0));
        assert_eq!(pop(&mut queue, 0).as_deref(), Some("b"));
        assert_eq!(pop(&mut queue, 0).as_deref(), Some("a"));
    }

    #[test]
    fn errors_pause_for_longer_each_time() {
        let mut queue = Queue::default();
        queue.set(with_priority("a", 0), at(0));
        let mut now = 0;
        for pause in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
            queue.error("a", at(now));
            assert_eq!(queue.next_deadline(), Some(at(now + pause)));
            assert_eq!(pop(&mut queue, now + pause - 1), None);
            now += pause;
        }
    }

    #[test]
    fn a_gated_pod_waits_until_its_gates_are_gone() {
        let mut queue = Queue::default();
        queue.set(labelled_pod("a", json!({}), json!({"schedulingGates": [{"name": "g"}]})), at(0));
        queue.wake(&[ClusterEvent::NodeAdd], at(0));
        assert_eq!(pop(&mut queue, 0), None);
        queue.set(labelled_pod("a", json!({}), json!({})), at(1));
        assert_eq!(pop(&mut queue, 1).as_deref(), Some("a"));
    }

    #[test]
    fn pods_are_counted_where_they_are() {
        let check = |queue: &Queue, [active, backoff, unschedulable, gated]: [usize; 4]| {
            assert_eq!(queue.pending(), Pending { active, backoff, unschedulable, gated });
        };
        let mut queue = failed();
        check(&queue, [0, 0, 1, 0]);
        queue.set(labelled_pod("b", json!({}), json!({"schedulingGates": [{"name": "g"}]})), at(0));
        queue.set(with_priority("c", 0), at(0));
        check(&queue, [1, 0, 1, 1]);
        queue.wake(&[ClusterEvent::NodeAdd], at(0));
        check(&queue, [1, 1, 0, 1]);
        queue.set(labelled_pod("b", json!({}), json!({})), at(1));
        assert_eq!(pop(&mut queue, 0).as_deref(), Some("c"));
        check(&queue, [1, 1, 0, 0]);
        assert_eq!(queue.attempts("a"), 1);
        ["a", "b", "c"].into_iter().for_each(|uid| queue.remove(uid));
        check(&queue, [0, 0, 0, 0]);
    }

    #[test]
    fn a_changed_pod_tries_again_and_an_echo_does_not() {
        let mut queue = failed();
        queue.set(with_priority("a", 0), at(60));
        assert_eq!(pop(&mut queue, 60), None);
        queue.set(with_priority("a", 3), at(60));
        assert_eq!(pop(&mut queue, 60).as_deref(), Some("a"));
    }
}
