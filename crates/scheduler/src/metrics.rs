//! What the scheduler counts, under upstream's names (follows `pkg/scheduler/metrics`).

use std::time::Duration;

use client::metrics::{Histogram, Number, Source, exponential_buckets};

use crate::queue::Pending;

/// What an attempt to schedule a pod came to.
#[derive(Clone, Copy, Debug)]
pub enum AttemptResult {
    Scheduled,
    Unschedulable,
    Error,
}

impl AttemptResult {
    fn label(self) -> &'static str {
        match self {
            AttemptResult::Scheduled => "scheduled",
            AttemptResult::Unschedulable => "unschedulable",
            AttemptResult::Error => "error",
        }
    }
}

#[derive(Debug)]
pub struct Metrics {
    attempts: Number,
    attempt_durations: Histogram,
    algorithm_durations: Histogram,
    attempts_of_pods: Histogram,
    preemption_attempts: Number,
    preemption_victims: Histogram,
    pending: Number,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            attempts: Number::counter(
                "scheduler_schedule_attempts_total",
                "[STABLE] Number of attempts to schedule pods, by the result.",
            ),
            attempt_durations: Histogram::new(
                "scheduler_scheduling_attempt_duration_seconds",
                "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                exponential_buckets(0.001, 2.0, 15),
            ),
            algorithm_durations: Histogram::new(
                "scheduler_scheduling_algorithm_duration_seconds",
                "[ALPHA] Scheduling algorithm latency in seconds",
                exponential_buckets(0.001, 2.0, 15),
            ),
            attempts_of_pods: Histogram::new(
                "scheduler_pod_scheduling_attempts",
                "[STABLE] Number of attempts to successfully schedule a pod.",
                exponential_buckets(1.0, 2.0, 5),
            ),
            preemption_attempts: Number::counter(
                "scheduler_preemption_attempts_total",
                "[STABLE] Total preemption attempts in the cluster till now",
            ),
            preemption_victims: Histogram::new(
                "scheduler_preemption_victims",
                "[STABLE] Number of selected preemption victims",
                exponential_buckets(1.0, 2.0, 7),
            ),
            pending: Number::gauge(
                "scheduler_pending_pods",
                "[STABLE] Number of pending pods, by the queue type.",
            ),
        }
    }
}

impl Metrics {
    /// An attempt is over, for good or for now.
    pub fn attempted(&self, profile: &str, result: AttemptResult, took: Duration) {
        let labels = format!("profile=\"{profile}\",result=\"{}\"", result.label());
        self.attempts.add(&labels, 1.0);
        self.attempt_durations.observe(&labels, took.as_secs_f64());
    }

    /// A node was chosen, or none was found.
    pub fn decided(&self, took: Duration) {
        self.algorithm_durations.observe("", took.as_secs_f64());
    }

    /// A pod has its node, after so many attempts.
    pub fn scheduled(&self, attempts: u32) {
        self.attempts_of_pods.observe("", f64::from(attempts));
    }

    /// Room was sought by evicting others.
    pub fn preempting(&self, victims: Option<usize>) {
        self.preemption_attempts.add("", 1.0);
        if let Some(victims) = victims {
            self.preemption_victims.observe("", victims as f64);
        }
    }

    pub fn pending(&self, pending: Pending) {
        let Pending { active, backoff, unschedulable, gated } = pending;
        for (queue, pods) in [
            ("queue=\"active\"", active),
            ("queue=\"backoff\"", backoff),
            ("queue=\"gated\"", gated),
            ("queue=\"unschedulable\"", unschedulable),
        ] {
            self.pending.set(queue, pods as f64);
        }
    }
}

impl Source for Metrics {
    fn write(&self, text: &mut String) {
        let numbers = [&self.attempts, &self.preemption_attempts, &self.pending];
        numbers.into_iter().for_each(|number| number.write(text));
        let histograms = [
            &self.attempt_durations,
            &self.algorithm_durations,
            &self.attempts_of_pods,
            &self.preemption_victims,
        ];
        histograms.into_iter().for_each(|histogram| histogram.write(text));
    }
}
