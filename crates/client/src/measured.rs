//! What a component's requests to the API server are measured by, under the names and with the buckets of upstream's
//! `component-base/metrics/prometheus/restclient`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;

use crate::metrics::{Histogram, Number, Source};
use crate::transport::{Body, ResponseFuture, Transport};

const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// From 64 bytes to 16 MB.
const BYTES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// The requests of one process.
#[derive(Debug)]
pub struct RestMetrics {
    requests: Number,
    durations: Histogram,
    request_sizes: Histogram,
    response_sizes: Histogram,
}

impl Default for RestMetrics {
    fn default() -> Self {
        let histogram = |name, help, bounds: &[f64]| Histogram::new(name, help, bounds.to_vec());
        RestMetrics {
            requests: Number::counter(
                "rest_client_requests_total",
                "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.",
            ),
            durations: histogram(
                "rest_client_request_duration_seconds",
                "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
                &SECONDS,
            ),
            request_sizes: histogram(
                "rest_client_request_size_bytes",
                "[ALPHA] Request size in bytes. Broken down by verb and host.",
                &BYTES,
            ),
            response_sizes: histogram(
                "rest_client_response_size_bytes",
                "[ALPHA] Response size in bytes. Broken down by verb and host.",
                &BYTES,
            ),
        }
    }
}

impl Source for RestMetrics {
    fn write(&self, text: &mut String) {
        self.requests.write(text);
        [&self.durations, &self.request_sizes, &self.response_sizes]
            .into_iter()
            .for_each(|histogram| histogram.write(text));
    }
}

impl RestMetrics {
    /// No code means that no answer came.
    fn answered(&self, method: &Method, host: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.add(&format!("code=\"{code}\",host=\"{host}\",method=\"{method}\""), 1.0);
    }
}

/// A transport whose requests are measured.
pub struct Measured {
    transport: Arc<dyn Transport>,
    metrics: Arc<RestMetrics>,
    /// The authority of the server's address.
    host: String,
}

impl Measured {
    /// `server` is an address such as `https://host:port`.
    pub fn new(transport: Arc<dyn Transport>, metrics: &Arc<RestMetrics>, server: &str) -> Arc<Measured> {
        let uri = server.parse::<http::Uri>().ok();
        let host = uri.as_ref().and_then(|uri| uri.authority()).map(ToString::to_string).unwrap_or_default();
        Arc::new(Measured { transport, metrics: metrics.clone(), host })
    }
}

impl Transport for Measured {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let (method, metrics) = (request.method().clone(), &self.metrics);
            let labels = format!("host=\"{}\",verb=\"{method}\"", self.host);
            let lasts = is_watch(request.uri().query().unwrap_or_default());
            if !request.body().is_empty() {
                metrics.request_sizes.observe(&labels, request.body().len() as f64);
            }
            let began = Instant::now();
            let answered = self.transport.send(request).await;
            metrics.answered(
                &method,
                &self.host,
                answered.as_ref().ok().map(|answer| answer.status().as_u16()),
            );
            let answer = answered
                .inspect_err(|_| metrics.durations.observe(&labels, began.elapsed().as_secs_f64()))?;
            // What lasts has no latency, and no size.
            Ok(if lasts {
                answer
            } else {
                told(answer, Receiving { metrics: metrics.clone(), labels, began, bytes: 0 })
            })
        })
    }
}

fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// An answer on its way.
struct Receiving {
    metrics: Arc<RestMetrics>,
    labels: String,
    began: Instant,
    bytes: usize,
}

impl Receiving {
    fn piece(&mut self, data: Option<&Bytes>) {
        self.bytes += data.map_or(0, Bytes::len);
    }
}

impl Drop for Receiving {
    /// It has been read, or nobody reads it any more.
    fn drop(&mut self) {
        let took: Duration = self.began.elapsed();
        self.metrics.durations.observe(&self.labels, took.as_secs_f64());
        self.metrics.response_sizes.observe(&self.labels, self.bytes as f64);
    }
}

fn told(answer: Response<Body>, mut receiving: Receiving) -> Response<Body> {
    answer.map(|body| {
        let counted = body.map_frame(move |frame| {
            receiving.piece(frame.data_ref());
            frame
        });
        counted.boxed_unsync()
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::error::Error;

    /// Answers with the path, and `/none` not at all.
    struct Echo;

    impl Transport for Echo {
        fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
            Box::pin(async move {
                let path = request.uri().path().to_owned();
                if path == "/none" {
                    return Err(Error::Transport("no answer".to_owned()));
                }
                let body = Full::from(path).map_err(|never| match never {}).boxed_unsync();
                Ok(Response::new(body))
            })
        }
    }

    #[tokio::test]
    async fn requests_are_counted_by_what_became_of_them_and_sized_when_they_have_been_read() {
        let metrics = Arc::<RestMetrics>::default();
        let measured = Measured::new(Arc::new(Echo), &metrics, "https://10.0.0.1:6443");
        let shown = || {
            let mut text = String::new();
            metrics.write(&mut text);
            text
        };
        let send = async |method: Method, path: &str, body: &'static str| {
            let request = Request::builder().method(method).uri(path).body(Bytes::from(body));
            measured.send(request.expect("a request")).await
        };
        let answer = send(Method::GET, "/api", "").await.expect("answers");
        assert!(!shown().contains("rest_client_response_size_bytes_count"), "it has not been read");
        answer.into_body().collect().await.expect("is read");
        assert!(send(Method::POST, "/none", "twelve bytes").await.is_err(), "nobody answers");
        drop(send(Method::GET, "/api?resourceVersion=1&watch=true", "").await.expect("answers"));
        let text = shown();
        for line in [
            "rest_client_requests_total{code=\"200\",host=\"10.0.0.1:6443\",method=\"GET\"} 2",
            "rest_client_requests_total{code=\"<error>\",host=\"10.0.0.1:6443\",method=\"POST\"} 1",
            "rest_client_request_duration_seconds_count{host=\"10.0.0.1:6443\",verb=\"GET\"} 1",
            "rest_client_request_duration_seconds_count{host=\"10.0.0.1:6443\",verb=\"POST\"} 1",
            "rest_client_request_size_bytes_sum{host=\"10.0.0.1:6443\",verb=\"POST\"} 12",
            "rest_client_response_size_bytes_sum{host=\"10.0.0.1:6443\",verb=\"GET\"} 4",
            "rest_client_response_size_bytes_count{host=\"10.0.0.1:6443\",verb=\"GET\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
