//! What the server counts about itself, under upstream's metric names.

mod commits;
pub mod expressions;
mod gates;
mod lists;
mod podsecurity;
pub mod process;
mod stored;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::call::Call;
use crate::core::Core;
use crate::metrics::commits::Commits;
pub use crate::metrics::commits::operation;
pub use crate::metrics::gates::Gates;
use crate::metrics::lists::Lists;
use crate::metrics::podsecurity::PodSecurity;
use crate::metrics::watches::{Sent, Watches};
use crate::prometheus::{Histogram, Histograms, Label, Metric, head};
use crate::request_info::RequestInfo;

/// Upper bounds in seconds of `apiserver_request_duration_seconds` (upstream's own).
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Upper bounds in seconds of what is judged against service level objectives.
const SLI_BUCKETS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Upper bounds in bytes of `apiserver_response_sizes`.
const SIZE_BUCKETS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Upper bounds in bytes of `apiserver_request_body_size_bytes`: up to the largest body there may be.
static BODY_BUCKETS: [f64; 31] = body_buckets();

const fn body_buckets() -> [f64; 31] {
    let (mut bounds, mut place) = ([0.0; 31], 0);
    while place < bounds.len() {
        bounds[place] = 50_000.0 + 100_000.0 * place as f64;
        place += 1;
    }
    bounds
}

const DURATIONS: &str = "apiserver_request_duration_seconds";

/// What is shown of the requests with the same labels.
struct Distribution {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    of: fn(&Requests) -> &Histogram,
}

const DISTRIBUTIONS: [Distribution; 2] = [
    Distribution {
        name: "apiserver_request_sli_duration_seconds",
        help: "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
        bounds: &SLI_BUCKETS,
        of: |requests| &requests.own,
    },
    Distribution {
        name: "apiserver_response_sizes",
        help: "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        bounds: &SIZE_BUCKETS,
        of: |requests| &requests.sizes,
    },
];

/// More combinations of labels than this are counted under no resource, so that strange paths cost no memory.
const SERIES_MAX: usize = 4096;

