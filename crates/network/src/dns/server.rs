//! The server: UDP and TCP on the addresses given. Answers from the zone are given at once; what is
//! forwarded waits in tasks of its own, so that a dead resolver delays nobody else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{CancellationToken, Informers};
use tokio::net::{TcpListener, UdpSocket};

use super::resolver::Resolver;
use super::upstreams::{self, Upstreams};
use super::zone::Zone;
use super::{Name, tcp, udp};
use crate::http;

/// Pause after a failed accept or receive, such as when descriptors have run out.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

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
    let upstreams = Arc::new(Upstreams::new(config.resolv_conf, own));
    let server = Server::bind(&config.listen, zone, upstreams.clone()).await?;
    let config_maps = upstreams::config_maps(&informers);
    tokio::spawn(stop.clone().run_until_cancelled_owned(upstreams.follow(config_maps)));
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
        Ok(Server { udp, tcp, resolver: Arc::new(Resolver::new(zone, upstreams)) })
    }

    fn metrics_handler(&self) -> http::Handler {
        let resolver = self.resolver.clone();
        Arc::new(move |path, _| match path {
            "/metrics" => http::Answer::text(200, resolver.metrics_text()).into(),
            _ => http::Answer::not_found().into(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.tcp.iter().map(TcpListener::local_addr).collect()
    }

    pub async fn serve(self, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for socket in self.udp {
            tasks.spawn(stop.clone().run_until_cancelled_owned(udp::serve(socket, self.resolver.clone())));
        }
        for listener in self.tcp {
            let serve = tcp::serve(listener, self.resolver.clone(), stop.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(serve));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
