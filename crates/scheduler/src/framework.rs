//! What a plugin is: a name, how it filters nodes, how it scores them, and which changes may reverse
//! its refusals.
//!
//! Upstream's PreFilter and PreScore are the functions of the row: they look at the pod and all nodes
//! once, and give what then judges single nodes - or nothing, when the plugin has no say on this pod.

use std::borrow::Cow;

use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

/// The best score a plugin gives a node, before its weight (upstream: MaxNodeScore).
pub const MAX_NODE_SCORE: i64 = 100;

/// One row of the plugin table.
pub struct Plugin {
    pub name: &'static str,
    pub filter: Option<FilterFn>,
    pub score: Option<WeightedScoreFn>,
    /// Changes after which a pod this plugin refused may fit (upstream: EventsToRegister).
    pub wakes: &'static [ClusterEvent],
}

pub type FilterFn = for<'a> fn(&'a PodInfo, &'a Snapshot) -> Option<Box<dyn Filter + 'a>>;

pub type ScoreFn = for<'a> fn(&'a PodInfo, &'a Snapshot, &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>>;

pub struct WeightedScoreFn {
    pub weight: i64,
    pub prepare: ScoreFn,
}

/// Says which nodes one pod can run on.
pub trait Filter {
    /// Whether no node can do, and why: the pod contradicts itself.
    fn refuses_all(&self) -> Option<Cow<'static, str>> {
        None
    }

    /// The only nodes that come into question; `None` means all.
    fn candidates(&self) -> Option<Vec<&str>> {
        None
    }

    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;
}

/// Says how good a node is for one pod.
pub trait Score {
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all feasible nodes into `0..=MAX_NODE_SCORE`; `nodes` has the same order.
    fn normalize(&self, _nodes: &[&NodeInfo], _scores: &mut [i64]) {}
}

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods could help (upstream: Unschedulable, not UnschedulableAndUnresolvable).
    pub resolvable: bool,
}

impl Rejection {
    pub fn resolvable(reason: &'static str) -> Self {
        Rejection { reasons: vec![Cow::Borrowed(reason)], resolvable: true }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reasons: vec![reason.into()], resolvable: false }
    }
}

/// A change in the cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    NodeAdd,
    NodeAllocatable,
    NodeLabel,
    /// Taints or `spec.unschedulable`.
    NodeTaint,
    AssignedPodAdd,
    /// Labels or requests of a placed pod.
    AssignedPodUpdate,
    AssignedPodDelete,
    NamespaceLabel,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    CsiNode,
    CsiDriver,
    CsiStorageCapacity,
    VolumeAttachment,
    ResourceClaim,
    DeviceClass,
    ResourceSlice,
}

/// A set of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u32);

impl EventSet {
    pub fn insert(&mut self, event: ClusterEvent) {
        self.0 |= 1 << event as u16;
    }

    pub fn contains_any(self, events: &[ClusterEvent]) -> bool {
        events.iter().any(|event| self.0 & (1 << *event as u16) != 0)
    }
}

impl FromIterator<ClusterEvent> for EventSet {
    fn from_iter<I: IntoIterator<Item = ClusterEvent>>(events: I) -> Self {
        let mut set = EventSet::default();
        events.into_iter().for_each(|event| set.insert(event));
        set
    }
}

/// Stretches scores so that the highest is the maximum; `reverse` turns them round (upstream:
/// DefaultNormalizeScore).
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let stretched = if max == 0 { 0 } else { MAX_NODE_SCORE * *score / max };
        *score = if reverse { MAX_NODE_SCORE - stretched } else { stretched };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_stretched_to_the_maximum() {
        let check = |mut scores: [i64; 3], reverse, expect: [i64; 3]| {
            normalize(&mut scores, reverse);
            assert_eq!(scores, expect);
        };
        check([1, 2, 4], false, [25, 50, 100]);
        check([0, 2, 4], true, [100, 50, 0]);
        check([0, 0, 0], true, [100, 100, 100]);
        check([0, 0, 0], false, [0, 0, 0]);
    }

    #[test]
    fn an_event_set_knows_what_it_holds() {
        let set: EventSet = [ClusterEvent::NodeAdd, ClusterEvent::NamespaceLabel].into_iter().collect();
        assert!(set.contains_any(&[ClusterEvent::NodeTaint, ClusterEvent::NodeAdd]));
        assert!(!set.contains_any(&[ClusterEvent::NodeTaint]));
    }
}
