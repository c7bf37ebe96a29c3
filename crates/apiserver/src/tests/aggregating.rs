//! Group versions that others serve: an extension server played by the test, and a backend of the same process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apimachinery::{GroupVersion, Value, json};
use auth::UserInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fixture::{Fixture, contains};
use crate::{Backend, BackendFuture, GroupServed, tls};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

const FLUNDER: &str = "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders/{name}";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn resource_list() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
}

/// Describes itself and, as extension servers do, what all share.
fn open_api() -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
    let get = json!({"get": {"responses": {"200": {"schema": reference("e.Flunder")}}}});
    json!({
        "swagger": "2.0",
        "paths": {(FLUNDER): get, "/apis": {}},
        "definitions": {"e.Flunder": {"properties": {"metadata": reference(OBJECT_META)}}, (OBJECT_META): {"type": "object"}},
    })
}

/// Says who asked for what.
fn answer(path: &str, user: &str, groups: &str) -> Value {
    match path {
        "/apis/wardle.example.com/v1" => resource_list(),
        "/openapi/v2" => open_api(),
        path => json!({"path": path, "user": user, "groups": groups}),
    }
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let all = |name: &str| {
        let values = request.headers().get_all(name).iter();
        values.map(|value| value.to_str().expect("text")).collect::<Vec<_>>().join(",")
    };
    let answer = answer(request.uri().path(), &all("x-remote-user"), &all("x-remote-group"));
    Ok(Response::new(Full::new(answer.to_string().into())))
}

/// An extension server with a certificate that nobody vouches for.
async fn start_extension_server() -> SocketAddr {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let server = tls::server_config(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes(), b"");
    let mut server = server.expect("fits");
    server.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(respond)));
        }
    });
    address
}

/// Reads a watch of APIServices until the one of the extension server is judged so.
async fn await_reason(watch: &mut client::Body, reason: &str) {
    let mut text = String::new();
    let expect = json!({"object": {"metadata": {"name": "v1.wardle.example.com"},
        "status": {"conditions": [{"type": "Available", "reason": reason}]}}});
    while let Some(frame) = watch.frame().await {
        let data = frame.expect("is whole").into_data().expect("is data");
        text.push_str(std::str::from_utf8(&data).expect("is UTF-8"));
        let mut told = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if told.any(|told| contains(&told, &expect)) {
            return;
        }
    }
    panic!("never {reason}: {text}");
}

#[tokio::test]
async fn an_extension_server_is_judged_discovered_and_told_who_asks() {
    let address = start_extension_server().await;
    let api = Fixture::new().await;
    let mut watch = api.stream(&format!("GET {API_SERVICES}?watch=1")).await;
    let service = json!({"metadata": {"name": "v1.wardle.example.com"}, "spec": {
        "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "ext", "port": 7443}}});
    api.check(&format!("POST {API_SERVICES}"), service, 201, json!({})).await;
    await_reason(&mut watch, "ServiceNotFound").await;
    let flunder = "GET /apis/wardle.example.com/v1/namespaces/default/flunders/a";
    api.check(flunder, Value::Null, 503, json!({"message": "service unavailable"})).await;
    let target = json!({"metadata": {"name": "ext"}, "spec": {"ports": [{"port": 7443, "name": "https"}]}});
    api.check("POST /api/v1/namespaces/default/services", target, 201, json!({})).await;
    await_reason(&mut watch, "EndpointsNotFound").await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "ext", "namespace": "default", "labels": {"kubernetes.io/service-name": "ext"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}]});
    api.store(api::resource::ENDPOINT_SLICES, &slice).await;
    await_reason(&mut watch, "Passed").await;
    let expect = json!({"path": "/apis/wardle.example.com/v1/namespaces/default/flunders/a", "user": "admin",
        "groups": "system:masters,system:authenticated"});
    api.check(&format!("{flunder}\nX-Remote-User: somebody"), Value::Null, 200, expect).await;
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let discovery = api.send(&format!("GET /apis\n{accept}"), "").await.json();
    let groups = discovery["items"].as_array().expect("groups");
    let found = groups.iter().find(|group| group["metadata"]["name"] == "wardle.example.com");
    let expect = json!({"versions": [{"version": "v1", "freshness": "Current", "resources": [
        {"resource": "flunders", "scope": "Namespaced", "responseKind": {"kind": "Flunder"}}]}]});
    assert!(contains(found.expect("is among them"), &expect), "{found:?}");
    described(&api).await;
}

/// The extension server's part of version 2 comes some time after the server was found available.
async fn described(api: &Fixture) {
    let mut document = Value::Null;
    while document["paths"][FLUNDER].is_null() {
        // The extension server has this thread, too.
        tokio::task::yield_now().await;
        document = api.send("GET /openapi/v2", "").await.json();
    }
    let flunder = &document["definitions"]["e.Flunder"]["properties"]["metadata"]["$ref"];
    let renamed = format!("{OBJECT_META}_v2");
    assert_eq!(*flunder, format!("#/definitions/{renamed}"));
    assert_eq!(document["definitions"][&renamed], json!({"type": "object"}));
    assert_ne!(
        document["definitions"][OBJECT_META],
        json!({"type": "object"}),
        "the server's own is as it was"
    );
}

struct InProcess;

impl Backend for InProcess {
    fn handle(&self, user: &UserInfo, request: Request<Bytes>) -> BackendFuture<'_> {
        let answer = answer(request.uri().path(), &user.name, &user.groups.join(","));
        Box::pin(async move { Response::new(crate::body::full(answer.to_string())) })
    }
}

#[tokio::test]
async fn a_backend_of_this_process_serves_a_group_of_its_own() {
    let api = Fixture::new().await;
    let served = GroupServed {
        group_version: GroupVersion::new("wardle.example.com", "v1"),
        group_priority_minimum: 100,
        version_priority: 100,
    };
    api.server.serve_group(served, Arc::new(InProcess)).await.expect("is registered");
    let available = json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}});
    api.check(&format!("GET {API_SERVICES}/v1.wardle.example.com"), Value::Null, 200, available).await;
    let expect = json!({"path": "/apis/wardle.example.com/v1/flunders", "user": "admin"});
    api.check("GET /apis/wardle.example.com/v1/flunders", Value::Null, 200, expect).await;
    let groups = json!({"versions": [{"groupVersion": "wardle.example.com/v1"}]});
    api.check("GET /apis/wardle.example.com", Value::Null, 200, groups).await;
}
