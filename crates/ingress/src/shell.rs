//! From the API to the proxy: follows what Ingresses name, and has a new table made when any of that changes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::view::Object;
use api::view::core::{Secret, Service};
use api::view::discovery::EndpointSlice;
use api::view::networking::{Ingress, IngressClass};
use apimachinery::meta::NamespacedName;
use client::{CancellationToken, Client, Delta, Informer, Informers, NamedInformers};
use network::http::{self, Answer};
use network::service;
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::certificate::{self, CertificateError};
use crate::decide::{self, Named, World};
use crate::listener;
use crate::proxy::Proxy;

/// Time between two tables: what changes meanwhile is in the second.
const TABLE_PAUSE: Duration = Duration::from_millis(20);

/// What the proxy can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on port {port}: {source}")]
    Listen { port: u16, source: io::Error },
    #[error("listen for metrics on {address}: {source}")]
    Metrics { address: SocketAddr, source: io::Error },
    #[error("start the threads that proxy: {0}")]
    Threads(io::Error),
    #[error("prepare TLS")]
    Tls(#[from] rustls::Error),
    #[error("make a certificate for hosts without one")]
    Certificate(#[from] CertificateError),
}

/// Where to serve. Port 0 means any.
#[derive(Clone, Debug)]
pub struct Config {
    pub http_port: u16,
    pub https_port: u16,
    /// Where `/metrics` is answered.
    pub metrics_port: Option<u16>,
}

/// A proxy whose ports are open.
pub struct Bound {
    http: TcpListener,
    https: TcpListener,
    metrics: Option<TcpListener>,
    config: Config,
}

impl Bound {
    /// Opens the ports on all addresses of the caller's network namespace.
    pub async fn bind(config: Config) -> Result<Bound, Error> {
        let open =
            async |port| http::listen_everywhere(port).await.map_err(|source| Error::Listen { port, source });
        let metrics = match config.metrics_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Some(address) => {
                let listening = http::listen(address).await;
                Some(listening.map_err(|source| Error::Metrics { address, source })?)
            }
            None => None,
        };
        Ok(Bound {
            http: open(config.http_port).await?,
            https: open(config.https_port).await?,
            metrics,
            config,
        })
    }

    /// Serves until `stop`. Secrets are read with `client`, each by its name; all else with the informers.
    pub async fn run(
        self,
        client: Client,
        informers: Informers,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let proxy = Arc::new(Proxy::new(self.config.https_port).map_err(Error::Threads)?);
        let tls = listener::acceptor(proxy.clone())?;
        if let Some(listening) = self.metrics {
            let counted = proxy.clone();
            let handler: http::Handler = Arc::new(move |path, _| match path {
                "/metrics" => Answer::text(200, counted.counters.text()).into(),
                _ => Answer::not_found().into(),
            });
            tokio::spawn(http::serve(listening, handler, stop.clone()));
        }
        let mut follower = Follower::new(proxy.clone(), client, &informers)?;
        // Clients that come before the first table wait in the sockets.
        if stop.run_until_cancelled(follower.synced()).await.is_none() {
            return Ok(());
        }
        follower.make_table().await;
        tokio::join!(
            listener::serve(proxy.clone(), self.http, self.config.http_port, None, stop.clone()),
            listener::serve(proxy.clone(), self.https, self.config.https_port, Some(tls), stop.clone()),
            stop.run_until_cancelled(follower.run()),
        );
        proxy.workers.end();
        Ok(())
    }
}

/// A certificate as it was read from a Secret, and from which version of that.
struct Read {
    resource_version: String,
    certificate: Option<Arc<CertifiedKey>>,
}

/// Keeps the proxy's table as the API wants it.
struct Follower {
    proxy: Arc<Proxy>,
    fallback: Arc<CertifiedKey>,
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    secrets: NamedInformers<Secret>,
    secret_changes: UnboundedReceiver<NamespacedName>,
    read: BTreeMap<NamespacedName, Read>,
    /// What the table in use was made from.
    named: Named,
}

