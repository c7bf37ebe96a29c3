//! An API server just large enough for the benchmarks, with a node that runs pods at once, except those of the image `bad`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub struct Server {
    state: Arc<Mutex<State>>,
    kubeconfig: PathBuf,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    created_pods: usize,
    /// Connections over HTTP/2.
    shared: usize,
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
}

impl Server {
    pub async fn start() -> Server {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let mut tls = tls::server()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kubeconfig = write_kubeconfig(port, &certified.cert.pem());
        let state = Arc::new(Mutex::new(State::default()));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), state.clone()));
        Server { state, kubeconfig }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// How many pods were ever created.
    pub fn created(&self) -> usize {
        self.state.lock().unwrap().created_pods
    }

    /// How many connections were made over HTTP/2.
    pub fn shared(&self) -> usize {
        self.state.lock().unwrap().shared
    }

    /// The paths of what is there, but for what a real server removes with the namespace.
    pub fn left(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let goes = |path: &&String| {
            ["/serviceaccounts/", "/leases/", "/configmaps/"].iter().all(|kind| !path.contains(kind))
        };
        state.objects.keys().filter(goes).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        std::fs::remove_file(&self.kubeconfig).unwrap();
    }
}

fn write_kubeconfig(port: u16, ca: &str) -> PathBuf {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let text = json!({
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": ca,
        } }],
        "users": [{ "name": "test", "user": { "token": "secret" } }],
    });
    let path = std::env::temp_dir().join(format!("bench-kubeconfig-{}-{port}", std::process::id()));
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), state.clone());
        tokio::spawn(async move {
            let stream = tls.accept(stream).await.unwrap();
            state.lock().unwrap().shared += usize::from(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
            let service = service_fn(|request| answer(request, state.clone()));
            // A client that has what it wants may just go.
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.headers()["authorization"], "Bearer secret");
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut state = state.lock().unwrap();
    let path = uri.path().to_owned();
    let watch = uri.query().is_some_and(|query| query.contains("watch=true"));
    let answer = match method {
        Method::GET if watch => return Ok(Response::new(state.watch())),
        Method::GET if is_collection(&path) => Some(state.list(&path)),
        Method::GET => state.objects.get(&path).cloned(),
        Method::PATCH | Method::PUT => state.objects.get(path.trim_end_matches("/status")).cloned(),
        Method::POST => Some(state.create(&path, serde_json::from_slice(&body).unwrap())),
        Method::DELETE => Some(state.delete(&path)),
        other => panic!("unexpected {other}"),
    };
    let status = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let body = Full::new(Bytes::from(answer.unwrap_or_default().to_string())).boxed_unsync();
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// The kinds that benchmarks list, the objects of a custom kind, and the documents that name kinds.
fn is_collection(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    let kinds = ["pods", "customresourcedefinitions", "apis"];
    kinds.contains(&last) || path.starts_with("/apis/bench-")
}

impl State {
    fn list(&self, path: &str) -> Value {
        let within = format!("{path}/");
        let items =
            self.objects.iter().filter(|(path, _)| path.starts_with(&within)).map(|(_, object)| object);
        let items: Vec<_> = items.collect();
        // The custom kinds of a group stand where a real server names them as its resources.
        let definitions = self.objects.keys().filter(|path| path.contains("/customresourcedefinitions/"));
        let definitions: Vec<_> = definitions.collect();
        json!({ "metadata": { "resourceVersion": "1" }, "items": items, "resources": definitions })
    }

    fn create(&mut self, path: &str, mut object: Value) -> Value {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if path.contains("/pods/") {
            self.created_pods += 1;
            self.tell("ADDED", &object);
            if object["spec"]["schedulerName"].is_null() {
                object["status"] = match object["spec"]["containers"][0]["image"].as_str() {
                    Some("bad") => {
                        json!({ "containerStatuses": [{ "state": { "waiting": { "reason": "ErrImagePull" } } }] })
                    }
                    _ => json!({ "phase": "Running" }),
                };
                self.tell("MODIFIED", &object);
            }
        } else if path.starts_with("/api/v1/namespaces/") && path.matches('/').count() == 4 {
            self.objects.insert(format!("{path}/serviceaccounts/default"), json!({}));
        }
        self.objects.insert(path, object.clone());
        object
    }

    /// One object, or all of a collection.
    fn delete(&mut self, path: &str) -> Value {
        let within = format!("{path}/");
        let collection = is_collection(path);
        let gone = |found: &String| found == path || collection && found.starts_with(&within);
        let gone: Vec<String> = self.objects.keys().filter(|found| gone(found)).cloned().collect();
        for path in gone {
            let object = self.objects.remove(&path).unwrap();
            self.tell("DELETED", &object);
        }
        json!({})
    }

    fn watch(&mut self) -> Body {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watchers.push(sender);
        let lines = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|line| (Ok(Frame::data(line)), receiver))
        });
        StreamBody::new(lines).boxed_unsync()
    }

    fn tell(&mut self, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })));
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}
