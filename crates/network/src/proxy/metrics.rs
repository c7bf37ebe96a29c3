//! What the proxy counts, under upstream's names. One table serves both IP families, so what
//! upstream counts for each is counted for both at once.

use std::time::Duration;

use crate::metrics::{Histogram, Number, exponential_buckets};

const FAMILIES: [&str; 2] = ["ip_family=\"IPv4\"", "ip_family=\"IPv6\""];

#[derive(Debug)]
pub struct Metrics {
    sync: Histogram,
    sync_full: Histogram,
    sync_partial: Histogram,
    sync_last: Number,
    queued_last: Number,
    sync_failures: Number,
    cleanup_failures: Number,
    programming: Histogram,
    endpoint_changes: Number,
    endpoint_changes_pending: Number,
    service_changes: Number,
    service_changes_pending: Number,
    no_local_endpoints: Number,
    conntrack: Histogram,
    conntrack_deleted: Number,
    pub healthz: Number,
    pub livez: Number,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let took = |name, help| Histogram::new(name, help, exponential_buckets(0.001, 2.0, 15));
        let metrics = Metrics {
            sync: took("kubeproxy_sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds"),
            sync_full: took(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
            ),
            sync_partial: took(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
            ),
            sync_last: Number::gauge(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
            ),
            queued_last: Number::gauge(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
            ),
            sync_failures: Number::counter(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Cumulative proxy nftables sync failures",
            ),
            cleanup_failures: Number::counter(
                "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
                "Cumulative proxy nftables cleanup failures",
            ),
            programming: Histogram::new(
                "kubeproxy_network_programming_duration_seconds",
                "In Cluster Network Programming Latency in seconds",
                programming_buckets(),
            ),
            endpoint_changes: Number::total(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
            ),
            endpoint_changes_pending: Number::gauge(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
            ),
            service_changes: Number::total(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
            ),
            service_changes_pending: Number::gauge(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
            ),
            no_local_endpoints: Number::gauge(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Number of services with a Local traffic policy and no endpoints",
            ),
            conntrack: took(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "ReconcileConntrackFlowsLatency latency in seconds",
            ),
            conntrack_deleted: Number::counter(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Cumulative conntrack flows deleted by conntrack reconciler",
            ),
            healthz: Number::counter("kubeproxy_proxy_healthz_total", "Cumulative proxy healthz HTTP status"),
            livez: Number::counter("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status"),
        };
        FAMILIES.iter().for_each(|family| metrics.sync_failures.add(family, 0.0));
        FAMILIES.iter().for_each(|family| metrics.cleanup_failures.add(family, 0.0));
        metrics
    }
}

/// Every quarter second to half, second to a minute, five seconds to two minutes, half minute to five.
fn programming_buckets() -> Vec<f64> {
    let quarters = [0.25, 0.5].into_iter();
    let seconds = (1..60).map(f64::from);
    let fives = (0..12).map(|step| f64::from(60 + 5 * step));
    let halves = (0..7).map(|step| f64::from(120 + 30 * step));
    quarters.chain(seconds).chain(fives).chain(halves).collect()
}

impl Metrics {
    pub fn changed(&self, services: usize, slices: usize, now_seconds: f64) {
        self.service_changes.add("", services as f64);
        self.endpoint_changes.add("", slices as f64);
        self.service_changes_pending.set("", services as f64);
        self.endpoint_changes_pending.set("", slices as f64);
        FAMILIES.iter().for_each(|family| self.queued_last.set(family, now_seconds));
    }

    pub fn synced(&self, whole: bool, took: Duration, now_seconds: f64) {
        let kind = if whole { &self.sync_full } else { &self.sync_partial };
        for family in FAMILIES {
            self.sync.observe(family, took.as_secs_f64());
            kind.observe(family, took.as_secs_f64());
            self.sync_last.set(family, now_seconds);
        }
        self.service_changes_pending.set("", 0.0);
        self.endpoint_changes_pending.set("", 0.0);
    }

    pub fn failed(&self) {
        FAMILIES.iter().for_each(|family| self.sync_failures.add(family, 1.0));
    }

    /// `seconds` passed from a pod's or Service's change to the programmed rule.
    pub fn programmed(&self, seconds: f64) {
        FAMILIES.iter().for_each(|family| self.programming.observe(family, seconds));
    }

    pub fn tracked(&self, deleted: usize, took: Duration) {
        for family in FAMILIES {
            self.conntrack.observe(family, took.as_secs_f64());
        }
        self.conntrack_deleted.add(FAMILIES[0], deleted as f64);
    }

    pub fn without_local_endpoints(&self, internal: usize, external: usize) {
        for (policy, count) in [("internal", internal), ("external", external)] {
            for family in FAMILIES {
                self.no_local_endpoints.set(&format!("{family},traffic_policy=\"{policy}\""), count as f64);
            }
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for histogram in [&self.sync, &self.sync_full, &self.sync_partial, &self.programming, &self.conntrack]
        {
            histogram.write(&mut text);
        }
        let numbers = [
            &self.sync_last,
            &self.queued_last,
            &self.sync_failures,
            &self.cleanup_failures,
            &self.endpoint_changes,
            &self.endpoint_changes_pending,
            &self.service_changes,
            &self.service_changes_pending,
            &self.no_local_endpoints,
            &self.conntrack_deleted,
            &self.healthz,
            &self.livez,
        ];
        numbers.iter().for_each(|number| number.write(&mut text));
        text
    }
}
