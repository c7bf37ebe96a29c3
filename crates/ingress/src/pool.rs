//! Connections to endpoints. One of HTTP/1.1 is for one request at a time and kept for the next; one of HTTP/2 is
//! shared by all.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::{Endpoint, Protocol};
use crate::body::Body;

/// An endpoint that has not answered by then is taken to be gone (nginx waits a minute, with one endpoint in view).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that nobody has used for so long is closed (nginx: `keepalive_timeout` of upstreams).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept per endpoint, some 20 KB each. More than that are only needed by bursts.
const IDLE_MAX: usize = 64;
/// HTTP/2 endpoints that are silent are asked whether they are still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("look up {name}")]
    Lookup { name: Arc<str>, source: io::Error },
    #[error("{name} has no address that may be connected to")]
    NoAddress { name: Arc<str> },
    #[error("connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address} did not take the connection in time")]
    TimedOut { address: SocketAddr },
    #[error("begin HTTP with {address}")]
    Handshake { address: SocketAddr, source: hyper::Error },
}

/// A way to send one request.
pub enum Sender {
    Http1(Lease),
    H2c(http2::SendRequest<Body>),
}

/// A connection of HTTP/1.1 that is in use.
pub struct Lease {
    pub sender: http1::SendRequest<Body>,
    address: SocketAddr,
    pool: Arc<Pool>,
}

impl Lease {
    /// Lets others use the connection, now that its response has ended. Dropped instead, it is closed.
    pub fn give_back(self) {
        let pool = self.pool.clone();
        pool.put(self.address, self.sender);
    }
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

#[derive(Default)]
struct State {
    idle: HashMap<SocketAddr, Vec<Idle>>,
    shared: HashMap<SocketAddr, http2::SendRequest<Body>>,
    /// Somebody will come and close what has been idle for too long.
    is_swept: bool,
}

/// All connections to endpoints.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
}

impl Pool {
    /// A connection that is open already. Each is handed out once, so that asking again leads to the others.
    pub fn idle(self: &Arc<Pool>, address: SocketAddr, protocol: Protocol) -> Option<Sender> {
        let mut state = self.state.lock();
        if protocol == Protocol::H2c {
            let sender = state.shared.get(&address).filter(|sender| !sender.is_closed()).cloned();
            if sender.is_none() {
                state.shared.remove(&address);
            }
            return sender.map(Sender::H2c);
        }
        let idle = state.idle.get_mut(&address)?;
        // The youngest that is ready. One just given back may need a moment to be.
        for index in (0..idle.len()).rev() {
            let (sender, since) = (&idle[index].sender, idle[index].since);
            if sender.is_closed() || since.elapsed() >= IDLE_TIMEOUT {
                idle.remove(index);
            } else if sender.is_ready() {
                let sender = idle.remove(index).sender;
                return Some(Sender::Http1(Lease { sender, address, pool: self.clone() }));
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(
        self: &Arc<Pool>,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Result<Sender, ConnectError> {
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|source| ConnectError::Connect { address, source })?,
            Err(_) => return Err(ConnectError::TimedOut { address }),
        };
        stream.set_nodelay(true).map_err(|source| ConnectError::Connect { address, source })?;
        let failed = |source| ConnectError::Handshake { address, source };
        let stream = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
                tokio::spawn(ended(address, connection.with_upgrades()));
                Ok(Sender::Http1(Lease { sender, address, pool: self.clone() }))
            }
            Protocol::H2c => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .adaptive_window(true)
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT);
                let (sender, connection) = builder.handshake(stream).await.map_err(failed)?;
                tokio::spawn(ended(address, connection));
                self.state.lock().shared.insert(address, sender.clone());
                Ok(Sender::H2c(sender))
            }
        }
    }

    /// Forgets a connection that turned out not to work.
    pub fn forget_shared(&self, address: SocketAddr) {
        self.state.lock().shared.remove(&address);
    }

    fn put(self: &Arc<Pool>, address: SocketAddr, sender: http1::SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut state = self.state.lock();
        let idle = state.idle.entry(address).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(self.clone().sweep());
        }
    }

    /// Closes what has been idle for too long, until nothing is.
    async fn sweep(self: Arc<Pool>) {
        loop {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            let mut state = self.state.lock();
            state.idle.retain(|_, idle| {
                idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT);
                !idle.is_empty()
            });
            if state.idle.is_empty() {
                state.is_swept = false;
                return;
            }
        }
    }

    /// Closes what leads to endpoints that are no more; requests under way go on.
    pub fn keep_only(&self, is_kept: impl Fn(&SocketAddr) -> bool) {
        let mut state = self.state.lock();
        state.idle.retain(|address, _| is_kept(address));
        state.shared.retain(|address, _| is_kept(address));
    }
}

async fn ended(address: SocketAddr, connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%address, %error, "a connection to an endpoint ended");
    }
}

/// The addresses of an endpoint.
pub async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
    let (name, port) = match endpoint {
        Endpoint::Address(address) => return Ok(vec![*address]),
        Endpoint::Name(name, port) => (name, *port),
    };
    let looked_up = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((&**name, port))).await;
    let looked_up = looked_up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = looked_up.map_err(|source| ConnectError::Lookup { name: name.clone(), source })?;
    let addresses: Vec<SocketAddr> = found.filter(|address| may_be_named(address.ip())).collect();
    if addresses.is_empty() {
        return Err(ConnectError::NoAddress { name: name.clone() });
    }
    Ok(addresses)
}

/// A name must not lead to what only this node itself, or its cloud, is meant to reach.
fn may_be_named(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_unspecified() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_to_the_node_itself() {
        let check = |address: &str, expected| {
            assert_eq!(may_be_named(address.parse().unwrap()), expected, "{address}")
        };
        for forbidden in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1"] {
            check(forbidden, false);
        }
        check("192.0.2.1", true);
        check("2001:db8::1", true);
    }
}
