//! Requests through the proxy: headers, failures, bodies, and tables that change under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::json;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Browser, Cluster, all_to, backend, listen, named, serve};

/// Requests of each client in the test under load, and how often the table changes meanwhile.
const REQUESTS: usize = 300;
const CLIENTS: usize = 4;

#[tokio::test]
async fn a_request_reaches_its_service_and_says_where_it_comes_from() {
    let seen = backend(|request| async move {
        let lines: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        Response::new(Full::new(Bytes::from(format!("{}\n{}", request.uri(), lines.join("\n")))))
    })
    .await;
    let serving =
        serve(Cluster::default().ingress(all_to("web")).service("web", None, &[seen]).table()).await;
    let request = Request::get("/path?query=1")
        .header("host", "Example.org:8080")
        .header("x-forwarded-for", "192.0.2.66")
        .header("connection", "keep-alive, x-secret")
        .header("x-secret", "1")
        .header("x-kept", "1")
        .body(Full::default())
        .unwrap();
    let (head, body) = Browser::connect(serving.http).await.send(request).await;
    assert_eq!(head.status, 200);
    let mut lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.remove(0), "/path?query=1");
    lines.sort_unstable();
    let port = format!("x-forwarded-port: {}", serving.http.port());
    let expected = [
        "host: Example.org:8080",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: Example.org:8080",
        port.as_str(),
        "x-forwarded-proto: http",
        "x-kept: 1",
        "x-real-ip: 127.0.0.1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_has_no_route_or_no_endpoint_is_told_so() {
    let rules = json!({"rules": [{"host": "a.example.org", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "none", "port": {"number": 80}}}}]}}]});
    let serving = serve(Cluster::default().ingress(rules).table()).await;
    let mut browser = Browser::connect(serving.http).await;
    assert_eq!(browser.get("b.example.org", "/").await, (404, "404 Not Found\n".into()));
    assert_eq!(browser.get("a.example.org", "/").await, (503, "503 Service Unavailable\n".into()));
    assert_eq!(serving.proxy.counters.unrouted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    // Ports that were open a moment ago.
    let (first, second) = (listen().await.local_addr().unwrap(), listen().await.local_addr().unwrap());
    let alive = named("alive").await;
    let cluster = Cluster::default().ingress(all_to("web")).service("web", None, &[first, second, alive]);
    let serving = serve(cluster.table()).await;
    let mut browser = Browser::connect(serving.http).await;
    for _ in 0..6 {
        let request = Request::post("/").header("host", "x").body(Full::new(Bytes::from("body"))).unwrap();
        let (head, body) = browser.send(request).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (200, "alive"));
    }
    assert!(serving.proxy.counters.connect_failures.load(Ordering::Relaxed) > 0);
    serving.proxy.swap(Cluster::default().ingress(all_to("web")).service("web", None, &[first]).table());
    assert_eq!(browser.get("x", "/").await.0, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_table_loses_no_request() {
    let (a, b) = (named("a").await, named("b").await);
    let to = |endpoint| Cluster::default().ingress(all_to("web")).service("web", None, &[endpoint]).table();
    let serving = serve(to(a)).await;
    let running = Arc::new(AtomicBool::new(true));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let http = serving.http;
        clients.spawn(async move {
            let mut browser = Browser::connect(http).await;
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..REQUESTS {
                let (status, body) = browser.get("x", "/").await;
                assert_eq!(status, 200, "{body}");
                seen.insert(body);
            }
            seen
        });
    }
    let (proxy, going) = (serving.proxy.clone(), running.clone());
    let swapping = tokio::spawn(async move {
        let mut swaps = 0;
        while going.load(Ordering::Relaxed) {
            proxy.swap(to(if swaps % 2 == 0 { b } else { a }));
            swaps += 1;
            tokio::task::yield_now().await;
        }
        swaps
    });
    let mut seen = std::collections::BTreeSet::new();
    while let Some(client) = clients.join_next().await {
        seen.extend(client.expect("no request is lost"));
    }
    running.store(false, Ordering::Relaxed);
    assert!(swapping.await.unwrap() > 10);
    assert_eq!(seen.len(), 2, "both tables were in use");
}

#[tokio::test]
async fn bodies_are_passed_on_before_they_are_whole() {
    let echo = backend(|mut request| async move {
        // Answers when the first part is in, though the request never ends.
        let first = request.body_mut().frame().await.expect("a part").expect("no error");
        Response::new(Full::new(first.into_data().expect("data")))
    })
    .await;
    let serving =
        serve(Cluster::default().ingress(all_to("web")).service("web", None, &[echo]).table()).await;
    let mut stream = TcpStream::connect(serving.http).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"first") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn h2c_backends_get_http2_with_trailers() {
    let versions = backend(|request| async move {
        let te = request.headers().get("te").map(|te| te.to_str().unwrap().to_owned());
        Response::new(Full::new(Bytes::from(format!("{:?} {} {te:?}", request.version(), request.uri()))))
    })
    .await;
    for app_protocol in ["kubernetes.io/h2c", "grpc"] {
        let cluster =
            Cluster::default().ingress(all_to("rpc")).service("rpc", Some(app_protocol), &[versions]);
        let serving = serve(cluster.table()).await;
        let stream = TcpStream::connect(serving.http).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://rpc.example.org/pkg.Service/Method")
            .header("te", "trailers")
            .body(Full::new(Bytes::from("message")))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = "HTTP/2.0 http://rpc.example.org/pkg.Service/Method Some(\"trailers\")";
        assert_eq!(body, expected, "{app_protocol}");
        // A client of HTTP/1.1 gets there too.
        assert_eq!(Browser::connect(serving.http).await.get("rpc.example.org", "/x").await.0, 200);
    }
}

#[tokio::test]
async fn http2_clients_reach_http1_backends() {
    let cookies = backend(|request| async move {
        let cookies = request.headers().get_all("cookie").iter().map(|c| c.to_str().unwrap());
        let text = format!("{:?} {}", request.version(), cookies.collect::<Vec<_>>().join("|"));
        Response::new(Full::new(Bytes::from(text)))
    })
    .await;
    let serving =
        serve(Cluster::default().ingress(all_to("web")).service("web", None, &[cookies]).table()).await;
    let stream = TcpStream::connect(serving.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://web.example.org/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "HTTP/1.1 a=1; b=2");
}

#[tokio::test]
async fn the_answer_to_head_has_no_content_over_http2() {
    let serving = serve(Cluster::default().table()).await;
    let stream = TcpStream::connect(serving.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::head("http://nobody.example.org/").body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body = response.into_body().collect().await.expect("ends as it should").to_bytes();
    assert!(body.is_empty(), "{body:?}");
}

#[tokio::test]
async fn counts_are_told_to_prometheus() {
    let web = named("web").await;
    let serving = serve(Cluster::default().ingress(all_to("web")).service("web", None, &[web]).table()).await;
    let counters = serving.proxy.counters.of("default", "i0", "web");
    counters.answered(204, std::time::Duration::from_millis(7));
    let text = serving.proxy.counters.text();
    let labels = "namespace=\"default\",ingress=\"i0\",service=\"web\"";
    for line in [
        format!("coxswain_ingress_requests_total{{{labels},status=\"2xx\"}} 1"),
        format!("coxswain_ingress_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 0"),
        format!("coxswain_ingress_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} 1"),
        format!("coxswain_ingress_request_duration_seconds_sum{{{labels}}} 0.007"),
        "coxswain_ingress_reloads_total 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
