//! What the server counts, under CoreDNS' names and labels. Counting takes additions and no lock: it happens for every
//! question.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wire::kind;
use crate::metrics::Histogram;

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
const TIME_BOUNDS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];

/// The same in bytes of a message.
const SIZE_BOUNDS: [f64; 14] = [
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16_000.0, 32_000.0, 48_000.0,
    64_000.0,
];

/// One server for all names: what CoreDNS says of the server block that comes with Kubernetes.
const SERVER: &str = "server=\"dns://:53\",view=\"\",zone=\".\"";
const CACHE: &str = "server=\"dns://:53\",view=\"\",zones=\".\"";

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Udp4,
    Udp6,
    Tcp4,
    Tcp6,
}

impl Channel {
    const ALL: [Channel; 4] = [Channel::Udp4, Channel::Udp6, Channel::Tcp4, Channel::Tcp6];

    pub fn udp(client: SocketAddr) -> Channel {
        if client.is_ipv4() { Channel::Udp4 } else { Channel::Udp6 }
    }

    pub fn tcp(client: SocketAddr) -> Channel {
        if client.is_ipv4() { Channel::Tcp4 } else { Channel::Tcp6 }
    }

    fn protocol(self) -> &'static str {
        match self {
            Channel::Udp4 | Channel::Udp6 => "udp",
            Channel::Tcp4 | Channel::Tcp6 => "tcp",
        }
    }

    /// As address families are numbered for DNS (IANA), and by CoreDNS.
    fn family(self) -> u8 {
        match self {
            Channel::Udp4 | Channel::Tcp4 => 1,
            Channel::Udp6 | Channel::Tcp6 => 2,
        }
    }
}

#[derive(Debug, Default)]
pub struct Metrics {
    /// By channel and type; the last is `other`.
    requests: [[AtomicU64; KINDS.len() + 1]; Channel::ALL.len()],
    /// By code; the last is any other.
    responses: [AtomicU64; CODES.len() + 1],
    durations: Buckets<{ TIME_BOUNDS.len() + 1 }>,
    /// By whether they came over TCP.
    request_sizes: [Buckets<{ SIZE_BOUNDS.len() + 1 }>; 2],
    response_sizes: [Buckets<{ SIZE_BOUNDS.len() + 1 }>; 2],
    cache_hits: AtomicU64,
    cache_denials: AtomicU64,
    cache_misses: AtomicU64,
    /// How long other resolvers took, by resolver and code.
    forwards: Forwards,
    forward_failures: AtomicU64,
    forward_rejects: AtomicU64,
}

#[derive(Debug)]
struct Forwards(Histogram);

impl Default for Forwards {
    fn default() -> Forwards {
        let (name, help) =
            ("coredns_proxy_request_duration_seconds", "Histogram of the time each request took.");
        Forwards(Histogram::new(name, help, TIME_BOUNDS.to_vec()))
    }
}

/// How many responses are kept, of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub success: usize,
    pub denial: usize,
}

impl Metrics {
    pub fn answered(&self, channel: Channel, kind: u16, request_len: usize, answer: &[u8], took: Duration) {
        let place = KINDS.iter().position(|(number, _)| *number == kind).unwrap_or(KINDS.len());
        add(&self.requests[channel as usize][place]);
        let code = answer.get(3).map_or(CODES.len(), |flags| usize::from(flags & 0xf));
        add(&self.responses[code.min(CODES.len())]);
        self.durations.add(&TIME_BOUNDS, took.as_secs_f64(), took.as_nanos() as u64);
        let transport = usize::from(channel.protocol() == "tcp");
        self.request_sizes[transport].add(&SIZE_BOUNDS, request_len as f64, request_len as u64);
        self.response_sizes[transport].add(&SIZE_BOUNDS, answer.len() as f64, answer.len() as u64);
    }

    /// `found` tells whether what was in the cache is a denial.
    pub fn looked_up(&self, found: Option<bool>) {
        add(match found {
            Some(false) => &self.cache_hits,
            Some(true) => &self.cache_denials,
            None => &self.cache_misses,
        });
    }

    /// Another resolver has answered.
    pub fn forwarded(&self, to: SocketAddr, code: u8, took: Duration) {
        let code = CODES.get(usize::from(code)).map_or_else(|| code.to_string(), |name| (*name).to_owned());
        let labels = format!("proxy_name=\"forward\",rcode=\"{code}\",to=\"{to}\"");
        self.forwards.0.observe(&labels, took.as_secs_f64());
    }

    /// No other resolver has.
    pub fn not_forwarded(&self) {
        add(&self.forward_failures);
    }

    /// Too many were under way.
    pub fn rejected(&self) {
        add(&self.forward_rejects);
    }

    pub fn text(&self, kept: Kept) -> String {
        let mut text = Text::default();
        self.write_requests(&mut text);
        self.write_cache(&mut text, kept);
        self.forwards.0.write(&mut text.text);
        text.head("coredns_build_info", "gauge", "A metric with a constant '1' value labeled by version.");
        text.line(
            "",
            &format!("goversion=\"\",revision=\"\",version=\"{}\"", env!("CARGO_PKG_VERSION")),
            1.0,
        );
        for (name, help, count) in [
            (
                "coredns_forward_healthcheck_broken_total",
                "Counter of the number of complete failures of the healthchecks.",
                &self.forward_failures,
            ),
            (
                "coredns_forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum.",
                &self.forward_rejects,
            ),
        ] {
            text.head(name, "counter", help);
            text.count("", count);
        }
        text.text
    }

