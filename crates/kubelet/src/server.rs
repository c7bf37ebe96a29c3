//! The kubelet's own API, for the API server: logs, exec, attach, port-forward, and what runs here
//! (follows the kubelet's `server/server.go`).

mod authentication;
mod authorization;
mod checkpoint;
mod debug;
mod figures;
mod healthz;
mod logs;
mod metrics;
mod node_logs;
mod open;
mod pods;
mod requests;
mod route;
mod run;
mod streaming;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::view::core::Pod;
use apimachinery::Value;
use bytes::Bytes;
use client::Informer;
use client::head::Content;
use client::slis::Outcomes;
use client::zpages::Page;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::stats;
use crate::worker::Shared;
use authentication::User;
pub use metrics::Machine;
use route::Route;

type Body = UnsyncBoxBody<Bytes, client::transport::BoxError>;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// A client that does not finish its handshake or its request's head in this time is dropped.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What `/statusz` names besides the pages: upstream's handlers that are no web services.
const PATHS: [&str; 3] = ["/configz", "/healthz", "/metrics"];

#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    pods: Informer<Pod>,
    reviews: Arc<authentication::Reviews>,
    decisions: Arc<authorization::Decisions>,
    stats: Arc<stats::Provider>,
    /// What came of the checks of `/healthz`.
    outcomes: Arc<Outcomes>,
    requests: Arc<requests::Requests>,
}

/// How connections come in.
#[derive(Clone)]
enum Way {
    Secure(TlsAcceptor),
    /// Without TLS, for these routes.
    Open(open::Offers),
}

/// Who sends a request.
#[derive(Clone)]
enum Asker {
    /// Who has shown this certificate, if any.
    Certified(Option<User>),
    /// Anybody, who may ask for these routes.
    Anybody(open::Offers),
}

/// A refusal in plain text, as the kubelet answers.
struct Refusal(StatusCode, String);

impl Refusal {
    fn not_found(what: impl Into<String>) -> Self {
        Refusal(StatusCode::NOT_FOUND, what.into())
    }

