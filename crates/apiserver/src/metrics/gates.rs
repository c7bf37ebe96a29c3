//! What every request passes before it is worked on: who sends it, whether they may, and how many are under way or
//! wait to be.

use std::fmt::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::prometheus::{Counters, Histograms, Metric};

/// Upper bounds in seconds of the two durations (upstream: fifteen, each twice the one before).
const DURATION_BUCKETS: [f64; 15] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
/// Upper bounds in seconds of how long client certificates that are shown hold: from now to a year.
const EXPIRATION_BUCKETS: [f64; 14] = [
    0.0,
    1_800.0,
    3_600.0,
    7_200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

const IN_FLIGHT: Metric<1> = Metric {
    name: "apiserver_current_inflight_requests",
    help: "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    labels: ["request_kind"],
};
const IN_QUEUE: Metric<1> = Metric {
    name: "apiserver_current_inqueue_requests",
    help: "[ALPHA] Maximal number of queued requests in this apiserver per request kind in last second.",
    labels: ["request_kind"],
};
const KINDS: [&str; 2] = ["mutating", "readOnly"];

/// Users who are counted by name; all others would be too many (upstream: compressUsername).
const NAMED: [&str; 5] =
    ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

#[derive(Debug)]
pub struct Gates {
    /// Those that change something, and those that do not.
    in_flight: [AtomicI64; 2],
    in_queue: [AtomicI64; 2],
    authentications: Counters<1>,
    authentication_took: Histograms<1>,
    users: Counters<1>,
    certificates: Histograms<0>,
    service_account_tokens: Counters<0>,
    authorizations: Counters<1>,
    authorization_took: Histograms<1>,
    handshake_errors: Counters<0>,
}

impl Default for Gates {
    fn default() -> Self {
        let metric = |name, help| Metric { name, help, labels: ["result"] };
        let plain = |name, help| Metric { name, help, labels: [] };
        let attempts = "[ALPHA] Counter of authenticated attempts.";
        let took = "[ALPHA] Authentication duration in seconds broken out by result.";
        let users = Metric {
            name: "authenticated_user_requests",
            help: "[ALPHA] Counter of authenticated requests broken out by username.",
            labels: ["username"],
        };
        let expiration = "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.";
        let tokens = "[ALPHA] Cumulative valid projected service account tokens used";
        let decisions = "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.";
        let decided = "[ALPHA] Authorization duration in seconds broken out by result.";
        let handshakes = "[ALPHA] Number of requests dropped with 'TLS handshake error from' error";
        Gates {
            in_flight: Default::default(),
            in_queue: Default::default(),
            authentications: Counters::new(metric("authentication_attempts", attempts)),
            authentication_took: Histograms::new(
                metric("authentication_duration_seconds", took),
                &DURATION_BUCKETS,
            ),
            users: Counters::new(users),
            certificates: Histograms::new(
                plain("apiserver_client_certificate_expiration_seconds", expiration),
                &EXPIRATION_BUCKETS,
            ),
            service_account_tokens: Counters::new(plain("serviceaccount_valid_tokens_total", tokens)),
            authorizations: Counters::new(metric("authorization_attempts_total", decisions)),
            authorization_took: Histograms::new(
                metric("authorization_duration_seconds", decided),
                &DURATION_BUCKETS,
            ),
            handshake_errors: Counters::new(plain("apiserver_tls_handshake_errors_total", handshakes)),
        }
    }
}

/// A request that is being worked on, or waits to be.
#[derive(Debug)]
pub struct Counted {
    gates: Arc<Gates>,
    count: fn(&Gates, usize) -> &AtomicI64,
    kind: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.gates, self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gates {
    /// Counts a request as being worked on until the returned guard is dropped.
    pub fn enter(self: &Arc<Self>, writes: bool) -> Counted {
        self.counted(writes, |gates, kind| &gates.in_flight[kind])
    }

    /// Counts a request as waiting until the returned guard is dropped.
    pub fn queue(self: &Arc<Self>, writes: bool) -> Counted {
        self.counted(writes, |gates, kind| &gates.in_queue[kind])
    }

    fn counted(self: &Arc<Self>, writes: bool, count: fn(&Gates, usize) -> &AtomicI64) -> Counted {
        let kind = usize::from(!writes);
        count(self, kind).fetch_add(1, Ordering::Relaxed);
        Counted { gates: self.clone(), count, kind }
    }

    /// Somebody has said who they are, and was believed or not.
    pub fn authenticated(&self, result: &'static str, took: Duration) {
        self.authentications.add([result.into()], 1);
        self.authentication_took.observe([result.into()], took.as_secs_f64());
    }

    pub fn user(&self, name: &str) {
        let known = NAMED.into_iter().find(|known| *known == name);
        let shown = known.unwrap_or(if name.contains('@') { "email_id" } else { "other" });
        self.users.add([shown.into()], 1);
    }

    /// A client certificate was believed that holds for so many seconds more.
    pub fn certificate(&self, seconds_left: f64) {
        self.certificates.observe([], seconds_left);
    }

    pub fn service_account_token(&self) {
        self.service_account_tokens.add([], 1);
    }

    pub fn authorized(&self, result: &'static str, took: Duration) {
        self.authorizations.add([result.into()], 1);
        self.authorization_took.observe([result.into()], took.as_secs_f64());
    }

    pub fn handshake_failed(&self) {
        self.handshake_errors.add([], 1);
    }

    pub fn write(&self, out: &mut String) -> Result {
        for (metric, counts) in [(IN_FLIGHT, &self.in_flight), (IN_QUEUE, &self.in_queue)] {
            let rows = KINDS.into_iter().zip(counts);
            let rows = rows.map(|(kind, count)| ([kind.into()], count.load(Ordering::Relaxed) as f64));
            metric.write(out, "gauge", rows)?;
        }
        self.authentications.write(out)?;
        self.authentication_took.write(out)?;
        self.users.write(out)?;
        self.certificates.write(out)?;
        self.service_account_tokens.write(out)?;
        self.authorizations.write(out)?;
        self.authorization_took.write(out)?;
        self.handshake_errors.write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_counted_until_it_ends() {
        let gates = Arc::<Gates>::default();
        let told = |line: &str| {
            let mut text = String::new();
            gates.write(&mut text).expect("renders");
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        };
        let held = (gates.enter(true), gates.queue(false));
        told("apiserver_current_inflight_requests{request_kind=\"mutating\"} 1");
        told("apiserver_current_inqueue_requests{request_kind=\"readOnly\"} 1");
        drop(held);
        told("apiserver_current_inflight_requests{request_kind=\"mutating\"} 0");
        told("apiserver_current_inqueue_requests{request_kind=\"readOnly\"} 0");
    }

    #[test]
    fn users_without_end_make_no_series_without_end() {
        let gates = Gates::default();
        ["admin", "jane@example.com", "jane", "joe"].into_iter().for_each(|name| gates.user(name));
        let mut text = String::new();
        gates.write(&mut text).expect("renders");
        for (name, count) in [("admin", 1), ("email_id", 1), ("other", 2)] {
            let line = format!("authenticated_user_requests{{username=\"{name}\"}} {count}");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
