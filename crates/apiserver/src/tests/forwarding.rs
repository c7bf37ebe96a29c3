//! Logs and upgraded streams, forwarded to a kubelet that is played by the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apimachinery::json;
use auth::UserInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, pod};
use crate::tls;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers with the path it was asked for, and echoes on connections that are upgraded.
async fn kubelet(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, http::Error> {
    let path = request.uri().to_string();
    if path == "/page" {
        let forwarded = request.headers()["x-forwarded-uri"].to_str().unwrap_or_default().to_owned();
        let page = format!("<a href=\"/rewriteme\">{forwarded}</a>");
        return Response::builder().header("content-type", "text/html").body(Full::new(page.into()));
    }
    if !request.headers().contains_key("upgrade") {
        return Ok(Response::new(Full::new(path.into())));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut read, mut write) = split(TokioIo::new(upgrade.await.expect("upgrades")));
        copy(&mut read, &mut write).await.expect("echoes");
    });
    let response = Response::builder().status(101).header("upgrade", "echo").header("connection", "Upgrade");
    response.header("x-path", path).body(Full::default())
}

/// Serves TLS connections with `kubelet`; returns where, and who trusts it.
async fn start_kubelet() -> (SocketAddr, Arc<rustls::ClientConfig>) {
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
    let server =
        tls::server_config(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes(), b"").expect("fits");
    let mut server = server;
    server.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let stream = TokioIo::new(acceptor.accept(stream).await.expect("shakes hands"));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service_fn(kubelet));
            tokio::spawn(connection.with_upgrades());
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.pem().as_bytes()).expect("PEM")).expect("a root");
    (address, Arc::new(::tls::client().with_root_certificates(roots).with_no_client_auth()))
}