    fn wrong_method() -> Self {
        Refusal(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".to_owned())
    }

    fn debugging_disabled() -> Self {
        Refusal(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n".to_owned())
    }
}

impl Server {
    pub fn new(shared: Arc<Shared>, pods: Informer<Pod>) -> Self {
        Server {
            shared,
            pods,
            reviews: Arc::default(),
            decisions: Arc::default(),
            stats: Arc::default(),
            outcomes: Arc::default(),
            requests: Arc::default(),
        }
    }

    /// Serves all that there is, to whom may ask for it.
    pub async fn serve(self, listener: TcpListener) {
        let acceptor = TlsAcceptor::from(self.shared.config.tls.clone());
        self.accept(listener, Way::Secure(acceptor)).await;
    }

    async fn accept(self, listener: TcpListener, way: Way) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "kubelet could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, way) = (self.clone(), way.clone());
            tokio::spawn(async move {
                server.connection(stream, way).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: TcpStream, way: Way) {
        let acceptor = match way {
            Way::Secure(acceptor) => acceptor,
            Way::Open(offers) => return self.requests(stream, Asker::Anybody(offers)).await,
        };
        let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else {
            return;
        };
        let user = User::of_certificate(stream.get_ref().1.peer_certificates());
        self.requests(stream, Asker::Certified(user)).await;
    }

    async fn requests(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, asker: Asker) {
        let service = service_fn(move |request| {
            let (server, asker) = (self.clone(), asker.clone());
            async move {
                let content = Content::of_answer_to(&request);
                Ok::<_, Infallible>(content.fit(server.answer(request, asker).await, empty))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(error, "kubelet connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, asker: Asker) -> Response<Body> {
        let _pending = self.requests.begin(&request, matches!(asker, Asker::Anybody(_)));
        let answer = match asker {
            Asker::Certified(user) => self.route(request, user).await,
            Asker::Anybody(offers) => self.route_openly(request, offers).await,
        };
        match answer {
            Ok(response) => response,
            Err(Refusal(code, message)) => text(code, message),
        }
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        certified: Option<User>,
    ) -> Result<Response<Body>, Refusal> {
        let user = match certified {
            Some(user) => Some(user),
            None => self.reviews.user_of(&self.shared, request.headers()).await,
        };
        let user = user.ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))?;
        let subresources = route::subresources(request.uri().path());
        if !self.decisions.allowed(&self.shared, &user, request.method(), subresources).await {
            let message = format!(
                "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])\n",
                user.name,
                authorization::verb(request.method()),
                subresources.join(" ")
            );
            return Err(Refusal(StatusCode::FORBIDDEN, message));
        }
        let route = Route::parse(request.uri().path());
        let route = route.ok_or_else(|| Refusal::not_found("404 page not found"))?;
        if route.is_for_debugging() && !self.shared.config.kubelet.enable_debugging_handlers {
            return Err(Refusal::debugging_disabled());
        }
        self.serve_route(route, request).await
    }

    async fn serve_route(&self, route: Route, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        match route {
            Route::Healthz(check) => Ok(healthz::answer(&check, query, &self.outcomes)),
            Route::Pods => Ok(json(&self.list_pods().await)),
            Route::RunningPods => Ok(json(&self.list_running_pods().await?)),
            Route::Configz => {
                Ok(json(&apimachinery::json!({"kubeletconfig": self.shared.config.kubelet.shown()})))
            }
            Route::Page(page) => self.page(page, request.headers()),
            Route::Pprof(page) => debug::pprof(&self.shared.config, &page),
            Route::Verbosity => debug::verbosity(&self.shared.config, request).await,
            Route::Summary => Ok(json(&self.summary(query).await?)),
            Route::Metrics => self.kubelet_metrics().await,
            Route::ResourceMetrics => self.resource_metrics().await,
            Route::CadvisorMetrics => self.cadvisor_metrics().await,
            Route::ProbeMetrics => Ok(self.probe_metrics()),
            Route::SliMetrics => Ok(self.sli_metrics()),
            Route::Checkpoint(target) => checkpoint::serve(self, &target, request.method(), query).await,
            Route::NodeLogs(path) if self.shared.config.kubelet.enable_system_log_handler => {
                node_logs::serve(request.method(), &path).await
            }
            Route::NodeLogs(_) => {
                Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n".to_owned()))
            }
            Route::Logs(target) => logs::serve(self, &target, query).await,
            Route::Run(target) => run::serve(self, &target, request.method(), query).await,
            Route::Exec(target) => streaming::exec(self, &target, request).await,
            Route::Attach(target) => streaming::attach(self, &target, request).await,
            Route::PortForward(target) => streaming::port_forward(self, &target, request).await,
        }
    }

    /// There with the other handlers of upstream's `InstallAuthRequiredHandlers`.
    fn page(&self, page: Page, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let config = &self.shared.config;
        if !config.kubelet.enable_debugging_handlers || config.pages.at(page.path()).is_none() {
            return Err(Refusal::not_found("404 page not found"));
        }
        let answer = config.pages.answer(page, PATHS, headers, Timestamp::now());
        Ok(answer.map(whole))
    }

    /// The pod, if it is here and is the one meant.
    fn pod(&self, target: &route::Target) -> Result<Arc<Pod>, Refusal> {
        let pod = self.pods.get(&target.namespace, &target.pod);
        let pod = pod.filter(|pod| target.uid.is_empty() || pod.metadata.uid == target.uid);
        pod.map(crate::staticpods::running).ok_or_else(|| {
            Refusal::not_found(format!("pod \"{}/{}\" not found", target.namespace, target.pod))
        })
    }
}

fn json(value: &Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn empty() -> Body {
    whole(Bytes::new())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn text(code: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(message)));
    *response.status_mut() = code;
    response
}