/// Paths that are no resources and are counted by name.
const PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Of a path that is no resource, or of nothing that is served: the name under which it is counted, if it has one.
fn path_label(path: &str) -> &'static str {
    match path.strip_prefix("/openapi/v3") {
        Some("") => "openapi/v3",
        Some(rest) if rest.starts_with('/') => "openapi/v3/",
        _ => PATHS.into_iter().find(|known| *known == path).unwrap_or_default(),
    }
}

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
            let subresource = path_label(&info.path).to_owned();
            return Labels { verb: info.verb.to_uppercase(), subresource, ..Labels::default() };
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
            "component=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            if self.resource.is_empty() { "" } else { "apiserver" },
            self.group,
            self.resource,
            self.scope,
            self.subresource,
            self.verb,
            self.version
        )
    }

    fn with_dry_run(&self, dry_run: bool) -> String {
        format!("dry_run=\"{}\",{}", if dry_run { "All" } else { "" }, self.text())
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

#[derive(Debug, Default)]
struct Counts {
    finished: BTreeMap<Labels, Requests>,
    long_running: BTreeMap<Arc<Labels>, i64>,
    /// What was asked for though it is deprecated.
    deprecated: BTreeSet<[Label; 5]>,
}

impl Counts {
    fn begin_long_running(&mut self, labels: Labels) -> Arc<Labels> {
        let known = self.long_running.get_key_value(&labels).map(|(known, _)| known.clone());
        let labels = known.unwrap_or_else(|| Arc::new(labels));
        *self.long_running.entry(labels.clone()).or_default() += 1;
        labels
    }
}

const DEPRECATED: Metric<5> = Metric {
    name: "apiserver_requested_deprecated_apis",
    help: "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
    labels: ["group", "removed_release", "resource", "subresource", "version"],
};

/// What the requests with the same labels came to and took.
#[derive(Debug, Default)]
struct Requests {
    /// By the code of the answer and whether it was a dry run.
    total: BTreeMap<(u16, bool), u64>,
    /// Those that this server cut off to protect itself, by the code of the answer.
    terminations: BTreeMap<u16, u64>,
    /// Those that were meant, and dry runs.
    all: [Histogram; 2],
    /// Without what was not this server's own work.
    own: Histogram,
    /// Of answers to those that read.
    sizes: Histogram,
}

#[derive(Debug)]
pub struct Metrics {
    counts: Arc<Mutex<Counts>>,
    field_validations: Histograms<1>,
    bodies: Histograms<3>,
    pub gates: Arc<Gates>,
    pub lists: Lists,
    pub commits: Commits,
    pub rules: Arc<expressions::Rules>,
    pub policies: expressions::Policies,
    pub pod_security: PodSecurity,
    watches: Watches,
}

impl Default for Metrics {
    fn default() -> Self {
        let of_field_validation = Metric {
            name: "field_validation_request_duration_seconds",
            help: "[ALPHA] Response latency distribution in seconds for each field validation value",
            labels: ["field_validation"],
        };
        let of_bodies = Metric {
            name: "apiserver_request_body_size_bytes",
            help: "[ALPHA] Apiserver request body size in bytes broken out by resource and verb.",
            labels: ["group", "resource", "verb"],
        };
        Metrics {
            counts: Arc::default(),
            field_validations: Histograms::new(of_field_validation, &SLI_BUCKETS),
            bodies: Histograms::new(of_bodies, &BODY_BUCKETS),
            gates: Arc::default(),
            lists: Lists::default(),
            commits: Commits::default(),
            rules: Arc::default(),
            policies: expressions::Policies::default(),
            pod_security: PodSecurity::default(),
            watches: Watches::default(),
        }
    }
}

/// A request being counted among the long-running ones.
pub struct LongRunning {
    core: Arc<Core>,
    /// One for all that are counted together: there are many watches.
    labels: Arc<Labels>,
    sent: Arc<Sent>,
    started: Instant,
}

impl LongRunning {
    /// An event goes to the client.
    pub fn sent(&self, bytes: usize) {
        self.sent.event(bytes);
    }

    /// All that is there already has been sent.
    pub fn listed(&self) {
        let Labels { group, resource, scope, version, .. } = &*self.labels;
        self.core.metrics.watches.listed([group, resource, scope, version], self.started.elapsed());
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(count) = self.core.metrics.counts.lock().long_running.get_mut(&self.labels) {
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
    /// What the client asked for, if it did.
    pub field_validation: Option<String>,
    /// Whether the server cut it off to protect itself.
    pub cut_off: bool,
    pub took: Duration,
    /// How much of that was not this server's own work.
    pub waited: Duration,
    /// Of the answer.
    pub bytes: u64,
}

impl Metrics {
    pub fn finished(&self, request: &Finished<'_>) {
        let Finished { info, took, .. } = request;
        self.count_field_validation(request);
        let mut counts = self.counts.lock();
        let room = counts.finished.len() < SERIES_MAX;
        let requests = counts.finished.entry(Labels::of(info, request.known && room)).or_default();
        *requests.total.entry((request.code, request.dry_run)).or_default() += 1;
        if request.cut_off {
            *requests.terminations.entry(request.code).or_default() += 1;
        }
        if info.is_long_running() {
            return;
        }
        requests.all[usize::from(request.dry_run)].observe(&DURATION_BUCKETS, took.as_secs_f64());
        requests.own.observe(&SLI_BUCKETS, took.saturating_sub(request.waited).as_secs_f64());
        if matches!(info.verb, "get" | "list") {
            requests.sizes.observe(&SIZE_BUCKETS, request.bytes as f64);
        }
    }

    fn count_field_validation(&self, request: &Finished<'_>) {
        if !request.known || !matches!(request.info.verb, "create" | "update" | "patch") {
            return;
        }
        let known = ["Ignore", "Warn", "Strict"];
        let asked = request.field_validation.as_deref().unwrap_or_default();
        let label = known.into_iter().find(|known| *known == asked).unwrap_or_default();
        self.field_validations.observe([label.into()], request.took.as_secs_f64());
    }

    /// What a request asks for is deprecated. Nothing that is has been given a release in which it will be gone.
    pub fn deprecated(&self, info: &RequestInfo) {
        let RequestInfo { group, resource, subresource, version, .. } = info;
        let labels = [group.as_str(), "", resource, subresource, version];
        self.counts.lock().deprecated.insert(labels.map(|value| Label::from(value.to_owned())));
    }

    /// A request has come with a body of this size.
    pub fn body(&self, info: &RequestInfo, bytes: usize) {
        let labels = [info.group.clone().into(), info.resource.clone().into(), info.verb.into()];
        self.bodies.observe(labels, bytes as f64);
    }

    /// Counts the request as running until the returned guard is dropped.
    pub fn long_running(call: &Call) -> LongRunning {
        let (core, labels) = (call.core.clone(), Labels::of(&call.info, true));
        let labels = core.metrics.counts.lock().begin_long_running(labels);
        let sent = core.metrics.watches.of([&labels.group, &labels.resource, &labels.version]);
        LongRunning { core, labels, sent, started: Instant::now() }
    }

    /// The Prometheus text format of what requests were and are, and of what there is now.
    pub fn render(core: &Core, now: Timestamp) -> String {
        let mut out = String::new();
        let metrics = &core.metrics;
        let encryption = &core.config.encryption;
        let parts: [&dyn Fn(&mut String) -> std::fmt::Result; 13] = [
            &|out| metrics.counts.lock().write(out),
            &|out| metrics.field_validations.write(out),
            &|out| metrics.bodies.write(out),
            &|out| metrics.gates.write(out),
            &|out| metrics.lists.write(out),
            &|out| metrics.commits.write(out),
            &|out| metrics.rules.write(out),
            &|out| metrics.policies.write(out),
            &|out| metrics.pod_security.write(out),
            &|out| metrics.watches.write(out),
            &|out| stored::write(out, core),
            &|out| encryption.iter().try_for_each(|encryption| encryption.write_metrics(out)),
            &|out| process::write(out, now),
        ];
        parts.iter().try_for_each(|part| part(&mut out)).expect("writing to a String does not fail");
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
        for (labels, requests) in &self.finished {
            for ((code, dry_run), count) in &requests.total {
                let labels = labels.with_dry_run(*dry_run);
                writeln!(out, "apiserver_request_total{{code=\"{code}\",{labels}}} {count}")?;
            }
        }
        let terminations = "apiserver_request_terminations_total";
        let help = "[ALPHA] Number of requests which apiserver terminated in self-defense.";
        head(out, terminations, "counter", help)?;
        for (labels, requests) in &self.finished {
            for (code, count) in &requests.terminations {
                writeln!(out, "{terminations}{{code=\"{code}\",{}}} {count}", labels.text())?;
            }
        }
        let help = "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.";
        head(out, DURATIONS, "histogram", help)?;
        for (labels, requests) in &self.finished {
            for (histogram, dry_run) in requests.all.iter().zip([false, true]) {
                if !histogram.is_empty() {
                    histogram.write(out, DURATIONS, &DURATION_BUCKETS, &labels.with_dry_run(dry_run))?;
                }
            }
        }
        for Distribution { name, help, bounds, of } in &DISTRIBUTIONS {
            head(out, name, "histogram", help)?;
            for (labels, requests) in &self.finished {
                let histogram = of(requests);
                if !histogram.is_empty() {
                    histogram.write(out, name, bounds, &labels.text())?;
                }
            }
        }
        DEPRECATED.write(out, "gauge", self.deprecated.iter().map(|labels| (labels.clone(), 1.0)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deprecated_is_told_once_it_was_asked_for() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            version: "v1".to_owned(),
            resource: "endpoints".to_owned(),
            ..RequestInfo::default()
        };
        (0..2).for_each(|_| metrics.deprecated(&info));
        let mut text = String::new();
        metrics.counts.lock().write(&mut text).expect("renders");
        let labels = "group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"";
        let lines = text.lines().filter(|line| line.starts_with("apiserver_requested_deprecated_apis"));
        assert_eq!(lines.collect::<Vec<_>>(), [format!("apiserver_requested_deprecated_apis{{{labels}}} 1")]);
    }

    #[test]
    fn what_is_no_resource_is_counted_by_a_few_names() {
        for (path, expect) in [
            ("/readyz", "/readyz"),
            ("/readyz/ping", ""),
            ("/openapi/v3", "openapi/v3"),
            ("/openapi/v3/apis/apps/v1", "openapi/v3/"),
            ("/openapi/v30", ""),
            ("/made/up", ""),
        ] {
            assert_eq!(path_label(path), expect, "{path}");
        }
    }

    #[test]
    fn a_slow_request_is_counted_in_every_bucket_above_it() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            verb: "create",
            is_resource: true,
            resource: "pods".to_owned(),
            ..RequestInfo::default()
        };
        metrics.finished(&Finished {
            info: &info,
            known: true,
            code: 201,
            dry_run: false,
            field_validation: Some("Strict".to_owned()),
            cut_off: false,
            took: Duration::from_millis(60),
            waited: Duration::from_millis(30),
            bytes: 9,
        });
        let mut text = String::new();
        metrics.counts.lock().write(&mut text).expect("renders");
        metrics.field_validations.write(&mut text).expect("renders");
        assert!(text.contains("apiserver_request_total{code=\"201\",dry_run=\"\",component=\"apiserver\",group=\"\",resource=\"pods\""), "{text}");
        let labels = "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"\"";
        for (name, dry_run, bound, count) in [
            ("apiserver_request_duration_seconds", "dry_run=\"\",", "0.05", 0),
            ("apiserver_request_duration_seconds", "dry_run=\"\",", "0.1", 1),
            // What it waited for others does not count.
            ("apiserver_request_sli_duration_seconds", "", "0.05", 1),
        ] {
            let line = format!("{name}_bucket{{{dry_run}{labels},le=\"{bound}\"}} {count}");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(!text.contains("apiserver_response_sizes_bucket"), "writes have no size");
        assert!(
            text.contains("field_validation_request_duration_seconds_count{field_validation=\"Strict\"} 1"),
            "{text}"
        );
    }
}
