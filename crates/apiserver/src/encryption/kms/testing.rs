//! A KMS plugin for tests, on a thread of its own. It wraps seeds by turning their bits around, and names its key.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::proto::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};

#[derive(Debug, Default)]
struct Says {
    key_id: String,
    healthz: String,
    encryptions: usize,
    decryptions: usize,
}

impl Says {
    fn status(&self) -> StatusResponse {
        let (key_id, healthz) = (self.key_id.clone(), self.healthz.clone());
        StatusResponse { version: "v2".to_owned(), healthz, key_id }
    }
}

pub struct TestPlugin {
    folder: tempfile::TempDir,
    says: Arc<Mutex<Says>>,
    _stop: DropGuard,
}

impl TestPlugin {
    pub fn start(key_id: &str) -> TestPlugin {
        let folder = tempfile::tempdir().expect("a folder");
        let says = Says { key_id: key_id.to_owned(), healthz: "ok".to_owned(), ..Says::default() };
        let (says, stop) = (Arc::new(Mutex::new(says)), CancellationToken::new());
        let plugin = TestPlugin { folder, says: says.clone(), _stop: stop.clone().drop_guard() };
        let listener = std::os::unix::net::UnixListener::bind(plugin.socket()).expect("binds");
        listener.set_nonblocking(true).expect("is a socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        std::thread::spawn(move || runtime.block_on(stop.run_until_cancelled(serve(listener, says))));
        plugin
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("kms.sock")
    }

    pub fn change(&self, key_id: &str, healthz: &str) {
        let mut says = self.says.lock();
        (says.key_id, says.healthz) = (key_id.to_owned(), healthz.to_owned());
    }

    pub fn encryptions(&self) -> usize {
        self.says.lock().encryptions
    }

    pub fn decryptions(&self) -> usize {
        self.says.lock().decryptions
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, says: Arc<Mutex<Says>>) {
    let listener = UnixListener::from_std(listener).expect("does not block");
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        let says = says.clone();
        let service = service_fn(move |request| respond(request, says.clone()));
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(
    request: Request<Incoming>,
    says: Arc<Mutex<Says>>,
) -> Result<Response<tonic::body::Body>, hyper::Error> {
    Ok(match request.uri().path().rsplit('/').next().unwrap_or_default() {
        "Status" => {
            let answer = says.lock().status();
            unary(request, move |_: StatusRequest| answer.clone()).await
        }
        "Encrypt" => {
            let work = move |request: EncryptRequest| {
                let mut says = says.lock();
                says.encryptions += 1;
                let annotations = [("key.test.example.com".to_owned(), b"1".to_vec())].into();
                let ciphertext = turned(&request.plaintext);
                EncryptResponse { ciphertext, key_id: says.key_id.clone(), annotations }
            };
            unary(request, work).await
        }
        _ => {
            let work = move |request: DecryptRequest| {
                says.lock().decryptions += 1;
                DecryptResponse { plaintext: turned(&request.ciphertext) }
            };
            unary(request, work).await
        }
    })
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

async fn unary<Q, A>(
    request: Request<Incoming>,
    work: impl Fn(Q) -> A + Clone + Send + 'static,
) -> Response<tonic::body::Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let answer = work(request.into_inner());
        async move { Ok::<_, tonic::Status>(tonic::Response::new(answer)) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}
