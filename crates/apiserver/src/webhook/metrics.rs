//! What is counted about admission, under upstream's metric names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use admission::Operation;
use parking_lot::Mutex;

use crate::prometheus::{Histogram, SharedHistogram, head, write_histograms};

/// Upper bounds in seconds of `apiserver_admission_webhook_admission_duration_seconds`.
const WEBHOOK_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Upper bounds in seconds of `apiserver_admission_step_admission_duration_seconds`.
const STEP_BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Sums of durations are kept in nanoseconds.
const NANOSECONDS: f64 = 1e9;
/// Codes above this are counted as this, so that a webhook cannot make series without end.
const CODE_MAX: u16 = 600;
/// More label sets than this are not counted: names of webhooks are what users make them.
const SERIES_MAX: usize = 4096;

/// A webhook that was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub webhook: &'a str,
    pub mutating: bool,
    pub operation: &'static str,
}

/// What came of it, with the code of the answer to the client or of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Rejected(u16),
    /// It could not be asked, and so the request is refused.
    Failed(u16),
    /// It could not be asked, and the request goes on.
    FailedOpen(u16),
    /// The server itself cannot go on.
    Refused(u16),
}

impl Outcome {
    fn code(self) -> u16 {
        match self {
            Outcome::Allowed => 200,
            Outcome::Rejected(code)
            | Outcome::Failed(code)
            | Outcome::FailedOpen(code)
            | Outcome::Refused(code) => code.min(CODE_MAX),
        }
    }

    fn is_rejection(self) -> bool {
        !matches!(self, Outcome::Allowed | Outcome::FailedOpen(_))
    }

    fn error_type(self) -> &'static str {
        match self {
            Outcome::Failed(_) => "calling_webhook_error",
            Outcome::Refused(_) => "apiserver_internal_error",
            _ => "no_error",
        }
    }
}

/// Which half of admission a plugin is asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Admit,
    Validate,
}

const HALVES: [&str; 2] = ["admit", "validate"];
/// As an operation is numbered.
const OPERATIONS: [&str; 4] = ["CREATE", "UPDATE", "DELETE", "CONNECT"];

type Took = SharedHistogram<{ STEP_BUCKETS.len() }>;

/// How long one plugin took, by half, operation, and whether it refused.
#[derive(Debug)]
struct Plugin {
    name: &'static str,
    took: [[[Took; 2]; OPERATIONS.len()]; HALVES.len()],
}

