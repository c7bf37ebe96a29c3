//! Clients that take their time, or too much of everything: limits that have names end them, and nobody else waits.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::json;
use auth::UserInfo;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::fixture::{Fixture, config_map};
use super::serving::Wire;
use crate::listener::{HEADER_BYTES_MAX, HEADER_TIMEOUT, HEADERS_MAX, STALL_TIMEOUT};
use crate::pipeline::BODY_TIMEOUT;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that lets everybody do everything, and lets nobody else in.
async fn open_to_all() -> (Arc<Fixture>, Wire) {
    let api = Arc::new(Fixture::new().await);
    let binding = json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "system:anonymous"}]});
    api.check("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, 201, json!({})).await;
    api.until_allowed(UserInfo::anonymous(), &format!("GET {MAPS}")).await;
    let wire = Wire::serve(api.clone()).await;
    (api, wire)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// A connection over HTTP/1.1 on which this was sent.
async fn say(wire: &Wire, what: &str) -> TlsStream<TcpStream> {
    let mut stream = wire.connect("http/1.1").await;
    stream.write_all(what.as_bytes()).await.expect("writes");
    stream
}

/// What comes until the connection ends, in whichever way it does.
async fn text(stream: &mut TlsStream<TcpStream>) -> String {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap_or_default();
    String::from_utf8_lossy(&read).into_owned()
}

async fn is_served(wire: &Wire) -> bool {
    text(&mut say(wire, &get("/livez")).await).await.starts_with("HTTP/1.1 200")
}

/// The number that follows this among the metrics.
async fn metric(api: &Fixture, line: &str) -> usize {
    let metrics = api.send("GET /metrics", "").await.bytes;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let number = metrics.lines().find_map(|text| text.strip_prefix(line)).expect("is told");
    number.parse().expect("a number")
}

/// Requests that only read and are worked on now, this one aside.
async fn in_flight(api: &Fixture) -> usize {
    metric(api, "apiserver_current_inflight_requests{request_kind=\"readOnly\"} ").await - 1
}

/// Lists that have come to their end, as the metric of durations counts them.
async fn lists(api: &Fixture) -> u32 {
    let metrics = api.send("GET /metrics", "").await.bytes;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let lists = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_duration_seconds_count{") && line.contains("verb=\"LIST\"")
    });
    lists.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum()
}

