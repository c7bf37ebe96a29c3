//! How long the store takes for changes, under the names that upstream has for its requests to etcd. Reading asks memory,
//! and is no request to anything.

use std::borrow::Cow;
use std::fmt::Result;
use std::time::Duration;

use store::{CommitError, Expected, Key, Op};

use super::DURATION_BUCKETS;
use crate::prometheus::{Counters, Histograms, Label, Metric};

const LABELS: [&str; 3] = ["group", "operation", "resource"];
const REQUESTS: Metric<3> = Metric {
    name: "etcd_requests_total",
    help: "[ALPHA] Etcd request counts for each operation and object type.",
    labels: LABELS,
};
const ERRORS: Metric<3> = Metric {
    name: "etcd_request_errors_total",
    help: "[ALPHA] Etcd failed request counts for each operation and object type.",
    labels: LABELS,
};
const DURATIONS: Metric<3> = Metric {
    name: "etcd_request_duration_seconds",
    help: "[ALPHA] Etcd request latency in seconds for each operation and object type.",
    labels: LABELS,
};

#[derive(Debug)]
pub struct Commits {
    errors: Counters<3>,
    durations: Histograms<3>,
}

impl Default for Commits {
    fn default() -> Self {
        Commits { errors: Counters::new(ERRORS), durations: Histograms::new(DURATIONS, &DURATION_BUCKETS) }
    }
}

/// What upstream calls a change.
pub fn operation(expected: Expected, op: &Op) -> &'static str {
    match (op, expected) {
        (Op::Delete(_), _) => "delete",
        (Op::Put(_), Expected::Absent) => "create",
        (Op::Put(_), Expected::At(_) | Expected::Any) => "update",
    }
}

impl Commits {
    /// A change was made or not. That somebody else came first is an answer, not a failure.
    pub fn answered<T>(
        &self,
        key: &Key,
        operation: &'static str,
        took: Duration,
        answer: &std::result::Result<T, CommitError>,
    ) {
        let (resource, group) = key.resource.split_once('.').unwrap_or((&key.resource, ""));
        let labels: [Label; 3] =
            [group.to_owned().into(), Cow::Borrowed(operation), resource.to_owned().into()];
        if let Err(error) = answer
            && !matches!(error, CommitError::Conflict { .. } | CommitError::Overtaken)
        {
            self.errors.add(labels.clone(), 1);
        }
        self.durations.observe(labels, took.as_secs_f64());
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.durations.write_totals(out, &REQUESTS)?;
        self.errors.write(out)?;
        self.durations.write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_what_they_do_to_what() {
        let commits = Commits::default();
        let key = Key::new("deployments.apps", "default", "d");
        let took = Duration::from_millis(30);
        commits.answered(&key, "create", took, &Ok(()));
        commits.answered(&key, "create", took, &Err::<(), _>(CommitError::Conflict { current: None }));
        commits.answered(&key, "create", took, &Err::<(), _>(CommitError::Closed));
        let mut text = String::new();
        commits.write(&mut text).expect("renders");
        let labels = "group=\"apps\",operation=\"create\",resource=\"deployments\"";
        for (name, count) in [
            ("etcd_requests_total", 3),
            ("etcd_request_errors_total", 1),
            ("etcd_request_duration_seconds_count", 3),
        ] {
            let line = format!("{name}{{{labels}}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
