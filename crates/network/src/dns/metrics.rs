//! What the server counts, under CoreDNS' names. Counting takes an addition and no lock: it happens
//! for every question.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wire::kind;

/// The types that CoreDNS tells apart and we answer; others are counted as `other`.
const KINDS: [(u16, &str); 8] = [
    (kind::A, "A"),
    (kind::AAAA, "AAAA"),
    (kind::CNAME, "CNAME"),
    (kind::NS, "NS"),
    (kind::PTR, "PTR"),
    (kind::SOA, "SOA"),
    (kind::SRV, "SRV"),
    (kind::TXT, "TXT"),
];

const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// Upper bounds in seconds of the buckets, CoreDNS' own.
const BOUNDS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];

const TRANSPORTS: [&str; 2] = ["udp", "tcp"];

#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Udp = 0,
    Tcp = 1,
}

#[derive(Debug, Default)]
pub struct Metrics {
    /// By transport and type; the last is `other`.
    requests: [[AtomicU64; KINDS.len() + 1]; 2],
    /// By code; the last is any other.
    responses: [AtomicU64; CODES.len() + 1],
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    forwards: AtomicU64,
    forward_failures: AtomicU64,
}

impl Metrics {
    pub fn answered(&self, transport: Transport, kind: u16, answer: &[u8], took: Duration) {
        let place = KINDS.iter().position(|(number, _)| *number == kind).unwrap_or(KINDS.len());
        add(&self.requests[transport as usize][place]);
        let code = answer.get(3).map_or(CODES.len(), |flags| usize::from(flags & 0xf));
        add(&self.responses[code.min(CODES.len())]);
        let seconds = took.as_secs_f64();
        add(&self.durations[BOUNDS.partition_point(|bound| *bound < seconds)]);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn looked_up(&self, found: bool) {
        add(if found { &self.cache_hits } else { &self.cache_misses });
    }

    pub fn forwarded(&self, answered: bool) {
        add(&self.forwards);
        if !answered {
            add(&self.forward_failures);
        }
    }

    pub fn text(&self, cache_entries: usize) -> String {
        let mut text = Text::default();
        text.head("coredns_dns_requests_total", "counter", "Counter of DNS requests made per type.");
        let names = KINDS.iter().map(|(_, name)| *name).chain(["other"]);
        for (transport, counts) in TRANSPORTS.iter().zip(&self.requests) {
            for (name, count) in names.clone().zip(counts) {
                text.count(&format!("{{proto=\"{transport}\",type=\"{name}\"}}"), count);
            }
        }
        text.head("coredns_dns_responses_total", "counter", "Counter of response status codes.");
        for (name, count) in CODES.iter().chain(&["other"]).zip(&self.responses) {
            text.count(&format!("{{rcode=\"{name}\"}}"), count);
        }
        self.write_durations(&mut text);
        for (name, help, count) in [
            ("coredns_cache_hits_total", "The count of cache hits.", &self.cache_hits),
            ("coredns_cache_misses_total", "The count of cache misses.", &self.cache_misses),
            ("coredns_proxy_requests_total", "Counter of requests made to resolvers.", &self.forwards),
            (
                "coredns_forward_healthcheck_broken_total",
                "Counter of requests that no resolver answered.",
                &self.forward_failures,
            ),
        ] {
            text.head(name, "counter", help);
            text.count("", count);
        }
        text.head("coredns_cache_entries", "gauge", "The number of elements in the cache.");
        text.line("", cache_entries as f64);
        text.text
    }

    fn write_durations(&self, text: &mut Text) {
        let name = "coredns_dns_request_duration_seconds";
        text.head(name, "histogram", "Histogram of the time (in seconds) each request took per zone.");
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]).zip(&self.durations) {
            below += count.load(Ordering::Relaxed);
            text.line(&format!("_bucket{{le=\"{bound}\"}}"), below as f64);
        }
        text.line("_sum", self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9);
        text.line("_count", below as f64);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The text being written, and the metric it is at.
#[derive(Default)]
struct Text {
    text: String,
    name: &'static str,
}

impl Text {
    fn head(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
    }

    fn count(&mut self, rest: &str, count: &AtomicU64) {
        self.line(rest, count.load(Ordering::Relaxed) as f64);
    }

    fn line(&mut self, rest: &str, value: f64) {
        writeln!(self.text, "{}{rest} {value}", self.name).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_counted_by_type_code_and_time() {
        let metrics = Metrics::default();
        let name_error = [0, 0, 0, 3];
        metrics.answered(Transport::Udp, kind::AAAA, &name_error, Duration::from_millis(3));
        metrics.answered(Transport::Tcp, 255, &[0; 4], Duration::from_secs(60));
        metrics.looked_up(false);
        let text = metrics.text(7);
        for line in [
            "coredns_dns_requests_total{proto=\"udp\",type=\"AAAA\"} 1",
            "coredns_dns_requests_total{proto=\"tcp\",type=\"other\"} 1",
            "coredns_dns_responses_total{rcode=\"NXDOMAIN\"} 1",
            "coredns_dns_request_duration_seconds_bucket{le=\"0.002\"} 0",
            "coredns_dns_request_duration_seconds_bucket{le=\"0.004\"} 1",
            "coredns_dns_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "coredns_cache_misses_total 1",
            "coredns_cache_entries 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
