//! The Prometheus text format, in which everything that is counted is shown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Result, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// More series of one metric than this are not counted: some labels are what users make them.
const SERIES_MAX: usize = 4096;

/// The value of a label. Those that are known beforehand cost no memory.
pub type Label = Cow<'static, str>;

/// What a metric is called, what it tells, and what it is broken down by.
#[derive(Clone, Copy, Debug)]
pub struct Metric<const N: usize> {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: [&'static str; N],
}

impl<const N: usize> Metric<N> {
    /// Labels as they stand in a series, without their braces.
    pub fn text(&self, values: &[Label; N]) -> String {
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
    }

    /// A metric whose values are read when somebody asks for them.
    pub fn write(
        &self,
        out: &mut String,
        kind: &str,
        rows: impl IntoIterator<Item = ([Label; N], f64)>,
    ) -> Result {
        head(out, self.name, kind, self.help)?;
        for (values, value) in rows {
            writeln!(out, "{}{} {value}", self.name, braced(&self.text(&values)))?;
        }
        Ok(())
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Labels in braces, or nothing where there are none.
fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// How often things happened, by their labels.
#[derive(Debug)]
pub struct Counters<const N: usize> {
    metric: Metric<N>,
    series: Mutex<BTreeMap<[Label; N], u64>>,
}

impl<const N: usize> Counters<N> {
    pub const fn new(metric: Metric<N>) -> Counters<N> {
        Counters { metric, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn add(&self, values: [Label; N], times: u64) {
        let mut series = self.series.lock();
        let has_room = series.len() < SERIES_MAX;
        match series.get_mut(&values) {
            Some(count) => *count += times,
            None if has_room => drop(series.insert(values, times)),
            None => {}
        }
    }

    pub fn write(&self, out: &mut String) -> Result {
        let series = self.series.lock();
        self.metric.write(
            out,
            "counter",
            series.iter().map(|(values, count)| (values.clone(), *count as f64)),
        )
    }
}

/// How large things were, by their labels.
#[derive(Debug)]
pub struct Histograms<const N: usize> {
    metric: Metric<N>,
    bounds: &'static [f64],
    series: Mutex<BTreeMap<[Label; N], Histogram>>,
}

impl<const N: usize> Histograms<N> {
    pub const fn new(metric: Metric<N>, bounds: &'static [f64]) -> Histograms<N> {
        Histograms { metric, bounds, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn observe(&self, values: [Label; N], value: f64) {
        let mut series = self.series.lock();
        let has_room = series.len() < SERIES_MAX;
        match series.get_mut(&values) {
            Some(histogram) => histogram.observe(self.bounds, value),
            None if has_room => series.entry(values).or_default().observe(self.bounds, value),
            None => {}
        }
    }

    pub fn write(&self, out: &mut String) -> Result {
        head(out, self.metric.name, "histogram", self.metric.help)?;
        for (values, histogram) in self.series.lock().iter() {
            histogram.write(out, self.metric.name, self.bounds, &self.metric.text(values))?;
        }
        Ok(())
    }

    /// How many were observed, as a metric of its own.
    pub fn write_totals(&self, out: &mut String, metric: &Metric<N>) -> Result {
        let series = self.series.lock();
        let rows = series.iter().map(|(values, histogram)| (values.clone(), histogram.total as f64));
        metric.write(out, "counter", rows)
    }
}

/// A histogram that several threads observe without waiting for each other.
#[derive(Debug)]
pub struct SharedHistogram<const N: usize> {
    bounds: &'static [f64; N],
    /// Sums are kept in whole numbers: how many of them make one.
    fraction: f64,
    /// Not cumulative; what is above all bounds is in `total` alone.
    counts: [AtomicU64; N],
    sum: AtomicU64,
    total: AtomicU64,
}

impl<const N: usize> SharedHistogram<N> {
    pub fn new(bounds: &'static [f64; N], fraction: f64) -> SharedHistogram<N> {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        SharedHistogram { bounds, fraction, counts, sum: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    pub fn observe(&self, value: f64) {
        if let Some(count) = self.counts.get(self.bounds.partition_point(|bound| *bound < value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add((value * self.fraction) as u64, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The series with these labels, if anything was observed.
    pub fn write(&self, out: &mut String, name: &str, labels: &str) -> Result {
        let total = self.total();
        if total == 0 {
            return Ok(());
        }
        let mut below = 0;
        let counts = self.counts.iter().map(|count| {
            below += count.load(Ordering::Relaxed);
            below
        });
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.fraction;
        Histogram { counts: counts.collect(), sum, total }.write(out, name, self.bounds, labels)
    }
}

/// What stands above the series of a metric; `kind` is `counter`, `gauge` or `histogram`.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) -> Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Observations by their size. Its owner knows the bounds and hands in the same ones always.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Cumulative, as they are shown.
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    pub fn observe(&mut self, bounds: &[f64], value: f64) {
        self.counts.resize(bounds.len(), 0);
        for (count, bound) in self.counts.iter_mut().zip(bounds) {
            *count += u64::from(value <= *bound);
        }
        self.sum += value;
        self.total += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The series with these labels.
    pub fn write(&self, out: &mut String, name: &str, bounds: &[f64], labels: &str) -> Result {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in bounds.iter().zip(&self.counts) {
            writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")?;
        }
        writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.total)?;
        writeln!(out, "{name}_sum{} {}", braced(labels), self.sum)?;
        writeln!(out, "{name}_count{} {}", braced(labels), self.total)
    }
}

/// The series of one metric, by their labels as they are shown.
pub fn write_histograms(
    out: &mut String,
    name: &str,
    bounds: &[f64],
    histograms: &BTreeMap<String, Histogram>,
) -> Result {
    histograms.iter().try_for_each(|(labels, histogram)| histogram.write(out, name, bounds, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Metric<1> = Metric { name: "sizes", help: "How large.", labels: ["of"] };

    #[test]
    fn series_are_shown_with_their_labels() {
        let counters = Counters::new(Metric { name: "all", help: "How many.", labels: [] });
        counters.add([], 2);
        counters.add([], 1);
        let histograms = Histograms::new(SIZES, &[1.0, 10.0]);
        histograms.observe(["a \"b\"".into()], 5.0);
        let mut text = String::new();
        counters.write(&mut text).and_then(|()| histograms.write(&mut text)).expect("renders");
        let expect = "# HELP all How many.\n# TYPE all counter\nall 3\n# HELP sizes How large.\n# TYPE sizes histogram\n\
            sizes_bucket{of=\"a \\\"b\\\"\",le=\"1\"} 0\nsizes_bucket{of=\"a \\\"b\\\"\",le=\"10\"} 1\n\
            sizes_bucket{of=\"a \\\"b\\\"\",le=\"+Inf\"} 1\nsizes_sum{of=\"a \\\"b\\\"\"} 5\nsizes_count{of=\"a \\\"b\\\"\"} 1\n";
        assert_eq!(text, expect);
    }

    #[test]
    fn there_are_never_more_series_than_the_limit() {
        let histograms = Histograms::new(SIZES, &[1.0]);
        (0..SERIES_MAX + 1).for_each(|number| histograms.observe([number.to_string().into()], 0.0));
        assert_eq!(histograms.series.lock().len(), SERIES_MAX);
        histograms.observe(["0".into()], 0.0);
        assert_eq!(histograms.series.lock()[&[Label::from("0")]].total, 2, "those that are known go on");
    }

    #[test]
    fn a_shared_histogram_shows_what_a_plain_one_does() {
        static BOUNDS: [f64; 2] = [1.0, 10.0];
        let (shared, mut plain) = (SharedHistogram::new(&BOUNDS, 1.0), Histogram::default());
        let (mut found, mut expect) = (String::new(), String::new());
        shared.write(&mut found, "h", "").expect("renders");
        assert_eq!(found, "", "nothing was observed");
        for value in [0.0, 1.0, 7.0, 99.0] {
            shared.observe(value);
            plain.observe(&BOUNDS, value);
        }
        shared.write(&mut found, "h", "").expect("renders");
        plain.write(&mut expect, "h", &BOUNDS, "").expect("renders");
        assert_eq!(found, expect);
    }
}
