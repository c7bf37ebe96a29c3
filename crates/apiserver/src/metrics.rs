//! What the server counts about itself, under upstream's metric names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::call::Call;
use crate::prometheus::head;
use crate::request_info::RequestInfo;

/// Upper bounds in seconds of `apiserver_request_duration_seconds` (upstream's own).
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// More combinations of labels than this are counted under no resource, so that strange paths cost no memory.
const SERIES_MAX: usize = 4096;

/// What a request is counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
}

impl Labels {
    /// `known` tells whether the path names something that is served; other paths share one label set.
    fn of(info: &RequestInfo, known: bool) -> Labels {
        if !known {
            return Labels { verb: info.verb.to_uppercase(), ..Labels::default() };
        }
        Labels {
            verb: upper_verb(info.verb),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope: info.scope().to_owned(),
        }
    }

    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

fn upper_verb(verb: &str) -> String {
    match verb {
        "create" => "POST".to_owned(),
        "update" => "PUT".to_owned(),
        "deletecollection" => "DELETECOLLECTION".to_owned(),
        other => other.to_uppercase(),
    }
}

#[derive(Clone, Debug, Default)]
struct Histogram {
    /// Not cumulative; the last is above all bounds.
    buckets: [u64; DURATION_BUCKETS.len() + 1],
    sum: f64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(Labels, u16, bool), u64>,
    durations: BTreeMap<Labels, Histogram>,
    long_running: BTreeMap<Labels, i64>,
}

#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Counts>>);

/// A request being counted among the long-running ones.
#[derive(Debug)]
pub struct LongRunning {
    metrics: Metrics,
    labels: Labels,
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(count) = self.metrics.0.lock().long_running.get_mut(&self.labels) {
            *count -= 1;
        }
    }
}

/// One finished request.
pub struct Finished<'a> {
    pub info: &'a RequestInfo,
    /// The path names something that is served.
    pub known: bool,
    pub code: u16,
    pub dry_run: bool,
    pub took: Duration,
}

impl Metrics {
    pub fn finished(&self, request: &Finished<'_>) {
        let mut counts = self.0.lock();
        let room = counts.requests.len() < SERIES_MAX;
        let labels = Labels::of(request.info, request.known && room);
        *counts.requests.entry((labels.clone(), request.code, request.dry_run)).or_default() += 1;
        if request.info.is_long_running() {
            return;
        }
        let seconds = request.took.as_secs_f64();
        let histogram = counts.durations.entry(labels).or_default();
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < seconds);
        histogram.buckets[bucket] += 1;
        histogram.sum += seconds;
    }

    /// Counts the request as running until the returned guard is dropped.
    pub fn long_running(&self, call: &Call) -> LongRunning {
        let labels = Labels::of(&call.info, true);
        *self.0.lock().long_running.entry(labels.clone()).or_default() += 1;
        LongRunning { metrics: self.clone(), labels }
    }

    /// The Prometheus text format.
    pub fn render(&self, statistics: &store::Statistics) -> String {
        let mut out = String::new();
        self.0.lock().write(&mut out).expect("writing to a String does not fail");
        write_store(&mut out, statistics).expect("writing to a String does not fail");
        out
    }
}

impl Counts {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        head(
            out,
            "apiserver_request_total",
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        )?;
        for ((labels, code, dry_run), count) in &self.requests {
            let dry_run = if *dry_run { "All" } else { "" };
            writeln!(
                out,
                "apiserver_request_total{{code=\"{code}\",dry_run=\"{dry_run}\",{}}} {count}",
                labels.text()
            )?;
        }
        head(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        )?;
        for (labels, histogram) in &self.durations {
            histogram.write(out, &labels.text())?;
        }
        head(
            out,
            "apiserver_longrunning_requests",
            "gauge",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        )?;
        for (labels, count) in &self.long_running {
            writeln!(out, "apiserver_longrunning_requests{{{}}} {count}", labels.text())?;
        }
        Ok(())
    }
}

impl Histogram {
    fn write(&self, out: &mut String, labels: &str) -> std::fmt::Result {
        const NAME: &str = "apiserver_request_duration_seconds";
        let mut total = 0;
        for (bound, count) in DURATION_BUCKETS.iter().zip(self.buckets) {
            total += count;
            writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {total}")?;
        }
        total += self.buckets[DURATION_BUCKETS.len()];
        writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {total}")?;
        writeln!(out, "{NAME}_sum{{{labels}}} {}", self.sum)?;
        writeln!(out, "{NAME}_count{{{labels}}} {total}")
    }
}

fn write_store(out: &mut String, statistics: &store::Statistics) -> std::fmt::Result {
    head(
        out,
        "apiserver_storage_objects",
        "gauge",
        "[STABLE] Number of stored objects at the time of last check split by kind.",
    )?;
    for (resource, count) in &statistics.objects {
        writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}")?;
    }
    head(out, "apiserver_registered_watchers", "gauge", "[ALPHA] Number of currently registered watchers.")?;
    writeln!(out, "apiserver_registered_watchers {}", statistics.watchers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_request_is_counted_in_every_bucket_above_it() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            verb: "create",
            is_resource: true,
            resource: "pods".to_owned(),
            ..RequestInfo::default()
        };
        let took = Duration::from_millis(30);
        metrics.finished(&Finished { info: &info, known: true, code: 201, dry_run: false, took });
        let mut text = String::new();
        metrics.0.lock().write(&mut text).expect("renders");
        assert!(text.contains("apiserver_request_total{code=\"201\",dry_run=\"\",component=\"apiserver\",group=\"\",resource=\"pods\""), "{text}");
        assert!(text.contains("verb=\"POST\",version=\"\",le=\"0.025\"} 0"), "{text}");
        assert!(text.contains("verb=\"POST\",version=\"\",le=\"0.05\"} 1"), "{text}");
    }
}
