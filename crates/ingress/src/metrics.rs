//! What the proxy counts, and the text in which Prometheus reads it. Counting takes additions and no lock: it happens
//! for every request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use network::metrics::{DEF_BUCKETS, head, sample};
use parking_lot::Mutex;

const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const REQUESTS: &str = "coxswain_ingress_requests_total";
const DURATION: &str = "coxswain_ingress_request_duration_seconds";

/// The counts of an Ingress' one Service.
#[derive(Debug, Default)]
pub struct Counters {
    statuses: [AtomicU64; STATUSES.len()],
    /// How many fell into each bucket alone, the last being what is above all bounds.
    buckets: [AtomicU64; DEF_BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Counters {
    /// `took` is the time to the head of the response.
    pub fn answered(&self, status: u16, took: Duration) {
        let status = usize::from(status / 100).clamp(1, STATUSES.len()) - 1;
        self.statuses[status].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = DEF_BUCKETS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

type Labels = (String, String, String);

/// All counts.
#[derive(Debug, Default)]
pub struct Registry {
    /// By namespace, Ingress and Service.
    routes: Mutex<BTreeMap<Labels, Arc<Counters>>>,
    /// Requests for which there is no route.
    pub unrouted: AtomicU64,
    /// Connections to endpoints that failed, whether another endpoint was found or not.
    pub connect_failures: AtomicU64,
    pub tables: AtomicU64,
    pub connections: AtomicU64,
}

impl Registry {
    /// The counts of an Ingress' Service; the same ones as long as anybody holds them.
    pub fn of(&self, namespace: &str, ingress: &str, service: &str) -> Arc<Counters> {
        let labels = (namespace.to_owned(), ingress.to_owned(), service.to_owned());
        self.routes.lock().entry(labels).or_default().clone()
    }

    /// Drops counts that no table holds any more.
    pub fn forget_unused(&self) {
        self.routes.lock().retain(|_, counters| Arc::strong_count(counters) > 1);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let routes = self.routes.lock().clone();
        head(&mut text, REQUESTS, "Requests by Ingress, Service and class of status", "counter");
        for (labels, counters) in &routes {
            for (name, count) in STATUSES.iter().zip(&counters.statuses) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    sample(
                        &mut text,
                        REQUESTS,
                        "",
                        &written(labels),
                        &format!("status=\"{name}\""),
                        count as f64,
                    );
                }
            }
        }
        head(&mut text, DURATION, "Time to the head of the response", "histogram");
        for (labels, counters) in &routes {
            write_histogram(&mut text, &written(labels), counters);
        }
        let counts = [
            (
                "coxswain_ingress_unrouted_requests_total",
                "Requests without a route",
                "counter",
                &self.unrouted,
            ),
            (
                "coxswain_ingress_connect_failures_total",
                "Failed connections to endpoints",
                "counter",
                &self.connect_failures,
            ),
            ("coxswain_ingress_reloads_total", "Routing tables put to use", "counter", &self.tables),
            ("coxswain_ingress_connections", "Open connections of clients", "gauge", &self.connections),
        ];
        for (name, help, kind, value) in counts {
            head(&mut text, name, help, kind);
            sample(&mut text, name, "", "", "", value.load(Ordering::Relaxed) as f64);
        }
        text
    }
}

/// Names in the API need no escaping.
fn written((namespace, ingress, service): &Labels) -> String {
    format!("namespace=\"{namespace}\",ingress=\"{ingress}\",service=\"{service}\"")
}

fn write_histogram(text: &mut String, labels: &str, counters: &Counters) {
    let counts = counters.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
    let mut below = 0;
    for (bound, count) in DEF_BUCKETS.iter().zip(counts) {
        below += count;
        sample(text, DURATION, "_bucket", labels, &format!("le=\"{bound}\""), below as f64);
    }
    let all: u64 = counts.iter().sum();
    sample(text, DURATION, "_bucket", labels, "le=\"+Inf\"", all as f64);
    let seconds = counters.micros.load(Ordering::Relaxed) as f64 / 1e6;
    sample(text, DURATION, "_sum", labels, "", seconds);
    sample(text, DURATION, "_count", labels, "", all as f64);
}
