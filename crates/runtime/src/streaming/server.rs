//! The HTTP server that clients' exec, attach and port-forward connections arrive at.
//!
//! A CRI client asks for a URL, which names a request by a one-time token; whoever connects to it
//! in time gets the streams. Follows streaming.Server of k8s.io/cri-streaming.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::{
    Backend,
    negotiate::{self, Upgrade},
    portforward::{self, MAX_PORTS},
    remotecommand::{self, Command, Options},
    spdy,
    token::{TokenCache, TokenError},
    websocket,
};

/// As the CRI's ExecRequest.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    pub container_id: String,
    pub cmd: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// As the CRI's AttachRequest.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    pub container_id: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// As the CRI's PortForwardRequest; where the client opens streams, these name the ports.
#[derive(Debug, Clone, Default)]
pub struct PortForwardRequest {
    pub pod_sandbox_id: String,
    pub ports: Vec<u16>,
}

/// Why no URL was given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    #[error("missing required container_id")]
    MissingContainerId,
    #[error("missing required pod_sandbox_id")]
    MissingPodSandboxId,
    #[error("tty and stderr cannot both be true")]
    TtyWithStderr,
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStreams,
    #[error("more than {MAX_PORTS} ports")]
    TooManyPorts,
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// What a token stands for.
#[derive(Clone)]
enum Target {
    Command { command: Command, options: Options },
    PortForward { pod_sandbox_id: String, ports: Vec<u16> },
}

impl Target {
    /// The path element under which the target is served.
    fn action(&self) -> &'static str {
        match self {
            Target::Command { command: Command::Exec { .. }, .. } => "exec",
            Target::Command { command: Command::Attach { .. }, .. } => "attach",
            Target::PortForward { .. } => "portforward",
        }
    }

    fn protocols(&self, upgrade: Upgrade) -> &'static [&'static str] {
        match (self, upgrade) {
            (Target::Command { .. }, Upgrade::Spdy) => remotecommand::SPDY_PROTOCOLS,
            (Target::Command { .. }, Upgrade::WebSocket) => remotecommand::WEBSOCKET_PROTOCOLS,
            (Target::PortForward { ports, .. }, upgrade) => portforward::protocols(upgrade, ports.len()),
        }
    }

    /// Whether a client that offers no protocol cannot be served: a tunnel has to be asked for, and
    /// channels are of ports.
    fn needs_protocol(&self, upgrade: Upgrade) -> bool {
        let tunnel = |ports: &Vec<u16>| ports.is_empty() && upgrade == Upgrade::WebSocket;
        matches!(self, Target::PortForward { ports, .. } if tunnel(ports))
    }
}

/// The streaming server. It listens on the loopback address only: a URL is as good as its token.
pub struct Server {
    backend: Arc<dyn Backend>,
    listener: TcpListener,
    address: SocketAddr,
    tokens: Mutex<TokenCache<Target>>,
}

type Reply = Response<Full<Bytes>>;