async fn http2(wire: &Wire) -> SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(wire.connect("h2").await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (sender, connection) = handshake.await.expect("h2");
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> http::request::Builder {
    Request::get(format!("https://localhost{path}"))
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let (_api, wire) = open_to_all().await;
    let since = Instant::now();
    let mut slow = say(&wire, "GET /livez HTTP/1.1\r\nhost: ").await;
    assert!(is_served(&wire).await);
    tokio::time::pause();
    assert_eq!(text(&mut slow).await, "");
    assert!(since.elapsed() >= HEADER_TIMEOUT, "{:?}", since.elapsed());
    wire.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_not_waited_for_and_takes_no_seat() {
    let (api, wire) = open_to_all().await;
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
    let since = Instant::now();
    let mut slow = say(&wire, &format!("{head}content-length: 99\r\n\r\n{{")).await;
    assert!(is_served(&wire).await);
    // The server's own parts write, too, when they have just begun.
    let none = "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0";
    while !String::from_utf8_lossy(&api.send("GET /metrics", "").await.bytes).contains(none) {
        tokio::task::yield_now().await;
    }
    assert!(since.elapsed() < BODY_TIMEOUT, "who sends slowly has a seat");
    tokio::time::pause();
    let answer = text(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(since.elapsed() >= BODY_TIMEOUT, "{:?}", since.elapsed());
    wire.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (_api, wire) = open_to_all().await;
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
    let length = crate::body::REQUEST_BODY_BYTES_MAX + 1;
    let mut large = say(&wire, &format!("{head}content-length: {length}\r\n\r\n")).await;
    large.write_all(&vec![b' '; length]).await.expect("writes");
    large.flush().await.expect("writes");
    let mut start = [0; 12];
    large.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 413");
    drop(large);
    wire.stop().await;
}

/// More than sockets hold on their way.
#[tokio::test]
async fn a_list_has_its_seat_until_it_is_sent_and_no_longer_than_a_request_may_last() {
    let (api, wire) = open_to_all().await;
    for number in 0..16 {
        let mut map = config_map(&format!("large-{number}"));
        map["data"]["a"] = "x".repeat(900_000).into();
        api.check(&format!("POST {MAPS}"), map, 201, json!({})).await;
    }
    let mut idle = say(&wire, &get(MAPS)).await;
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    assert_eq!(in_flight(&api).await, 1);
    let before = lists(&api).await;
    assert!(is_served(&wire).await);
    tokio::time::pause();
    tokio::time::sleep(STALL_TIMEOUT + Duration::from_secs(1)).await;
    assert_eq!(in_flight(&api).await, 0);
    tokio::time::resume();
    assert!(text(&mut idle).await.len() < 16 * 900_000, "what was not taken in time does not come");
    assert_eq!(lists(&api).await, before + 1, "a list lasts until it is sent");
    wire.stop().await;
}

#[tokio::test]
async fn heads_are_taken_up_to_their_limits_and_no_further() {
    let (_api, wire) = open_to_all().await;
    let head = |headers: &str| format!("GET /livez HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
    let many = |count: usize| head(&"a: b\r\n".repeat(count - 1));
    let long = |length: usize| head(&format!("a: {}\r\n", "b".repeat(length)));
    let full = HEADER_BYTES_MAX as usize;
    for (head, expect) in
        [(many(HEADERS_MAX), 200), (many(HEADERS_MAX + 1), 431), (long(full - (64 << 10)), 200)]
    {
        let answer = text(&mut say(&wire, &head).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expect}")), "{} bytes: {answer}", head.len());
    }
    // The limit is noticed between reads, which are as large as the head was so far. The answer may be lost with the
    // connection, which ends while there is more to read.
    let mut endless = wire.connect("http/1.1").await;
    endless.write_all(long(3 * full).as_bytes()).await.ok();
    let answer = text(&mut endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut sender = http2(&wire).await;
    for (length, expect) in [(full / 2, StatusCode::OK), (full, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)]
    {
        let request = request("/livez").header("a", "b".repeat(length)).body(Empty::new());
        let answer = sender.send_request(request.expect("a request")).await.expect("answers");
        assert_eq!(answer.status(), expect, "{length}");
    }
    drop(sender);
    wire.stop().await;
}

#[tokio::test]
async fn a_thousand_idle_watches_of_one_client_keep_nobody_waiting() {
    const WATCHES: usize = 1000;
    let (api, wire) = open_to_all().await;
    let mut sender = http2(&wire).await;
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let watch = request(&format!("{MAPS}?watch=true")).body(Empty::new()).expect("a request");
        let answer = sender.send_request(watch).await.expect("answers");
        assert_eq!(answer.status(), 200);
        watches.push(answer.into_body());
    }
    assert_eq!(in_flight(&api).await, 0, "a watch that has begun needs no seat");
    assert!(is_served(&wire).await);
    api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    for watch in &mut watches {
        let event = watch.frame().await.expect("goes on").expect("is not broken").into_data().expect("data");
        assert!(String::from_utf8_lossy(&event).contains("\"ADDED\""));
    }
    drop((watches, sender));
    wire.stop().await;
}

/// More than sockets hold on their way, too.
#[tokio::test]
async fn what_a_watcher_does_not_take_is_not_made_for_it() {
    const CHANGES: usize = 32;
    let (api, wire) = open_to_all().await;
    let mut stalled = say(&wire, &get(&format!("{MAPS}?watch=true"))).await;
    let mut start = [0; 12];
    stalled.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    let mut healthy = api.stream(&format!("GET {MAPS}?watch=true")).await;
    for number in 0..CHANGES {
        let mut map = config_map(&format!("large-{number}"));
        map["data"]["a"] = "x".repeat(900_000).into();
        api.check(&format!("POST {MAPS}"), map, 201, json!({})).await;
        healthy.frame().await.expect("goes on").expect("is not broken");
    }
    let line = "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ";
    let made = metric(&api, line).await;
    assert!((CHANGES..CHANGES + CHANGES / 2).contains(&made), "{made} events for {CHANGES} changes");
    drop(stalled);
    wire.stop().await;
}

/// Watches that go on now.
async fn watches(api: &Fixture) -> usize {
    let metrics = api.send("GET /metrics", "").await.bytes;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("apiserver_longrunning_requests{") && line.contains("resource=\"configmaps\"")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// The next event of a watch over a connection.
async fn event(watch: &mut hyper::body::Incoming) -> String {
    let frame = watch.frame().await.expect("goes on").expect("is not broken");
    String::from_utf8_lossy(&frame.into_data().expect("data")).into_owned()
}

#[tokio::test]
async fn a_watch_has_its_connection_to_itself_and_gives_it_back() {
    let (api, wire) = open_to_all().await;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(wire.connect("http/1.1").await));
    let (mut sender, connection) = handshake.await.expect("h1");
    tokio::spawn(connection);
    let get =
        |path: &str| Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).expect("a request");
    for _ in 0..2 {
        let list = sender.send_request(get(MAPS)).await.expect("answers");
        list.into_body().collect().await.expect("a list");
        let path = format!("{MAPS}?watch=true&timeoutSeconds=1");
        let watch = sender.send_request(get(&path)).await.expect("answers");
        assert_eq!(watch.headers()["content-type"], "application/json");
        assert!(watch.headers().contains_key("date"));
        let mut watch = watch.into_body();
        api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
        assert!(event(&mut watch).await.contains("ADDED"));
        api.check(&format!("DELETE {MAPS}/a"), json!(null), 200, json!({})).await;
        assert!(event(&mut watch).await.contains("DELETED"));
        assert!(watch.frame().await.is_none(), "it ends in time, and cleanly");
        sender.ready().await.expect("the connection is still there");
    }
    drop(sender);
    wire.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_its_client_or_its_server() {
    let (api, wire) = open_to_all().await;
    let head = format!("GET {MAPS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut start = [0; 12];
    let mut leaving = say(&wire, &head).await;
    leaving.read_exact(&mut start).await.expect("an answer");
    assert_eq!(watches(&api).await, 1);
    drop(leaving);
    while watches(&api).await > 0 {
        tokio::task::yield_now().await;
    }
    let mut staying = say(&wire, &head).await;
    staying.read_exact(&mut start).await.expect("an answer");
    wire.stop.cancel();
    assert!(text(&mut staying).await.ends_with("\r\n\r\n0\r\n\r\n"));
    wire.stop().await;
}