    fn write_requests(&self, text: &mut Text) {
        let help = "Counter of DNS requests made per zone, protocol and family.";
        text.head("coredns_dns_requests_total", "counter", help);
        let names = KINDS.iter().map(|(_, name)| *name).chain(["other"]);
        for (channel, counts) in Channel::ALL.iter().zip(&self.requests) {
            let (family, protocol) = (channel.family(), channel.protocol());
            for (name, count) in names.clone().zip(counts) {
                let labels = format!("family=\"{family}\",proto=\"{protocol}\",{SERVER},type=\"{name}\"");
                text.count(&labels, count);
            }
        }
        text.head("coredns_dns_responses_total", "counter", "Counter of response status codes.");
        for (name, count) in CODES.iter().chain(&["other"]).zip(&self.responses) {
            text.count(&format!("rcode=\"{name}\",{SERVER}"), count);
        }
        let help = "Histogram of the time (in seconds) each request took per zone.";
        text.head("coredns_dns_request_duration_seconds", "histogram", help);
        self.durations.write(text, &TIME_BOUNDS, SERVER, 1e-9);
        for (name, help, sizes) in [
            (
                "coredns_dns_request_size_bytes",
                "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
                &self.request_sizes,
            ),
            (
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes.",
                &self.response_sizes,
            ),
        ] {
            text.head(name, "histogram", help);
            for (protocol, sizes) in ["udp", "tcp"].iter().zip(sizes) {
                sizes.write(text, &SIZE_BOUNDS, &format!("proto=\"{protocol}\",{SERVER}"), 1.0);
            }
        }
    }

    fn write_cache(&self, text: &mut Text, kept: Kept) {
        text.head("coredns_cache_entries", "gauge", "The number of elements in the cache.");
        for (sort, count) in [("success", kept.success), ("denial", kept.denial)] {
            text.line("", &format!("type=\"{sort}\",{CACHE}"), count as f64);
        }
        text.head("coredns_cache_hits_total", "counter", "The count of cache hits.");
        for (sort, count) in [("success", &self.cache_hits), ("denial", &self.cache_denials)] {
            text.count(&format!("type=\"{sort}\",{CACHE}"), count);
        }
        text.head("coredns_cache_misses_total", "counter", "The count of cache misses.");
        text.count(CACHE, &self.cache_misses);
        text.head("coredns_cache_requests_total", "counter", "The count of cache requests.");
        let all = [&self.cache_hits, &self.cache_denials, &self.cache_misses];
        let all: u64 = all.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        text.line("", CACHE, all as f64);
    }
}

/// A histogram of one series; the last bucket is above all bounds.
#[derive(Debug)]
struct Buckets<const COUNT: usize> {
    counts: [AtomicU64; COUNT],
    sum: AtomicU64,
}

impl<const COUNT: usize> Default for Buckets<COUNT> {
    fn default() -> Buckets<COUNT> {
        Buckets { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const COUNT: usize> Buckets<COUNT> {
    /// `exact` is the value in the unit of the sum.
    fn add(&self, bounds: &[f64], value: f64, exact: u64) {
        add(&self.counts[bounds.partition_point(|bound| *bound < value)]);
        self.sum.fetch_add(exact, Ordering::Relaxed);
    }

    fn write(&self, text: &mut Text, bounds: &[f64], labels: &str, unit: f64) {
        let mut below = 0;
        for (bound, count) in bounds.iter().map(f64::to_string).chain(["+Inf".into()]).zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            text.line("_bucket", &format!("{labels},le=\"{bound}\""), below as f64);
        }
        text.line("_sum", labels, self.sum.load(Ordering::Relaxed) as f64 * unit);
        text.line("_count", labels, below as f64);
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
        client::metrics::head(&mut self.text, name, help, kind);
    }

    fn count(&mut self, labels: &str, count: &AtomicU64) {
        self.line("", labels, count.load(Ordering::Relaxed) as f64);
    }

    fn line(&mut self, suffix: &str, labels: &str, value: f64) {
        client::metrics::sample(&mut self.text, self.name, suffix, labels, "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_counted_by_type_code_time_and_size() {
        let metrics = Metrics::default();
        let name_error = [0, 0, 0, 3];
        metrics.answered(Channel::Udp6, kind::AAAA, 150, &name_error, Duration::from_millis(3));
        metrics.answered(Channel::Tcp4, 255, 20, &[0; 512], Duration::from_secs(60));
        metrics.looked_up(None);
        metrics.looked_up(Some(true));
        let resolver = SocketAddr::from(([192, 0, 2, 53], 53));
        metrics.forwarded(resolver, 3, Duration::from_millis(3));
        let text = metrics.text(Kept { success: 7, denial: 2 });
        for line in [
            "coredns_dns_requests_total{family=\"2\",proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"AAAA\"} 1",
            "coredns_dns_requests_total{family=\"1\",proto=\"tcp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"other\"} 1",
            "coredns_dns_responses_total{rcode=\"NXDOMAIN\",server=\"dns://:53\",view=\"\",zone=\".\"} 1",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"0.002\"} 0",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"0.004\"} 1",
            "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",view=\"\",zone=\".\"} 2",
            "coredns_dns_request_size_bytes_bucket{proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",le=\"200\"} 1",
            "coredns_dns_response_size_bytes_sum{proto=\"tcp\",server=\"dns://:53\",view=\"\",zone=\".\"} 512",
            "coredns_cache_misses_total{server=\"dns://:53\",view=\"\",zones=\".\"} 1",
            "coredns_cache_hits_total{type=\"denial\",server=\"dns://:53\",view=\"\",zones=\".\"} 1",
            "coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",rcode=\"NXDOMAIN\",to=\"192.0.2.53:53\"} 1",
            "coredns_cache_entries{type=\"success\",server=\"dns://:53\",view=\"\",zones=\".\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