impl Plugin {
    fn new(name: &'static str) -> Plugin {
        let took = || SharedHistogram::new(&STEP_BUCKETS, NANOSECONDS);
        let of_operation = || std::array::from_fn(|_| took());
        Plugin { name, took: std::array::from_fn(|_| std::array::from_fn(|_| of_operation())) }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for (half, operations) in HALVES.iter().zip(&self.took) {
            for (operation, outcomes) in OPERATIONS.iter().zip(operations) {
                for (rejected, took) in [false, true].iter().zip(outcomes) {
                    let name = self.name;
                    let labels = format!(
                        "name=\"{name}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{half}\""
                    );
                    took.write(out, PLUGINS, &labels)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Series {
    counters: BTreeMap<(&'static str, String), u64>,
    webhooks: BTreeMap<String, Histogram>,
    steps: BTreeMap<String, Histogram>,
}

#[derive(Debug)]
pub struct Metrics {
    series: Mutex<Series>,
    /// In the order of the chain.
    plugins: Vec<Plugin>,
}

const PLUGINS: &str = "apiserver_admission_controller_admission_duration_seconds";
const REQUESTS: &str = "apiserver_admission_webhook_request_total";
const REJECTIONS: &str = "apiserver_admission_webhook_rejection_count";
const FAIL_OPEN: &str = "apiserver_admission_webhook_fail_open_count";
const HELP: [(&str, &str); 3] = [
    (
        FAIL_OPEN,
        "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
    ),
    (
        REJECTIONS,
        "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    ),
    (
        REQUESTS,
        "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    ),
];

impl Metrics {
    /// For a chain of these plugins.
    pub fn new(plugins: impl Iterator<Item = &'static str>) -> Metrics {
        Metrics { series: Mutex::default(), plugins: plugins.map(Plugin::new).collect() }
    }

    /// One plugin was asked, by its place in the chain.
    pub fn plugin(&self, place: usize, half: Half, operation: Operation, passed: bool, took: Duration) {
        let counts = &self.plugins[place].took[half as usize][operation as usize];
        counts[usize::from(!passed)].observe(took.as_secs_f64());
    }

    pub fn webhook(&self, asked: Asked<'_>, outcome: Outcome, took: Duration) {
        let Asked { webhook, mutating, operation } = asked;
        let kind = if mutating { "admit" } else { "validating" };
        let (code, rejected) = (outcome.code(), outcome.is_rejection());
        let labels =
            format!("name=\"{webhook}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{kind}\"");
        self.count(
            REQUESTS,
            format!("code=\"{code}\",name=\"{webhook}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{kind}\""),
        );
        if rejected {
            let error = outcome.error_type();
            self.count(
                REJECTIONS,
                format!("error_type=\"{error}\",name=\"{webhook}\",operation=\"{operation}\",rejection_code=\"{code}\",type=\"{kind}\""),
            );
        }
        if matches!(outcome, Outcome::FailedOpen(_)) {
            self.count(FAIL_OPEN, format!("name=\"{webhook}\",type=\"{kind}\""));
        }
        let mut series = self.series.lock();
        if series.webhooks.len() < SERIES_MAX {
            observe(&mut series.webhooks, labels, &WEBHOOK_BUCKETS, took);
        }
    }

    /// All of the mutating or the validating half.
    pub fn step(&self, step: &str, operation: &str, rejected: bool, took: Duration) {
        let labels = format!("operation=\"{operation}\",rejected=\"{rejected}\",type=\"{step}\"");
        observe(&mut self.series.lock().steps, labels, &STEP_BUCKETS, took);
    }

    fn count(&self, name: &'static str, labels: String) {
        let mut series = self.series.lock();
        if series.counters.len() < SERIES_MAX {
            *series.counters.entry((name, labels)).or_default() += 1;
        }
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a String does not fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let series = self.series.lock();
        for (name, help) in HELP {
            let of_name = series.counters.iter().filter(|((of, _), _)| *of == name).peekable();
            head(out, name, "counter", help)?;
            for ((_, labels), count) in of_name {
                writeln!(out, "{name}{{{labels}}} {count}")?;
            }
        }
        let step = "apiserver_admission_step_admission_duration_seconds";
        head(
            out,
            step,
            "histogram",
            "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
        )?;
        write_histograms(out, step, &STEP_BUCKETS, &series.steps)?;
        head(
            out,
            PLUGINS,
            "histogram",
            "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
        )?;
        self.plugins.iter().try_for_each(|plugin| plugin.write(out))?;
        let webhook = "apiserver_admission_webhook_admission_duration_seconds";
        head(
            out,
            webhook,
            "histogram",
            "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
        )?;
        write_histograms(out, webhook, &WEBHOOK_BUCKETS, &series.webhooks)
    }
}

fn observe(histograms: &mut BTreeMap<String, Histogram>, labels: String, bounds: &[f64], took: Duration) {
    histograms.entry(labels).or_default().observe(bounds, took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_counted_with_its_code_and_kind() {
        let metrics = Metrics::new(["NamespaceLifecycle"].into_iter());
        let asked = Asked { webhook: "w", mutating: false, operation: "CREATE" };
        metrics.webhook(asked, Outcome::Rejected(403), Duration::from_millis(10));
        metrics.webhook(asked, Outcome::FailedOpen(503), Duration::from_millis(10));
        metrics.plugin(0, Half::Admit, Operation::Delete, false, Duration::from_millis(10));
        let text = metrics.render();
        for line in [
            "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"w\",operation=\"CREATE\",rejection_code=\"403\",type=\"validating\"} 1",
            "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"DELETE\",rejected=\"true\",type=\"admit\"} 1",
            "apiserver_admission_webhook_fail_open_count{name=\"w\",type=\"validating\"} 1",
            "apiserver_admission_webhook_admission_duration_seconds_bucket{name=\"w\",operation=\"CREATE\",rejected=\"true\",type=\"validating\",le=\"0.005\"} 0",
            "apiserver_admission_webhook_admission_duration_seconds_bucket{name=\"w\",operation=\"CREATE\",rejected=\"true\",type=\"validating\",le=\"0.025\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
