//! Over the wire: TLS, both HTTP versions, and clients that misbehave.

use std::sync::Arc;

use client::certificate::Replaceable;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::fixture::Fixture;
use crate::tls;

/// A server that listens.
pub struct Wire {
    api: Arc<Fixture>,
    address: std::net::SocketAddr,
    certificate: String,
    pub stop: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
}

impl Wire {
    async fn new() -> Wire {
        Wire::serve(Arc::new(Fixture::new().await)).await
    }

    pub async fn serve(api: Arc<Fixture>) -> Wire {
        // An authority of clients whose certificates no test has.
        let authority = generate_simple_self_signed(["authority".to_owned()]).expect("a certificate").cert;
        let authority = authority.pem();
        Wire::trusting(api, tls::Authorities { clients: authority.as_bytes(), front_proxies: b"" }).await
    }

    pub async fn trusting(api: Arc<Fixture>, authorities: tls::Authorities<'_>) -> Wire {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let shown = Replaceable::new(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
        let config = tls::Serving::showing(shown.expect("fits"), authorities).expect("fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let (server, token) = (api.clone(), stop.clone());
        let served =
            tokio::spawn(async move { server.server.serve(listener, tls::shared(config), token).await });
        Wire { api, address, certificate: cert.pem(), stop, served }
    }

    pub async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        self.connect_with(alpn, None).await
    }

    pub async fn connect_with(
        &self,
        alpn: &str,
        client: Option<CertifiedKey<KeyPair>>,
    ) -> TlsStream<TcpStream> {
        self.shake_hands(self.client(alpn, client)).await
    }

    fn client(&self, alpn: &str, client: Option<CertifiedKey<KeyPair>>) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")).expect("a root");
        let builder = ::tls::client().with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = PrivateKeyDer::from_pem_slice(client.signing_key.serialize_pem().as_bytes());
                builder
                    .with_client_auth_cert(vec![client.cert.der().clone()], key.expect("a key"))
                    .expect("fits")
            }
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }

    async fn shake_hands(&self, client: Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(client).connect(name, stream).await.expect("shakes hands")
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.served.await.expect("ends");
        drop(self.api);
    }
}

#[tokio::test]
async fn a_client_takes_its_session_up_again() {
    let wire = Wire::new().await;
    let client = wire.client("http/1.1", None);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = wire.shake_hands(client.clone()).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        // What resumes the session comes before the first answer.
        let request = b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("is sent");
        stream.read_to_end(&mut Vec::new()).await.expect("answers");
    }
    wire.stop().await;
}

#[tokio::test]
async fn both_http_versions_are_served() {
    let wire = Wire::new().await;
    let request = || {
        http::Request::get("https://localhost/version")
            .header("host", "localhost")
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request")
    };
    let (mut one, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(wire.connect("http/1.1").await))
            .await
            .expect("h1");
    tokio::spawn(connection);
    let (mut two, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(wire.connect("h2").await))
            .await
            .expect("h2");
    tokio::spawn(connection);
    for response in [one.send_request(request()).await, two.send_request(request()).await] {
        let response = response.expect("answers");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("\"minor\": \"36\""));
    }
    let mut nobody = request();
    *nobody.uri_mut() = "https://localhost/api/v1/pods".parse().expect("a path");
    assert_eq!(one.send_request(nobody).await.expect("answers").status(), 403);
    drop((one, two));
    wire.stop().await;
}

#[tokio::test]
async fn the_answer_to_head_has_no_content_over_http2() {
    let wire = Wire::new().await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(wire.connect("h2").await))
            .await
            .expect("h2");
    tokio::spawn(connection);
    for path in ["/healthz", "/api/v1/pods"] {
        let request =
            http::Request::head(format!("https://localhost{path}")).body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.expect("a request")).await.expect("answers");
        assert_eq!(response.status(), 403, "{path}");
        assert!(response.headers().contains_key(http::header::CONTENT_LENGTH), "{path}");
        let body = response.into_body().collect().await.expect("ends as it should").to_bytes();
        assert!(body.is_empty(), "{path}: {body:?}");
    }
    drop(sender);
    wire.stop().await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_answered_with_401() {
    let wire = Wire::new().await;
    let stranger = generate_simple_self_signed(["stranger".to_owned()]).expect("a certificate");
    let stream = wire.connect_with("http/1.1", Some(stranger)).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    let request =
        http::Request::get("/version").header("host", "localhost").body(Empty::<bytes::Bytes>::new());
    let response = sender.send_request(request.expect("a request")).await.expect("answers");
    assert_eq!(response.status(), 401);
    drop(sender);
    wire.stop().await;
}

#[tokio::test]
async fn garbage_costs_only_its_sender() {
    let wire = Wire::new().await;
    let mut plain = TcpStream::connect(wire.address).await.expect("connects");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("writes");
    let mut silent = wire.connect("http/1.1").await;
    silent.write_all(b"GET /version HT").await.expect("writes half a request");
    let mut rude = wire.connect("http/1.1").await;
    rude.write_all(b"\0\x01\x02 nonsense\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    // Whether the answer or the closing comes first is the server's choice; that it ends is not.
    let ended = rude.read_to_end(&mut answer).await;
    assert!(ended.is_err() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let mut polite = wire.connect("http/1.1").await;
    polite.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    polite.read_to_end(&mut answer).await.expect("reads");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    drop((plain, silent));
    wire.stop().await;
}

#[tokio::test]
async fn stopping_ends_watches() {
    let wire = Wire::new().await;
    let mut stream = wire.api.stream("GET /api/v1/configmaps?watch=true").await;
    wire.stop.cancel();
    while let Some(frame) = stream.frame().await {
        frame.expect("ends cleanly");
    }
    wire.stop().await;
}
