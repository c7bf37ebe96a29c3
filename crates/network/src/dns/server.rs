//! The server: UDP and TCP on the addresses given. Answers from the zone are given at once; what is
//! forwarded waits in tasks of its own, so that a dead resolver delays nobody else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::resource::CONFIG_MAPS;
use client::{CancellationToken, Informers};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::cache::{Cache, Key};
use super::metrics::{Metrics, Transport};
use super::upstreams::{self, Upstreams};
use super::wire::{Code, Forwarded, Query, Response, TCP_LEN_MAX, UDP_LEN_MAX, UDP_LEN_MIN, parse_query};
use super::zone::{Outcome, Zone};
use super::{Name, ResolvConf, forward};
use crate::http;

/// Forwarded questions under way; more are answered with a failure at once.
const FORWARDS_MAX: usize = 1024;

/// Open TCP connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;

/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// Pause after a failed accept or receive, such as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Aliases followed for one question.
const ALIASES_MAX: usize = 8;

const CLASS_IN: u16 = 1;

/// What the server can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen for DNS on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{domain:?} is not a domain name")]
    Domain { domain: String },
}

/// Where and for what to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of this node, each served over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Such as `cluster.local`.
    pub domain: String,
    /// Names the resolvers for everything else, such as `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where `/metrics` is answered.
    pub metrics_address: Option<SocketAddr>,
}

/// Serves until `stop`. Acts in the network namespace of the caller.
pub async fn run(informers: Informers, config: Config, stop: CancellationToken) -> Result<(), Error> {
    let domain =
        Name::parse(&config.domain).ok_or_else(|| Error::Domain { domain: config.domain.clone() })?;
    let (services, slices, namespaces) = (informers.get(), informers.get(), informers.get());
    let own: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
    let zone = Zone::new(domain, services.clone(), slices.clone(), namespaces.clone(), own.clone());
    let upstreams = Arc::new(Upstreams::new(ResolvConf::new(config.resolv_conf, own)));
    let server = Server::bind(&config.listen, zone, upstreams.clone()).await?;
    let settings = informers.get_selected(CONFIG_MAPS, upstreams::SELECTOR);
    tokio::spawn(stop.clone().run_until_cancelled_owned(upstreams.follow(settings)));
    if let Some(address) = config.metrics_address {
        let failed = |source| Error::Listen { address, source };
        let listener = http::listen(address).await.map_err(failed)?;
        tokio::spawn(http::serve(listener, server.metrics_handler(), stop.clone()));
    }
    let synced = async {
        services.synced().await;
        slices.synced().await;
        namespaces.synced().await;
    };
    // Questions that come before the caches are filled wait in the sockets.
    if stop.run_until_cancelled(synced).await.is_some() {
        server.serve(stop).await;
    }
    Ok(())
}

/// A server whose sockets are open.
pub struct Server {
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
    resolver: Arc<Resolver>,
}

/// Finds answers, wherever they come from.
struct Resolver {
    zone: Zone,
    upstreams: Arc<Upstreams>,
    cache: Mutex<Cache>,
    forwards: Semaphore,
    metrics: Metrics,
}

impl Server {
    pub async fn bind(listen: &[SocketAddr], zone: Zone, upstreams: Arc<Upstreams>) -> Result<Server, Error> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in listen {
            let failed = |source| Error::Listen { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            // With port 0 the two would differ.
            let address = listener.local_addr().map_err(failed)?;
            udp.push(Arc::new(UdpSocket::bind(address).await.map_err(failed)?));
            tcp.push(listener);
        }
        let resolver = Resolver {
            zone,
            upstreams,
            cache: Mutex::default(),
            forwards: Semaphore::new(FORWARDS_MAX),
            metrics: Metrics::default(),
        };
        Ok(Server { udp, tcp, resolver: Arc::new(resolver) })
    }

