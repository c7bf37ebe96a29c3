//! Routing decisions, and the proxy between real clients and backends.

mod proxying;
mod routing;
mod tls;
mod upgrading;

use std::net::SocketAddr;
use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use api::view::networking::{Ingress, IngressClass};
use apimachinery::{Value, json};
use bytes::Bytes;
use client::CancellationToken;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};

use crate::decide::{self, World};
use crate::metrics::Registry;
use crate::proxy::Proxy;
use crate::table::Table;
use crate::{certificate, listener};

fn read<V: serde::de::DeserializeOwned>(object: Value) -> Arc<V> {
    Arc::new(V::deserialize(&object).expect("a view"))
}

/// What there is in a test's cluster, in the namespace `default`.
#[derive(Default)]
struct Cluster {
    ingresses: Vec<Arc<Ingress>>,
    services: Vec<(Arc<Service>, Vec<Arc<EndpointSlice>>)>,
    certificates: Vec<(&'static str, Arc<CertifiedKey>)>,
}

impl Cluster {
    /// Added later means younger.
    fn ingress(mut self, spec: Value) -> Self {
        let number = self.ingresses.len();
        let mut ingress = json!({
            "metadata": {"namespace": "default", "name": format!("i{number}"),
                "creationTimestamp": format!("2026-01-01T00:00:{number:02}Z")},
            "spec": {"ingressClassName": "cox"},
        });
        for (key, value) in spec.as_object().expect("a spec") {
            if key == "annotations" {
                ingress["metadata"]["annotations"] = value.clone();
            } else {
                ingress["spec"][key] = value.clone();
            }
        }
        self.ingresses.push(read(ingress));
        self
    }

    /// A Service with one port, 80, and these ready endpoints.
    fn service(mut self, name: &str, app_protocol: Option<&str>, endpoints: &[SocketAddr]) -> Self {
        let service = read(json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 80, "appProtocol": app_protocol}]},
        }));
        let slice = |endpoint: &SocketAddr| {
            read(json!({
                "metadata": {"namespace": "default", "name": format!("{name}-{endpoint}")},
                "addressType": "IPv4", "ports": [{"name": "http", "port": endpoint.port(), "protocol": "TCP"}],
                "endpoints": [{"addresses": [endpoint.ip().to_string()]}],
            }))
        };
        self.services.push((service, endpoints.iter().map(slice).collect()));
        self
    }

    fn certificate(mut self, secret: &'static str, key: Arc<CertifiedKey>) -> Self {
        self.certificates.push((secret, key));
        self
    }

    fn table(&self) -> Table {
        let class: Arc<IngressClass> =
            read(json!({"metadata": {"name": "cox"}, "spec": {"controller": "coxswain.dev/ingress"}}));
        let ours = decide::ours(self.ingresses.clone(), &[class]);
        let name = |name: &str| apimachinery::meta::NamespacedName::new("default", name);
        let world = World {
            services: self
                .services
                .iter()
                .map(|(s, slices)| (name(&s.metadata.name), (s.clone(), slices.clone())))
                .collect(),
            certificates: self.certificates.iter().map(|(secret, key)| (name(secret), key.clone())).collect(),
            fallback: Some(Arc::new(certificate::fallback().expect("a certificate"))),
            counters: &Registry::default(),
        };
        decide::table(&ours, &world)
    }
}

/// Everything to one Service.
fn all_to(service: &str) -> Value {
    json!({"defaultBackend": {"service": {"name": service, "port": {"number": 80}}}})
}

/// A proxy that serves a table.
struct Serving {
    proxy: Arc<Proxy>,
    http: SocketAddr,
    https: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(table: Table) -> Serving {
    let (plain, secure) = (listen().await, listen().await);
    let (http, https) = (plain.local_addr().unwrap(), secure.local_addr().unwrap());
    let proxy = Arc::new(Proxy::new(https.port()).expect("threads"));
    proxy.swap(table);
    let stop = CancellationToken::new();
    let acceptor = listener::acceptor(proxy.clone()).expect("TLS");
    tokio::spawn(listener::serve(proxy.clone(), plain, http.port(), None, stop.clone()));
    tokio::spawn(listener::serve(proxy.clone(), secure, https.port(), Some(acceptor), stop.clone()));
    Serving { proxy, http, https, stop }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// A backend of HTTP/1.1 and HTTP/2 that answers with what `answer` makes of each request.
async fn backend<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A client that goes away is part of the test.
                drop(builder.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// A backend that says its name.
async fn named(name: &'static str) -> SocketAddr {
    backend(move |_| async move { Response::new(Full::new(Bytes::from(name))) }).await
}

/// A client's connection of HTTP/1.1.
struct Browser(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Browser {
    async fn connect(address: SocketAddr) -> Browser {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        Browser(sender)
    }

    async fn get(&mut self, host: &str, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", host).body(Full::default()).unwrap();
        let (head, body) = self.send(request).await;
        (head.status.as_u16(), body)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> (http::response::Parts, String) {
        self.0.ready().await.expect("an open connection");
        let (head, body) = self.0.send_request(request).await.expect("a response").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        (head, String::from_utf8(body.to_vec()).expect("text"))
    }
}
