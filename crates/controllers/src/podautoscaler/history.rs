//! What an autoscaler remembers of the last hour: what it would have liked, and what it did.

use jiff::{SignedDuration, Timestamp};

/// The longest window or period that validation lets through.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

#[derive(Clone, Debug, Default)]
pub struct History {
    recommendations: Vec<(Timestamp, i32)>,
    /// Pods added, and with a negative number removed.
    changes: Vec<(Timestamp, i32)>,
    /// A change that is planned; what becomes of it is told by `settle`.
    planned: Option<(Timestamp, i32)>,
}

impl History {
    /// The size it found at first counts as recommended.
    pub fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, replicas));
        }
    }

    pub fn recommend(&mut self, replicas: i32, now: Timestamp) {
        let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        self.recommendations.retain(|(at, _)| *at >= oldest);
        self.changes.retain(|(at, _)| *at >= oldest);
        self.recommendations.push((now, replicas));
    }

    /// What was recommended after a time.
    pub fn recommended_since(&self, cutoff: Timestamp) -> impl Iterator<Item = i32> {
        self.recommendations.iter().filter(move |(at, _)| *at > cutoff).map(|(_, replicas)| *replicas)
    }

    pub fn plan_change(&mut self, by: i32, now: Timestamp) {
        self.planned = Some((now, by));
    }

    /// Keeps the planned change if it was carried out.
    pub fn settle(&mut self, is_done: bool) {
        let planned = self.planned.take();
        self.changes.extend(planned.filter(|_| is_done));
    }

    /// Pods added less pods removed after a time.
    pub fn change_since(&self, cutoff: Timestamp) -> i32 {
        self.changes.iter().filter(|(at, _)| *at > cutoff).map(|(_, by)| by).sum()
    }
}
