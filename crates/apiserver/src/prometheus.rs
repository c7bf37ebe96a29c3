//! The Prometheus text format, in which everything that is counted is shown.

use std::collections::BTreeMap;
use std::fmt::{Result, Write as _};

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
}

/// The series of one metric, by their labels as they are shown.
pub fn write_histograms(
    out: &mut String,
    name: &str,
    bounds: &[f64],
    histograms: &BTreeMap<String, Histogram>,
) -> Result {
    for (labels, histogram) in histograms {
        for (bound, count) in bounds.iter().zip(&histogram.counts) {
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.total)?;
        writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum)?;
        writeln!(out, "{name}_count{{{labels}}} {}", histogram.total)?;
    }
    Ok(())
}
