//! Handshakes: which certificate a client is shown, and what is agreed on.

use std::sync::Arc;

use api::view::core::Secret;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Browser, Cluster, Serving, all_to, named, read, serve};
use crate::certificate::certified_key;

/// A Secret for a host, and the certificate that it holds.
fn secret(host: &str) -> (Arc<CertifiedKey>, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let data = json!({"tls.crt": STANDARD.encode(made.cert.pem()), "tls.key": STANDARD.encode(made.signing_key.serialize_pem())});
    let secret: Arc<Secret> = read(json!({"type": "kubernetes.io/tls", "data": data}));
    (Arc::new(certified_key(&secret).expect("a certificate")), made.cert.der().clone())
}

/// Whether a client that trusts only this certificate gets through, and the protocol agreed on.
async fn handshake(serving: &Serving, host: &str, trusted: &CertificateDer<'static>) -> Option<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ::tls::client().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(serving.https).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
}

fn with_tls(host: &str) -> Value {
    let mut spec = all_to("web");
    spec["tls"] = json!([{"hosts": [host], "secretName": "s"}]);
    spec
}

#[tokio::test]
async fn clients_are_shown_the_certificate_of_the_host_they_ask_for_as_it_is_now() {
    let web = named("web").await;
    let (old, trusted_old) = secret("a.example.org");
    let (new, trusted_new) = secret("a.example.org");
    let table = |key: &Arc<CertifiedKey>| {
        let cluster = Cluster::default().ingress(with_tls("a.example.org")).service("web", None, &[web]);
        cluster.certificate("s", key.clone()).table()
    };
    let serving = serve(table(&old)).await;
    assert_eq!(handshake(&serving, "a.example.org", &trusted_old).await.as_deref(), Some(&b"h2"[..]));
    assert_eq!(handshake(&serving, "b.example.org", &trusted_old).await, None, "the fallback is nobody's");
    serving.proxy.swap(table(&new));
    assert_eq!(handshake(&serving, "a.example.org", &trusted_old).await, None);
    assert!(handshake(&serving, "a.example.org", &trusted_new).await.is_some());
}

#[tokio::test]
async fn plain_clients_are_sent_to_https() {
    let mut spec = with_tls("*.example.org");
    spec["rules"] = json!([{"host": "a.example.org", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]);
    let serving = serve(Cluster::default().ingress(spec).table()).await;
    let request =
        http::Request::get("/path?q=1").header("host", "a.example.org").body(Default::default()).unwrap();
    let (head, _) = Browser::connect(serving.http).await.send(request).await;
    let location = format!("https://a.example.org:{}/path?q=1", serving.https.port());
    assert_eq!((head.status.as_u16(), head.headers["location"].to_str().unwrap()), (308, location.as_str()));
}

#[test]
fn secrets_without_a_certificate_are_refused_with_the_reason() {
    let refused = |data: Value| {
        let secret: Arc<Secret> = read(json!({"data": data}));
        certified_key(&secret).expect_err("no certificate").to_string()
    };
    assert_eq!(refused(json!({})), "there is no tls.crt");
    assert_eq!(refused(json!({"tls.crt": "?", "tls.key": ""})), "decode tls.crt");
    assert_eq!(refused(json!({"tls.crt": "", "tls.key": ""})), "read tls.key as PEM");
    let pem = |host: &str| {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        (STANDARD.encode(made.cert.pem()), STANDARD.encode(made.signing_key.serialize_pem()))
    };
    let ((certificate, _), (_, key)) = (pem("a"), pem("b"));
    assert_eq!(refused(json!({"tls.crt": certificate, "tls.key": key})), "use certificate and key");
}
