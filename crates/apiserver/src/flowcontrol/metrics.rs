//! What is counted about the requests of one FlowSchema, under upstream's metric names. Counting takes no lock.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::seats::{Grant, Reason, Seats};
use crate::prometheus::{SharedHistogram, head};

/// Upper bounds in seconds (upstream: `requestDurationSecondsBuckets`).
const DURATION_BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// Upper bounds of `work_estimated_seats`.
const SEATS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
/// Of durations, sums are kept in nanoseconds.
const NANOSECONDS: f64 = 1e9;
/// More pairs of schema and level than this share one set of counts: their names are what users make them.
const SERIES_MAX: usize = 1024;

/// Of a watch only its beginning takes a seat.
const TYPES: [&str; 2] = ["regular", "watch"];

const REASONS: [Reason; 4] =
    [Reason::QueueFull, Reason::ConcurrencyLimit, Reason::TimeOut, Reason::Cancelled];

/// The counts of one FlowSchema with one level.
#[derive(Debug)]
pub struct Counts {
    dispatched: AtomicU64,
    /// In the order of [`REASONS`].
    rejected: [AtomicU64; REASONS.len()],
    waiting: AtomicI64,
    running: AtomicI64,
    seats: AtomicI64,
    waited: SharedHistogram<{ DURATION_BUCKETS.len() }>,
    waited_in_vain: SharedHistogram<{ DURATION_BUCKETS.len() }>,
    /// In the order of [`TYPES`].
    took: [SharedHistogram<{ DURATION_BUCKETS.len() }>; TYPES.len()],
    widths: SharedHistogram<{ SEATS_BUCKETS.len() }>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            waiting: AtomicI64::new(0),
            running: AtomicI64::new(0),
            seats: AtomicI64::new(0),
            waited: SharedHistogram::new(&DURATION_BUCKETS, NANOSECONDS),
            waited_in_vain: SharedHistogram::new(&DURATION_BUCKETS, NANOSECONDS),
            took: TYPES.map(|_| SharedHistogram::new(&DURATION_BUCKETS, NANOSECONDS)),
            widths: SharedHistogram::new(&SEATS_BUCKETS, 1.0),
        }
    }
}

impl Counts {
    pub fn queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub fn left_queue(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn estimated(&self, width: u32) {
        self.widths.observe(f64::from(width));
    }

    pub fn started(&self, grant: &Grant, waited_seconds: f64) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(i64::from(grant.width()), Ordering::Relaxed);
        self.waited.observe(waited_seconds);
    }

    pub fn ended(&self, grant: &Grant, is_watch: bool, took_seconds: f64) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(i64::from(grant.width()), Ordering::Relaxed);
        self.took[usize::from(is_watch)].observe(took_seconds);
    }

    pub fn rejected(&self, reason: Reason, waited_seconds: f64) {
        self.rejected[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.waited_in_vain.observe(waited_seconds);
    }

    fn dispatched_total(&self) -> u64 {
        self.dispatched.load(Ordering::Relaxed)
    }

    fn rejected_total(&self, reason: Reason) -> u64 {
        self.rejected[reason as usize].load(Ordering::Relaxed)
    }
}

/// Sums over the schemas of one level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

/// Names of a level and of a schema.
type Names = (String, String);

/// The counts of all schemas, those that are gone included: a counter never goes back.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<Names, Arc<Counts>>>);

/// A number of each schema, or of each level, as it is shown.
struct Shown<T> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: T,
}

type OfSchema = Shown<fn(&Counts) -> i64>;
type OfLevel = Shown<fn([u32; 4]) -> u32>;

const SCHEMA_NUMBERS: [OfSchema; 4] = [
    Shown {
        name: "apiserver_flowcontrol_dispatched_requests_total",
        kind: "counter",
        help: "[BETA] Number of requests executed by API Priority and Fairness subsystem",
        value: |counts| i64::try_from(counts.dispatched_total()).unwrap_or(i64::MAX),
    },
    Shown {
        name: "apiserver_flowcontrol_current_inqueue_requests",
        kind: "gauge",
        help: "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        value: |counts| counts.waiting.load(Ordering::Relaxed),
    },
    Shown {
        name: "apiserver_flowcontrol_current_executing_requests",
        kind: "gauge",
        help: "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        value: |counts| counts.running.load(Ordering::Relaxed),
    },
    Shown {
        name: "apiserver_flowcontrol_current_executing_seats",
        kind: "gauge",
        help: "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        value: |counts| counts.seats.load(Ordering::Relaxed),
    },
];

/// Of nominal, lowest and highest number of seats, and of those used.
const LEVEL_NUMBERS: [OfLevel; 4] = [
    Shown {
        name: "apiserver_flowcontrol_nominal_limit_seats",
        kind: "gauge",
        help: "[BETA] Nominal number of execution seats configured for each priority level",
        value: |[nominal, ..]| nominal,
    },
    Shown {
        name: "apiserver_flowcontrol_lower_limit_seats",
        kind: "gauge",
        help: "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        value: |[_, lower, ..]| lower,
    },
    Shown {
        name: "apiserver_flowcontrol_upper_limit_seats",
        kind: "gauge",
        help: "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        value: |[_, _, upper, _]| upper,
    },
    Shown {
        name: "apiserver_flowcontrol_current_limit_seats",
        kind: "gauge",
        help: "[ALPHA] current derived number of execution seats available to each priority level",
        value: |[nominal, _, _, in_use]| nominal.max(in_use),
    },
];