impl Server {
    /// Listens on a free port of 127.0.0.1; `run` serves.
    pub async fn bind(backend: Arc<dyn Backend>) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let tokens = Mutex::new(TokenCache::new());
        Ok(Arc::new(Self { backend, listener, address, tokens }))
    }

    /// A URL that runs a command once, within a minute.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, RequestError> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let options = checked(&container_id, Options { tty, stdin, stdout, stderr })?;
        self.url(Target::Command { command: Command::Exec { container_id, cmd }, options })
    }

    /// A URL that attaches to a container once, within a minute.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, RequestError> {
        let AttachRequest { container_id, tty, stdin, stdout, stderr } = request;
        let options = checked(&container_id, Options { tty, stdin, stdout, stderr })?;
        self.url(Target::Command { command: Command::Attach { container_id }, options })
    }

    /// A URL that takes one port-forward connection, within a minute.
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, RequestError> {
        let PortForwardRequest { pod_sandbox_id, ports } = request;
        if pod_sandbox_id.is_empty() {
            return Err(RequestError::MissingPodSandboxId);
        }
        if ports.len() > MAX_PORTS {
            return Err(RequestError::TooManyPorts);
        }
        self.url(Target::PortForward { pod_sandbox_id, ports })
    }

    /// Serves until `stop`; connections that are open then are dropped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = self.clone().serve_connection(stream, stop.clone());
                    tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
                }
                Err(error) => tracing::warn!(%error, "streaming connection not accepted"),
            }
        }
    }

    fn url(&self, target: Target) -> Result<String, RequestError> {
        let action = target.action();
        let token = self.tokens.lock().insert(target, Instant::now())?;
        Ok(format!("http://{}/{action}/{token}", self.address))
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        // Keystrokes are small writes.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        let service = service_fn(|request| {
            let reply = self.clone().reply(request, &stop);
            async move { Ok::<_, Infallible>(reply) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "streaming connection ended badly");
        }
    }

    fn reply(self: Arc<Self>, mut request: Request<Incoming>, stop: &CancellationToken) -> Reply {
        if request.method() != Method::GET && request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let Some(target) = self.target(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        let Some(upgrade) = negotiate::upgrade(request.headers()) else {
            return text(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
        };
        let served = target.protocols(upgrade);
        let protocol = match negotiate::protocol(request.headers(), negotiate::offer_header(upgrade), served)
        {
            Ok(protocol) => protocol,
            Err(refusal) => return forbidden(upgrade, &refusal.offered, served),
        };
        if protocol.is_none() && target.needs_protocol(upgrade) {
            return forbidden(upgrade, &[], served);
        }
        let headers = match upgrade {
            Upgrade::Spdy => spdy_headers(protocol),
            Upgrade::WebSocket => match websocket::accept(request.headers(), protocol) {
                Ok(headers) => headers,
                Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
            },
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let serving = self.clone().serve(upgraded, upgrade, protocol, target);
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, "");
        *reply.headers_mut() = headers;
        reply
    }

    /// The target that a path names; its token is used up.
    fn target(&self, path: &str) -> Option<Target> {
        let (action, token) = path.strip_prefix('/')?.split_once('/')?;
        let target = self.tokens.lock().consume(token, Instant::now())?;
        (target.action() == action).then_some(target)
    }

    async fn serve(
        self: Arc<Self>,
        upgraded: OnUpgrade,
        upgrade: Upgrade,
        protocol: Option<&'static str>,
        target: Target,
    ) {
        let io = match upgraded.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => {
                tracing::debug!(%error, "connection not upgraded");
                return;
            }
        };
        match (target, upgrade) {
            (Target::Command { command, options }, Upgrade::Spdy) => {
                let session = spdy::Session::new(io, spdy::Role::Server);
                match remotecommand::connect_spdy(session, protocol, options).await {
                    Ok(connected) => {
                        remotecommand::serve(connected, self.backend.clone(), command, options.tty).await
                    }
                    Err(error) => tracing::debug!(%error, "remote command not started"),
                }
            }
            (Target::Command { command, options }, Upgrade::WebSocket) => {
                let socket = websocket::over(io, Role::Server).await;
                let connected = remotecommand::connect_websocket(socket, protocol, options).await;
                remotecommand::serve(connected, self.backend.clone(), command, options.tty).await;
            }
            (Target::PortForward { pod_sandbox_id, .. }, Upgrade::Spdy) => {
                let session = spdy::Session::new(io, spdy::Role::Server);
                portforward::serve_spdy(session, self.backend.clone(), pod_sandbox_id).await;
            }
            (Target::PortForward { pod_sandbox_id, ports }, Upgrade::WebSocket) => {
                let socket = websocket::over(io, Role::Server).await;
                let backend = self.backend.clone();
                portforward::serve_websocket(socket, protocol, backend, pod_sandbox_id, ports).await;
            }
        }
    }
}

fn checked(container_id: &str, options: Options) -> Result<Options, RequestError> {
    match options {
        _ if container_id.is_empty() => Err(RequestError::MissingContainerId),
        Options { tty: true, stderr: true, .. } => Err(RequestError::TtyWithStderr),
        Options { stdin: false, stdout: false, stderr: false, .. } => Err(RequestError::NoStreams),
        options => Ok(options),
    }
}

fn spdy_headers(protocol: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    if let Some(protocol) = protocol {
        headers.insert(negotiate::STREAM_PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    }
    headers
}

fn forbidden(upgrade: Upgrade, offered: &[String], served: &[&'static str]) -> Reply {
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {served:?}"
    );
    let mut reply = text(StatusCode::FORBIDDEN, message);
    if upgrade == Upgrade::Spdy {
        for protocol in served {
            reply
                .headers_mut()
                .append(negotiate::ACCEPTED_STREAM_PROTOCOL_VERSIONS, HeaderValue::from_static(protocol));
        }
    }
    reply
}

fn text(status: StatusCode, message: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(message.into()));
    *reply.status_mut() = status;
    reply
}
