//! Counting, and the text form in which Prometheus reads it. A metric holds its series by their
//! labels, written as they appear between the braces.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Something that tells its figures when they are asked for.
pub trait Source: Send + Sync {
    fn write(&self, text: &mut String);
}

/// A counter or gauge with its series.
#[derive(Debug)]
pub struct Number {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    series: Mutex<BTreeMap<String, f64>>,
}

impl Number {
    pub fn counter(name: &'static str, help: &'static str) -> Number {
        Number { name, help, kind: "counter", series: Mutex::default() }
    }

    /// A counter without labels, whose only series is there from the beginning.
    pub fn total(name: &'static str, help: &'static str) -> Number {
        let number = Number::counter(name, help);
        number.add("", 0.0);
        number
    }

    pub fn gauge(name: &'static str, help: &'static str) -> Number {
        Number { name, help, kind: "gauge", series: Mutex::default() }
    }

    pub fn add(&self, labels: &str, amount: f64) {
        let mut series = self.series.lock();
        match series.get_mut(labels) {
            Some(value) => *value += amount,
            None => {
                series.insert(labels.to_owned(), amount);
            }
        }
    }

    pub fn set(&self, labels: &str, value: f64) {
        let mut series = self.series.lock();
        match series.get_mut(labels) {
            Some(held) => *held = value,
            None => drop(series.insert(labels.to_owned(), value)),
        }
    }

    /// Forgets the series whose labels are of no interest any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.series.lock().retain(|labels, _| wanted(labels));
    }

    pub fn write(&self, text: &mut String) {
        head(text, self.name, self.help, self.kind);
        for (labels, value) in &*self.series.lock() {
            sample(text, self.name, "", labels, "", *value);
        }
    }
}

/// A histogram with its series.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    /// Upper bounds of the buckets, ascending.
    bounds: Vec<f64>,
    series: Mutex<BTreeMap<String, Observed>>,
}

#[derive(Debug)]
struct Observed {
    /// How many fell into each bucket alone.
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    pub fn new(name: &'static str, help: &'static str, bounds: Vec<f64>) -> Histogram {
        Histogram { name, help, bounds, series: Mutex::default() }
    }

    pub fn observe(&self, labels: &str, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut series = self.series.lock();
        if !series.contains_key(labels) {
            let counts = vec![0; self.bounds.len()];
            series.insert(labels.to_owned(), Observed { counts, count: 0, sum: 0.0 });
        }
        let observed = series.get_mut(labels).expect("it was put there just now");
        if let Some(count) = observed.counts.get_mut(bucket) {
            *count += 1;
        }
        observed.count += 1;
        observed.sum += value;
    }

    /// Forgets the series whose labels are of no interest any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.series.lock().retain(|labels, _| wanted(labels));
    }

    pub fn write(&self, text: &mut String) {
        head(text, self.name, self.help, "histogram");
        for (labels, observed) in &*self.series.lock() {
            let mut below = 0;
            for (bound, count) in self.bounds.iter().zip(&observed.counts) {
                below += count;
                sample(text, self.name, "_bucket", labels, &format!("le=\"{bound}\""), below as f64);
            }
            sample(text, self.name, "_bucket", labels, "le=\"+Inf\"", observed.count as f64);
            sample(text, self.name, "_sum", labels, "", observed.sum);
            sample(text, self.name, "_count", labels, "", observed.count as f64);
        }
    }
}

/// Upper bounds in seconds where upstream names none (Prometheus' `DefBuckets`).
pub const DEF_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds that grow from `first` by `factor`.
pub fn exponential_buckets(first: f64, factor: f64, count: i32) -> Vec<f64> {
    (0..count).map(|step| first * factor.powi(step)).collect()
}

/// What stands above the samples of a metric.
pub fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
}

/// One line. `labels` and `more` are as they appear between the braces.
pub fn sample(text: &mut String, name: &str, suffix: &str, labels: &str, more: &str, value: f64) {
    let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
    let braces = format!("{{{labels}{comma}{more}}}");
    let braces = if braces == "{}" { "" } else { &braces };
    // What has no end is spelled otherwise than in Rust.
    let written = match value {
        f64::INFINITY => writeln!(text, "{name}{suffix}{braces} +Inf"),
        value => writeln!(text, "{name}{suffix}{braces} {value}"),
    };
    written.expect("a String takes everything");
}

/// One line with the time at which its value was read.
pub fn sample_at(text: &mut String, name: &str, labels: &str, value: f64, at: Timestamp) {
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(text, "{name}{braces} {value} {}", at.as_millisecond()).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let number = Number::counter("asked_total", "Questions.");
        number.add("kind=\"a\"", 1.0);
        number.add("kind=\"a\"", 2.0);
        let histogram = Histogram::new("took_seconds", "Time.", exponential_buckets(0.5, 2.0, 2));
        [0.5, 0.75, 9.0].iter().for_each(|value| histogram.observe("", *value));
        let mut text = String::new();
        number.write(&mut text);
        histogram.write(&mut text);
        let expected = "# HELP asked_total Questions.\n# TYPE asked_total counter\nasked_total{kind=\"a\"} 3\n\
            # HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{le=\"0.5\"} 1\ntook_seconds_bucket{le=\"1\"} 2\n\
            took_seconds_bucket{le=\"+Inf\"} 3\ntook_seconds_sum 10.25\ntook_seconds_count 3\n";
        assert_eq!(text, expected);
    }
}