    fn metrics_handler(&self) -> http::Handler {
        let resolver = self.resolver.clone();
        Arc::new(move |path| match path {
            "/metrics" => {
                let entries = resolver.cache.lock().len();
                http::Answer::text(200, resolver.metrics.text(entries))
            }
            _ => http::Answer::not_found(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.tcp.iter().map(TcpListener::local_addr).collect()
    }

    pub async fn serve(self, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for socket in self.udp {
            tasks.spawn(stop.clone().run_until_cancelled_owned(serve_udp(socket, self.resolver.clone())));
        }
        for listener in self.tcp {
            let serve = serve_tcp(listener, self.resolver.clone(), stop.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(serve));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; TCP_LEN_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receive DNS query");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let query = match parse_query(&buffer[..length]) {
            Ok(query) => query,
            Err(answer) => {
                send(&socket, &answer.unwrap_or_default(), client).await;
                continue;
            }
        };
        let len_max =
            query.edns.map_or(UDP_LEN_MIN, |edns| usize::from(edns.udp_len).clamp(UDP_LEN_MIN, UDP_LEN_MAX));
        let asked = Instant::now();
        match resolver.answer_at_once(&query, len_max) {
            Some(answer) => {
                send(&socket, &answer, client).await;
                resolver.metrics.answered(Transport::Udp, query.kind, &answer, asked.elapsed());
            }
            None => {
                let (socket, resolver) = (socket.clone(), resolver.clone());
                tokio::spawn(async move {
                    let answer = resolver.answer_from_others(&query, len_max, false).await;
                    send(&socket, &answer, client).await;
                    resolver.metrics.answered(Transport::Udp, query.kind, &answer, asked.elapsed());
                });
            }
        }
    }
}

/// A client that is gone is no concern of ours.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if !answer.is_empty()
        && let Err(error) = socket.send_to(answer, client).await
    {
        tracing::debug!(%error, %client, "send DNS answer");
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let serve = serve_connection(stream, resolver.clone());
                let serve = stop.clone().run_until_cancelled_owned(serve);
                tokio::spawn(async move {
                    if let Some(Err(error)) = serve.await {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept DNS connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, resolver: Arc<Resolver>) -> io::Result<()> {
    let mut query = Vec::new();
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            query.resize(usize::from(length), 0);
            stream.read_exact(&mut query).await
        };
        timeout(IDLE, read).await??;
        let asked = Instant::now();
        let answer = match parse_query(&query) {
            Ok(query) => {
                let answer = match resolver.answer_at_once(&query, TCP_LEN_MAX) {
                    Some(answer) => answer,
                    None => resolver.answer_from_others(&query, TCP_LEN_MAX, true).await,
                };
                resolver.metrics.answered(Transport::Tcp, query.kind, &answer, asked.elapsed());
                answer
            }
            Err(Some(answer)) => answer,
            Err(None) => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let write = async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        };
        timeout(IDLE, write).await??;
    }
}

impl Resolver {
    /// The answer, unless it takes another resolver.
    fn answer_at_once(&self, query: &Query, len_max: usize) -> Option<Vec<u8>> {
        let refused = |code| Some(Response::of(code).encode(query, len_max));
        if query.opcode != 0 {
            return refused(Code::NotImplemented);
        }
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return refused(Code::BadVersion);
        }
        if query.class != CLASS_IN {
            return refused(Code::Refused);
        }
        match self.zone.resolve(&query.name, query.kind) {
            Outcome::Answer(mut response) => {
                // Clients commonly take the first address: give each a turn.
                let turn = usize::from(query.id).checked_rem(response.answers.len()).unwrap_or_default();
                response.answers.rotate_left(turn);
                Some(response.encode(query, len_max))
            }
            Outcome::Forward => self.cached(query, len_max),
            Outcome::Follow(..) => None,
        }
    }

    fn cached(&self, query: &Query, len_max: usize) -> Option<Vec<u8>> {
        let cache = self.cache.lock();
        let cached = cache.get(&key(query), Instant::now());
        self.metrics.looked_up(cached.is_some());
        let (response, age) = cached?;
        let bytes = response.for_client(query, age);
        (bytes.len() <= len_max).then_some(bytes)
    }

    /// The answer with the help of other resolvers; `whole` if the client can take all of it.
    async fn answer_from_others(&self, query: &Query, len_max: usize, whole: bool) -> Vec<u8> {
        let Ok(_permit) = self.forwards.try_acquire() else {
            return Response::of(Code::ServerFailure).encode(query, len_max);
        };
        match self.zone.resolve(&query.name, query.kind) {
            Outcome::Follow(..) => self.follow(query).await.encode(query, len_max),
            _ => self.forward(query, len_max, whole).await,
        }
    }

    async fn forward(&self, query: &Query, len_max: usize, whole: bool) -> Vec<u8> {
        let Some(response) = self.ask(query, &query.name, whole).await else {
            return Response::of(Code::ServerFailure).encode(query, len_max);
        };
        let bytes = response.for_client(query, 0);
        self.cache.lock().put(key(query), response, Instant::now());
        if bytes.len() <= len_max { bytes } else { truncated(query) }
    }

    async fn ask(&self, query: &Query, name: &Name, whole: bool) -> Option<Forwarded> {
        let answer = forward::ask(&self.upstreams.of(name), query, name, whole).await;
        self.metrics.forwarded(answer.is_some());
        answer
    }

    /// Aliases and what they lead to, inside the zone or outside.
    async fn follow(&self, query: &Query) -> Response {
        let mut response = Response { authoritative: true, ..Response::of(Code::NoError) };
        let mut name = query.name.clone();
        for _ in 0..ALIASES_MAX {
            match self.zone.resolve(&name, query.kind) {
                Outcome::Follow(record, target) => {
                    response.answers.push(record);
                    name = target;
                }
                Outcome::Answer(found) => {
                    response.answers.extend(found.answers);
                    return response;
                }
                Outcome::Forward => {
                    match self.ask(query, &name, true).await {
                        Some(found) => response.answers.extend(found.addresses),
                        None => response.code = Code::ServerFailure,
                    }
                    return response;
                }
            }
        }
        Response::of(Code::ServerFailure)
    }
}

/// An empty answer that makes the client come back over TCP.
fn truncated(query: &Query) -> Vec<u8> {
    let mut bytes = Response::of(Code::NoError).encode(query, TCP_LEN_MAX);
    bytes[2] |= 0x02;
    bytes
}

fn key(query: &Query) -> Key {
    (query.name.to_string(), query.kind, query.edns.map(|edns| edns.dnssec))
}
