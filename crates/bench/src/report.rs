//! What a benchmark found, as a table for people and as JSON for machines.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::latency::Latencies;

#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub rows: Vec<Row>,
}

/// One figure. The unit is part of it, so that nobody has to guess.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// The same figure of another server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versus: Option<Versus>,
}

/// How a figure stands against another server's.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Versus {
    pub value: f64,
    /// How many times better ours is; below one it is worse.
    pub ratio: f64,
    /// What the ratio should reach, where something is promised.
    pub reach: Option<f64>,
}

impl Report {
    pub fn new(benchmark: &'static str) -> Report {
        Report { benchmark, rows: Vec::new() }
    }

    pub fn row(mut self, name: impl Into<String>, value: f64, unit: &'static str) -> Report {
        self.rows.push(Row { name: name.into(), value, unit, versus: None });
        self
    }

    pub fn milliseconds(self, name: impl Into<String>, duration: Duration) -> Report {
        self.row(name, duration.as_secs_f64() * 1e3, "ms")
    }

    pub fn megabytes(self, name: impl Into<String>, bytes: u64) -> Report {
        self.row(name, bytes as f64 / 1e6, "MB")
    }

    /// Median, 99th percentile and maximum.
    pub fn latencies(self, name: &str, latencies: &Latencies) -> Report {
        let report = self.milliseconds(format!("{name}, median"), latencies.percentile(50.0));
        let report = report.milliseconds(format!("{name}, p99"), latencies.percentile(99.0));
        report.milliseconds(format!("{name}, max"), latencies.percentile(100.0))
    }

    /// The server's CPU time for each of `operations`; nothing when it was not measured.
    pub fn server_cpu(self, per: &str, cpu: Option<Duration>, operations: usize) -> Report {
        match cpu {
            Some(cpu) => {
                self.row(format!("server CPU per {per}"), cpu.as_secs_f64() * 1e6 / operations as f64, "us")
            }
            None => self,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        write!(f, "{}", self.benchmark)?;
        for Row { name, value, unit, versus } in &self.rows {
            write!(f, "\n  {name:width$}  {:>12} {unit}", number(*value))?;
            if let Some(Versus { value, ratio, .. }) = versus {
                write!(f, "  upstream {:>12} {unit}  {ratio:.1}x", number(*value))?;
            }
        }
        Ok(())
    }
}

/// As many digits as mean something.
pub fn number(value: f64) -> String {
    let decimals = if value.fract() == 0.0 || value >= 1000.0 { 0 } else { 2 };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_table() {
        let report = Report::new("create-pods").row("pods", 100.0, "").server_cpu(
            "create",
            Some(Duration::from_millis(40)),
            100,
        );
        let expect =
            "create-pods\n  pods                            100 \n  server CPU per create           400 us";
        assert_eq!(report.to_string(), expect);
    }
}
