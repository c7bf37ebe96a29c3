//! A webhook on this machine, with a certificate of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apimachinery::{Value, json};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// What is answered to a review, or to the `path` of a request without body; none is never to answer.
type Answer = dyn Fn(&Value) -> Option<Value> + Send + Sync;

pub struct WebhookServer {
    pub address: SocketAddr,
    /// Its authority, PEM in base64.
    authority: String,
    /// How many questions it was asked.
    asked: Arc<AtomicUsize>,
    /// Over how many connections.
    connections: Arc<AtomicUsize>,
}

impl WebhookServer {
    pub async fn start(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> WebhookServer {
        let names = vec!["127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
        let key = signing_key.serialize_pem();
        let mut server = tls::server_config(cert.pem().as_bytes(), key.as_bytes(), b"").expect("fits");
        server.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let this = WebhookServer {
            address: listener.local_addr().expect("an address"),
            authority: base64::engine::general_purpose::STANDARD.encode(cert.pem()),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (asked, connections, answer) = (this.asked.clone(), this.connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                connections.fetch_add(1, Ordering::Relaxed);
                let (asked, answer) = (asked.clone(), answer.clone());
                let service = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    respond(request, answer.clone())
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        this
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Its authority, PEM.
    pub fn authority(&self) -> String {
        let pem = base64::engine::general_purpose::STANDARD.decode(&self.authority).expect("base64");
        String::from_utf8(pem).expect("is text")
    }

    pub fn client_config(&self) -> Value {
        json!({"url": format!("https://{}/hook", self.address), "caBundle": self.authority})
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answer>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = json!({"path": request.uri().path()});
    let body = request.into_body().collect().await?.to_bytes();
    let review = if body.is_empty() { path } else { serde_json::from_slice(&body).expect("JSON") };
    match answer(&review) {
        Some(answer) => Ok(Response::new(Full::new(Bytes::from(answer.to_string())))),
        None => std::future::pending().await,
    }
}
