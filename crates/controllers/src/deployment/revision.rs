//! Revisions of a Deployment, as annotations of its ReplicaSets: what `kubectl rollout history` and `undo` read.

use api::view::apps::{Deployment, ReplicaSet};
use apimachinery::meta::StringMap;

use super::replicas::{desired, max_surge};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled; when it differs from today's, the Deployment was scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus the surge then allowed: the base of proportional scaling.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Upstream: `maxRevHistoryLengthInChars`.
const HISTORY_CHARS_MAX: usize = 2000;

pub fn revision(replica_set: &ReplicaSet) -> i64 {
    replica_set.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The revision that comes after those of all these.
pub fn next(old: &[ReplicaSet]) -> i64 {
    old.iter().map(revision).max().unwrap_or(0) + 1
}

/// Gives the new ReplicaSet the Deployment's annotations and its revision, keeping former ones for the record
/// (upstream: `SetNewReplicaSetAnnotations`).
pub fn annotate_new(deployment: &Deployment, replica_set: &mut ReplicaSet, next: i64) {
    let annotations = &mut replica_set.metadata.annotations;
    let copied =
        deployment.metadata.annotations.iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    annotations.extend(copied.map(|(key, value)| (key.clone(), value.clone())));
    let former = annotations.get(REVISION).cloned();
    match former.as_deref().unwrap_or("0").parse::<i64>() {
        Ok(number) if number < next => {
            annotations.insert(REVISION.into(), next.to_string());
            if let Some(former) = former {
                remember(annotations, &former);
            }
        }
        // Newer already, or not ours to understand.
        Ok(_) | Err(_) => {}
    }
}

fn remember(annotations: &mut StringMap, former: &str) {
    let history = annotations.entry(REVISION_HISTORY.into()).or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(former);
    let length = |revisions: &[&str]| revisions.iter().map(|r| r.len() + 1).sum::<usize>();
    let mut start = 0;
    while length(&revisions[start..]) > HISTORY_CHARS_MAX + 1 {
        start += 1;
    }
    *history = revisions[start..].join(",");
}

/// Notes the size that the Deployment has now.
pub fn annotate_size(deployment: &Deployment, replica_set: &mut ReplicaSet) {
    let annotations = &mut replica_set.metadata.annotations;
    annotations.insert(DESIRED_REPLICAS.into(), desired(deployment).to_string());
    annotations.insert(MAX_REPLICAS.into(), (desired(deployment) + max_surge(deployment)).to_string());
}

/// What `annotate_size` noted last.
pub fn noted(replica_set: &ReplicaSet, annotation: &str) -> Option<i32> {
    replica_set.metadata.annotations.get(annotation)?.parse().ok().filter(|n| *n >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &[(&str, &str)], next: i64, expect: &[(&str, &str)]) {
        let map = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        let mut deployment = Deployment::default();
        deployment.metadata.annotations = map(&[("note", "x"), (REVISION, "77")]);
        let mut replica_set = ReplicaSet::default();
        replica_set.metadata.annotations = map(before);
        annotate_new(&deployment, &mut replica_set, next);
        assert_eq!(replica_set.metadata.annotations, map(expect));
    }

    #[test]
    fn a_revision_only_grows_and_its_past_is_kept() {
        check(&[], 1, &[("note", "x"), (REVISION, "1")]);
        check(&[(REVISION, "5")], 3, &[("note", "x"), (REVISION, "5")]);
        check(&[(REVISION, "1")], 3, &[("note", "x"), (REVISION, "3"), (REVISION_HISTORY, "1")]);
        let before = [(REVISION, "3"), (REVISION_HISTORY, "1")];
        check(&before, 5, &[("note", "x"), (REVISION, "5"), (REVISION_HISTORY, "1,3")]);
        check(&[(REVISION, "odd")], 5, &[("note", "x"), (REVISION, "odd")]);
    }

    #[test]
    fn the_history_forgets_the_oldest_when_it_is_full() {
        let mut annotations = StringMap::new();
        for revision in 1000..2000 {
            remember(&mut annotations, &revision.to_string());
            assert!(annotations[REVISION_HISTORY].len() <= HISTORY_CHARS_MAX);
        }
        assert!(annotations[REVISION_HISTORY].ends_with("1998,1999"));
        assert_eq!(annotations[REVISION_HISTORY].split(',').count(), 400);
    }
}