impl Follower {
    fn new(proxy: Arc<Proxy>, client: Client, informers: &Informers) -> Result<Follower, Error> {
        let slices = informers.get();
        service::index_by_service(&slices);
        let (secrets, secret_changes) = NamedInformers::new(client);
        Ok(Follower {
            proxy,
            fallback: Arc::new(certificate::fallback()?),
            ingresses: informers.get(),
            classes: informers.get(),
            services: informers.get(),
            slices,
            secrets,
            secret_changes,
            read: BTreeMap::new(),
            named: Named::default(),
        })
    }

    async fn synced(&self) {
        self.ingresses.synced().await;
        self.classes.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// A new table after each change that matters.
    async fn run(mut self) {
        let (mut ingresses, mut classes) = (self.ingresses.subscribe(), self.classes.subscribe());
        let (mut services, mut slices) = (self.services.subscribe(), self.slices.subscribe());
        loop {
            let matters = tokio::select! {
                Some(_) = ingresses.recv() => true,
                Some(_) = classes.recv() => true,
                Some(delta) = services.recv() => names(&self.named, service_of(&delta)),
                Some(delta) = slices.recv() => names(&self.named, service_of_slice(&delta)),
                Some(_) = self.secret_changes.recv() => true,
            };
            if matters {
                tokio::time::sleep(TABLE_PAUSE).await;
                // The caches hold at least what has been announced.
                drain(&mut ingresses);
                drain(&mut classes);
                drain(&mut services);
                drain(&mut slices);
                drain(&mut self.secret_changes);
                self.make_table().await;
            }
        }
    }

    async fn make_table(&mut self) {
        let ours = decide::ours(self.ingresses.list(), &self.classes.list());
        self.named = decide::named(&ours);
        self.secrets.follow(&self.named.secrets).await;
        let certificates = self.certificates();
        let with_slices = |name: &NamespacedName| {
            let service = self.services.get(&name.namespace, &name.name)?;
            let slices = service::slices_of(&self.slices, &name.namespace, &name.name);
            Some((name.clone(), (service, slices)))
        };
        let world = World {
            services: self.named.services.iter().filter_map(with_slices).collect(),
            certificates,
            fallback: Some(self.fallback.clone()),
            counters: &self.proxy.counters,
        };
        let table = decide::table(&ours, &world);
        tracing::debug!(ingresses = ours.len(), services = world.services.len(), "a new routing table");
        self.proxy.swap(table);
    }

    /// What Secrets hold, each version read once.
    fn certificates(&mut self) -> BTreeMap<NamespacedName, Arc<CertifiedKey>> {
        self.read.retain(|name, _| self.named.secrets.contains(name));
        let mut found = BTreeMap::new();
        for name in &self.named.secrets {
            let Some(secret) = self.secrets.get(name) else { continue };
            let version = &secret.metadata.resource_version;
            if self.read.get(name).is_none_or(|read| read.resource_version != *version) {
                let read =
                    Read { resource_version: version.clone(), certificate: certificate_of(name, &secret) };
                self.read.insert(name.clone(), read);
            }
            found.extend(self.read[name].certificate.iter().map(|key| (name.clone(), key.clone())));
        }
        found
    }
}

fn certificate_of(name: &NamespacedName, secret: &Secret) -> Option<Arc<CertifiedKey>> {
    match certificate::certified_key(secret) {
        Ok(key) => Some(Arc::new(key)),
        Err(error) => {
            tracing::warn!(secret = %name, error = %chain(&error), "a Secret holds no certificate");
            None
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn names(named: &Named, service: Option<NamespacedName>) -> bool {
    service.is_some_and(|service| named.services.contains(&service))
}

fn service_of(delta: &Delta<Service>) -> Option<NamespacedName> {
    Some(delta.object().meta().namespaced_name())
}

fn service_of_slice(delta: &Delta<EndpointSlice>) -> Option<NamespacedName> {
    let slice = delta.object();
    let name = service::service_name(slice)?;
    Some(NamespacedName::new(slice.metadata.namespace.as_str(), name))
}

fn drain<T>(changes: &mut UnboundedReceiver<T>) {
    while changes.try_recv().is_ok() {}
}
