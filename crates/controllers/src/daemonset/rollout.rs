//! Replacing the pods of an older template (follows upstream's `rollingUpdate`).

use std::collections::BTreeSet;
use std::sync::Arc;

use api::view::apps::{DaemonSet, RollingUpdate};
use api::view::core::Pod;
use apimachinery::Value;
use apimachinery::intstr::{IntOrString, Round};
use jiff::Timestamp;

use super::pods::{ByNode, new_and_old};
use crate::podavailability::is_available;

/// What a step of the rollout does.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub delete: Vec<Arc<Pod>>,
    /// Nodes that get a new pod beside their old one.
    pub create: Vec<String>,
}

/// How many pods may be away, and how many more than wanted there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub unavailable: usize,
    pub surge: usize,
}

pub fn bounds(daemon_set: &DaemonSet, desired: usize) -> Bounds {
    let rolling = daemon_set
        .spec
        .update_strategy
        .rolling_update
        .clone()
        .unwrap_or(RollingUpdate { max_unavailable: Some(1.into()), ..RollingUpdate::default() });
    let amount = |value: &Option<Value>| {
        let parsed = value.as_ref().and_then(|v| apimachinery::from_value::<IntOrString>(v.clone()).ok());
        let total = i32::try_from(desired).unwrap_or(i32::MAX);
        let scaled = parsed.and_then(|amount| amount.scaled(total, Round::Up).ok()).unwrap_or_default();
        usize::try_from(scaled).unwrap_or_default()
    };
    let (unavailable, surge) = (amount(&rolling.max_unavailable), amount(&rolling.max_surge));
    if unavailable == 0 && surge == 0 {
        Bounds { unavailable: 1, surge }
    } else {
        Bounds { unavailable, surge }
    }
}

pub fn is_rolling(daemon_set: &DaemonSet) -> bool {
    daemon_set.spec.update_strategy.kind == "RollingUpdate"
}

/// `nodes` are those that should run a pod.
pub fn progress(
    daemon_set: &DaemonSet,
    nodes: &BTreeSet<&str>,
    pods: &ByNode,
    hash: &str,
    now: Timestamp,
) -> Progress {
    let bounds = bounds(daemon_set, nodes.len());
    let available = |pod: &Pod| is_available(pod, daemon_set.spec.min_ready_seconds, now);
    let of_set = pods.iter().filter(|(node, _)| !node.is_empty());
    if bounds.surge == 0 {
        replace(of_set, bounds.unavailable, hash, available)
    } else {
        surge(of_set, nodes, bounds.surge, hash, available)
    }
}

type OfNode<'a> = (&'a String, &'a Vec<Arc<Pod>>);

/// Old pods go, and those that nobody misses first; `manage` makes the new ones afterwards.
fn replace<'a>(
    pods: impl Iterator<Item = OfNode<'a>>,
    max_unavailable: usize,
    hash: &str,
    available: impl Fn(&Pod) -> bool,
) -> Progress {
    let mut unavailable = 0;
    let (mut missed_by_nobody, mut candidates) = (Vec::new(), Vec::new());
    for (_, pods) in pods {
        match new_and_old(pods, hash) {
            Some((Some(new), None)) => unavailable += usize::from(!available(new)),
            Some((None, Some(old))) if !available(old) => missed_by_nobody.push(old.clone()),
            Some((None, Some(old))) => candidates.push(old.clone()),
            _ => unavailable += 1,
        }
    }
    candidates.truncate(max_unavailable.saturating_sub(unavailable));
    missed_by_nobody.extend(candidates);
    Progress { delete: missed_by_nobody, create: Vec::new() }
}

/// New pods come beside the old ones, which go once the new ones are available.
fn surge<'a>(
    pods: impl Iterator<Item = OfNode<'a>>,
    nodes: &BTreeSet<&str>,
    max_surge: usize,
    hash: &str,
    available: impl Fn(&Pod) -> bool,
) -> Progress {
    let mut surging = 0;
    let mut progress = Progress::default();
    let mut candidates = Vec::new();
    for (node, pods) in pods {
        match new_and_old(pods, hash) {
            None => surging += 1,
            Some((_, None)) => {}
            Some((None, Some(_))) if !nodes.contains(node.as_str()) => {}
            Some((None, Some(old))) if !available(old) => progress.create.push(node.clone()),
            Some((None, Some(_))) => candidates.push(node.clone()),
            Some((Some(new), Some(_))) if !available(new) => surging += 1,
            Some((Some(_), Some(old))) => progress.delete.push(old.clone()),
        }
    }
    candidates.truncate(max_surge.saturating_sub(surging));
    progress.create.extend(candidates);
    progress
}