impl Metrics {
    pub fn counts(&self, level: &str, schema: &str) -> Arc<Counts> {
        let mut all = self.0.lock();
        let names = (level.to_owned(), schema.to_owned());
        let has_room = all.len() < SERIES_MAX || all.contains_key(&names);
        let names = if has_room { names } else { Names::default() };
        all.entry(names).or_default().clone()
    }

    pub fn totals(&self, level: &str) -> Totals {
        let all = self.0.lock();
        let mut totals = Totals::default();
        for (_, counts) in all.iter().filter(|((of, _), _)| of == level) {
            totals.dispatched += counts.dispatched_total();
            totals.timed_out += counts.rejected_total(Reason::TimeOut);
            totals.cancelled += counts.rejected_total(Reason::Cancelled);
            let full = [Reason::QueueFull, Reason::ConcurrencyLimit];
            totals.rejected += full.map(|reason| counts.rejected_total(reason)).iter().sum::<u64>();
        }
        totals
    }

    /// The Prometheus text format.
    pub fn render<W>(&self, seats: &Seats<W>) -> String {
        let mut out = String::new();
        self.write_schemas(&mut out).expect("writing to a String does not fail");
        write_levels(&mut out, seats).expect("writing to a String does not fail");
        out
    }

    fn write_schemas(&self, out: &mut String) -> std::fmt::Result {
        let labels = |(level, schema): &Names| format!("flow_schema=\"{schema}\",priority_level=\"{level}\"");
        let all: Vec<(String, Arc<Counts>)> =
            self.0.lock().iter().map(|(names, counts)| (labels(names), counts.clone())).collect();
        for number in &SCHEMA_NUMBERS {
            head(out, number.name, number.kind, number.help)?;
            for (labels, counts) in &all {
                writeln!(out, "{}{{{labels}}} {}", number.name, (number.value)(counts))?;
            }
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        let help = "[BETA] Number of requests rejected by API Priority and Fairness subsystem";
        head(out, name, "counter", help)?;
        for (labels, counts) in &all {
            for reason in REASONS.into_iter().filter(|reason| counts.rejected_total(*reason) > 0) {
                let count = counts.rejected_total(reason);
                writeln!(out, "{name}{{{labels},reason=\"{}\"}} {count}", reason.label())?;
            }
        }
        write_histograms(out, &all)
    }
}

fn write_histograms(out: &mut String, all: &[(String, Arc<Counts>)]) -> std::fmt::Result {
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    let help = "[BETA] Length of time a request spent waiting in its queue";
    head(out, name, "histogram", help)?;
    for (labels, counts) in all {
        counts.waited.write(out, name, &format!("execute=\"true\",{labels}"))?;
        counts.waited_in_vain.write(out, name, &format!("execute=\"false\",{labels}"))?;
    }
    let name = "apiserver_flowcontrol_request_execution_seconds";
    let help = "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem";
    head(out, name, "histogram", help)?;
    for (labels, counts) in all {
        for (took, kind) in counts.took.iter().zip(TYPES) {
            took.write(out, name, &format!("{labels},type=\"{kind}\""))?;
        }
    }
    let name = "apiserver_flowcontrol_work_estimated_seats";
    let help = "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness";
    head(out, name, "histogram", help)?;
    for (labels, counts) in all {
        counts.widths.write(out, name, labels)?;
    }
    Ok(())
}

fn write_levels<W>(out: &mut String, seats: &Seats<W>) -> std::fmt::Result {
    for number in &LEVEL_NUMBERS {
        head(out, number.name, number.kind, number.help)?;
        for level in seats.levels() {
            let numbers = [level.limits.nominal, level.lower_limit(), level.limits.max, level.in_use];
            writeln!(
                out,
                "{}{{priority_level=\"{}\"}} {}",
                number.name,
                level.name,
                (number.value)(numbers)
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_by_schema_and_level() {
        let metrics = Metrics::default();
        let counts = metrics.counts("l", "s");
        counts.rejected(Reason::QueueFull, 0.0);
        counts.rejected(Reason::TimeOut, 12.0);
        counts.estimated(3);
        let text = metrics.render(&Seats::<()>::new(1));
        let labels = "flow_schema=\"s\",priority_level=\"l\"";
        for line in [
            format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"time-out\"}} 1"),
            format!(
                "apiserver_flowcontrol_request_wait_duration_seconds_bucket{{execute=\"false\",{labels},le=\"10\"}} 1"
            ),
            format!(
                "apiserver_flowcontrol_request_wait_duration_seconds_sum{{execute=\"false\",{labels}}} 12"
            ),
            format!("apiserver_flowcontrol_work_estimated_seats_bucket{{{labels},le=\"4\"}} 1"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        let totals = metrics.totals("l");
        assert_eq!((totals.rejected, totals.timed_out, totals.dispatched), (1, 1, 0));
    }

    #[test]
    fn names_without_end_make_no_series_without_end() {
        let metrics = Metrics::default();
        (0..SERIES_MAX + 5).for_each(|number| drop(metrics.counts("l", &number.to_string())));
        assert_eq!(metrics.0.lock().len(), SERIES_MAX + 1);
    }
}
