//! Requests to the kubelet's own API, counted (follows `ServeHTTP` of the kubelet's `server/server.go`).

use std::time::Instant;

use client::metrics::{DEF_BUCKETS, Histogram, Number};
use http::Request;
use http::header::SEC_WEBSOCKET_PROTOCOL;

const METHODS: [&str; 8] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];

/// What paths may begin with to be told apart.
const PATHS: [&str; 19] = [
    "attach",
    "checkpoint",
    "configz",
    "containerLogs",
    "debug",
    "exec",
    "flagz",
    "healthz",
    "logs",
    "metrics",
    "metrics/cadvisor",
    "metrics/probes",
    "metrics/resource",
    "pods",
    "portForward",
    "run",
    "runningpods",
    "stats",
    "statusz",
];

/// Paths of streams, what upstream counts them as, and the protocol that they must be asked for by.
const STREAMED: [(&str, &str, &str); 3] = [
    ("attach", "attach", "v5.channel.k8s.io"),
    ("exec", "exec", "v5.channel.k8s.io"),
    ("portForward", "portforward", "SPDY/3.1+portforward.k8s.io"),
];

/// Upstream's `longRunningRequestPathMap`, by whose spelling port-forward does not last.
const LASTING: [&str; 2] = ["exec", "attach"];

#[derive(Debug)]
pub struct Requests {
    totals: Number,
    now: Number,
    durations: Histogram,
    streams: Number,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            totals: Number::counter("kubelet_http_requests_total", "Requests to the kubelet's own API."),
            now: Number::gauge("kubelet_http_inflight_requests", "Those being answered now."),
            durations: Histogram::new(
                "kubelet_http_requests_duration_seconds",
                "How long answers took.",
                DEF_BUCKETS.to_vec(),
            ),
            streams: Number::counter(
                "kubelet_websocket_streaming_requests_total",
                "Requests for streams over WebSocket, by what they are for.",
            ),
        }
    }
}

/// A request that is being answered.
pub struct Pending<'a> {
    requests: &'a Requests,
    labels: String,
    began: Instant,
}

impl Requests {
    pub fn begin<B>(&self, request: &Request<B>, is_open: bool) -> Pending<'_> {
        let labels = labels(request.method().as_str(), request.uri().path(), is_open);
        self.totals.add(&labels, 1.0);
        self.now.add(&labels, 1.0);
        if let Some(subresource) = streamed(request) {
            self.streams.add(&format!("subresource={subresource:?}"), 1.0);
        }
        Pending { requests: self, labels, began: Instant::now() }
    }

    pub fn write(&self, text: &mut String) {
        self.totals.write(text);
        self.now.write(text);
        self.durations.write(text);
        self.streams.write(text);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.requests.now.add(&self.labels, -1.0);
        self.requests.durations.observe(&self.labels, self.began.elapsed().as_secs_f64());
    }
}

/// What a request is for whose streams go over WebSocket, and end one by one.
fn streamed<B>(request: &Request<B>) -> Option<&'static str> {
    let root = request.uri().path().trim_start_matches('/').split('/').next()?;
    let (subresource, wanted) =
        STREAMED.into_iter().find_map(|(path, name, wanted)| (path == root).then_some((name, wanted)))?;
    let protocols = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut protocols = protocols.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    protocols.any(|protocol| protocol.trim() == wanted).then_some(subresource)
}

fn labels(method: &str, path: &str, is_open: bool) -> String {
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
    let mut parts = path.trim_start_matches('/').split('/');
    let first = parts.next().unwrap_or_default();
    let root = match (first, parts.next()) {
        ("metrics", Some(which)) => format!("metrics/{which}"),
        _ => first.to_owned(),
    };
    let path = PATHS.into_iter().find(|known| *known == root).unwrap_or("other");
    let lasting = LASTING.contains(&path);
    let server = if is_open { "readonly" } else { "readwrite" };
    format!("long_running=\"{lasting}\",method={method:?},path={path:?},server_type={server:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_what_they_ask_for() {
        let check = |method, path, is_open, expect: &str| assert_eq!(labels(method, path, is_open), expect);
        let expect = r#"long_running="true",method="POST",path="exec",server_type="readwrite""#;
        check("POST", "/exec/n/p/c", false, expect);
        let expect = r#"long_running="false",method="GET",path="metrics/cadvisor",server_type="readonly""#;
        check("GET", "/metrics/cadvisor", true, expect);
        let expect = r#"long_running="false",method="other",path="other",server_type="readwrite""#;
        check("BREW", "/coffee", false, expect);
    }

    #[test]
    fn streams_over_websocket_are_counted_by_what_they_are_for() {
        let check = |path: &str, protocol: &str, expect: Option<&str>| {
            let request = Request::get(path).header(SEC_WEBSOCKET_PROTOCOL, protocol).body(());
            assert_eq!(streamed(&request.expect("a request")), expect, "{path} {protocol}");
        };
        check("/exec/n/p/c", "v5.channel.k8s.io, v4.channel.k8s.io", Some("exec"));
        check("/exec/n/p/c", "v4.channel.k8s.io", None);
        check("/portForward/n/p", "SPDY/3.1+portforward.k8s.io", Some("portforward"));
        check("/pods", "v5.channel.k8s.io", None);
    }

    #[test]
    fn a_request_is_under_way_until_it_is_answered() {
        let requests = Requests::default();
        let line = |expect: &str| {
            let mut text = String::new();
            requests.write(&mut text);
            assert!(text.lines().any(|line| line == expect), "no {expect} in {text}");
        };
        let of = r#"{long_running="false",method="GET",path="pods",server_type="readwrite"}"#;
        let pending = requests.begin(&Request::get("/pods").body(()).expect("a request"), false);
        line(&format!("kubelet_http_inflight_requests{of} 1"));
        drop(pending);
        line(&format!("kubelet_http_inflight_requests{of} 0"));
        line(&format!("kubelet_http_requests_duration_seconds_count{of} 1"));
    }
}