async fn cluster_with_a_pod() -> Fixture {
    let (address, trust) = start_kubelet().await;
    let api = Fixture::with(|config| config.kubelet_tls = Some(trust)).await;
    let node = json!({"metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    let made = api.check("POST /api/v1/nodes", node.clone(), 201, json!({})).await;
    if made.pointer("/status/addresses").is_none() {
        let mut status = made;
        status["status"] = node["status"].clone();
        api.check("PUT /api/v1/nodes/n/status", status, 200, json!({})).await;
    }
    let mut object = pod("p");
    object["spec"]["nodeName"] = "n".into();
    api.check(&format!("POST {PODS}"), object, 201, json!({})).await;
    api
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_pods_node() {
    let api = cluster_with_a_pod().await;
    let get = async |path: &str| {
        let answer = api.send(&format!("GET {path}"), "").await;
        (answer.code, String::from_utf8_lossy(&answer.bytes).into_owned())
    };
    let (code, path) = get(&format!("{PODS}/p/log?follow=true&tailLines=5&unknown=1")).await;
    assert_eq!((code, path.as_str()), (200, "/containerLogs/default/p/c?follow=true&tailLines=5"));
    let (code, why) = get(&format!("{PODS}/p/log?container=x")).await;
    assert!(code == 400 && why.contains("container x is not valid for pod p"), "{why}");
    assert_eq!(get("/api/v1/nodes/n/proxy/metrics/cadvisor?a=b").await.1, "/metrics/cadvisor?a=b");
    api.check(&format!("POST {PODS}"), pod("unscheduled"), 201, json!({})).await;
    assert_eq!(get(&format!("{PODS}/unscheduled/log")).await, (204, String::new()));
}

#[tokio::test]
async fn the_root_of_what_is_proxied_ends_with_a_slash() {
    let api = cluster_with_a_pod().await;
    let answer = api.send("GET /api/v1/nodes/n/proxy?a=b", "").await;
    assert_eq!(answer.code, 301);
    let answer = api.send("GET /api/v1/nodes/n/proxy/?a=b", "").await;
    assert_eq!(String::from_utf8_lossy(&answer.bytes), "/?a=b");
}

#[tokio::test]
async fn links_in_a_proxied_page_lead_through_the_proxy() {
    let api = cluster_with_a_pod().await;
    let answer = api.send("GET /api/v1/nodes/n/proxy/page", "").await;
    assert_eq!(
        String::from_utf8_lossy(&answer.bytes),
        "<a href=\"/api/v1/nodes/n/proxy/rewriteme\">/api/v1/nodes/n/proxy/page</a>"
    );
    assert_eq!(api.send("GET /api/v1/nodes/missing/proxy", "").await.code, 404);
}

#[tokio::test]
async fn a_node_is_proxied_to_by_name_and_port_with_any_method() {
    let api = cluster_with_a_pod().await;
    let node = api.check("GET /api/v1/nodes/n", json!({}), 200, json!({})).await;
    let port = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    for request in
        [format!("GET /api/v1/nodes/n:{port}/proxy/pods"), "OPTIONS /api/v1/nodes/n/proxy/pods".into()]
    {
        let answer = api.send(&request, "").await;
        assert_eq!(
            (answer.code, String::from_utf8_lossy(&answer.bytes).as_ref()),
            (200, "/pods"),
            "{request}"
        );
    }
    assert_eq!(api.send("GET /api/v1/nodes/ftp:n:1/proxy/pods", "").await.code, 400);
    assert_eq!(api.send("OPTIONS /api/v1/nodes/n", "").await.code, 405);
}

#[tokio::test]
async fn a_log_is_read_over_websocket() {
    let api = Arc::new(cluster_with_a_pod().await);
    let (stop, served, mut near) = connect(&api).await;
    let head = format!(
        "GET {PODS}/p/log HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        admin_token(&api).await
    );
    near.write_all(head.as_bytes()).await.expect("writes");
    let head = read_head(&mut near).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let path = b"/containerLogs/default/p/c?";
    let mut frame = vec![0; path.len() + 2];
    near.read_exact(&mut frame).await.expect("reads a frame");
    assert_eq!(frame[..2], [0x82, u8::try_from(path.len()).expect("is short")]);
    assert_eq!(&frame[2..], path);
    drop(near);
    stop.cancel();
    served.await.expect("serves to its end");
}

#[tokio::test]
async fn an_upgraded_stream_passes_both_ways() {
    let api = Arc::new(cluster_with_a_pod().await);
    let (stop, served, mut near) = connect(&api).await;
    let head = format!(
        "POST {PODS}/p/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        admin_token(&api).await
    );
    near.write_all(head.as_bytes()).await.expect("writes");
    let answer = read_head(&mut near).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("x-path: /exec/default/p/c?command=sh&input=1&output=1"), "{answer}");
    near.write_all(b"ping").await.expect("writes");
    let mut echo = [0; 4];
    near.read_exact(&mut echo).await.expect("reads");
    assert_eq!(&echo, b"ping");
    drop(near);
    stop.cancel();
    served.await.expect("ends");
}

/// A token that may do everything.
async fn admin_token(api: &Fixture) -> String {
    let token = json!({"spec": {"expirationSeconds": 600}});
    let token = api
        .check("POST /api/v1/namespaces/default/serviceaccounts/default/token", token, 201, json!({}))
        .await;
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    api.check("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, 201, json!({})).await;
    let account = UserInfo::new("system:serviceaccount:default:default", [""; 0]);
    api.until_allowed(account, "GET /api/v1/nodes").await;
    token["status"]["token"].as_str().expect("a token").to_owned()
}

/// A response's head, and not a byte more.
async fn read_head(near: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.expect("reads the head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A TLS connection to the server, which serves until the token is cancelled.
async fn connect(
    api: &Arc<Fixture>,
) -> (CancellationToken, tokio::task::JoinHandle<()>, tokio_rustls::client::TlsStream<TcpStream>) {
    let wire = super::serving::Wire::serve(api.clone()).await;
    let stream = wire.connect("http/1.1").await;
    (wire.stop, wire.served, stream)
}
