//! From the API to the proxy: follows what Ingresses name, and has a new table made when any of that changes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::resource::SECRETS;
use api::view::Object;
use api::view::core::{Secret, Service};
use api::view::discovery::EndpointSlice;
use api::view::networking::{Ingress, IngressClass};
use apimachinery::meta::NamespacedName;
use client::{CancellationToken, Client, Delta, Informer, Informers};
use network::http::{self, Answer};
use network::service;
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use crate::certificate::{self, CertificateError};
use crate::decide::{self, Named, World};
use crate::listener;
use crate::proxy::Proxy;

/// How long a table waits for the first sight of Secrets; then it is put to use without them.
const SECRETS_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two tables: what changes meanwhile is in the second.
const TABLE_PAUSE: Duration = Duration::from_millis(20);

/// What the proxy can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on port {port}")]
    Listen { port: u16, source: io::Error },
    #[error("listen for metrics on {address}")]
    Metrics { address: SocketAddr, source: io::Error },
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
        let open = async |port| {
            http::listen_everywhere(port).await.map_err(|source| Error::Listen { port, source })
        };
        let metrics = match config.metrics_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Some(address) => {
                let listening = http::listen(address).await;
                Some(listening.map_err(|source| Error::Metrics { address, source })?)
            }
            None => None,
        };
        Ok(Bound { http: open(config.http_port).await?, https: open(config.https_port).await?, metrics, config })
    }

    /// Serves until `stop`. Secrets are read with `client`, each by its name; all else with the informers.
    pub async fn run(
        self,
        client: Client,
        informers: Informers,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let proxy = Arc::new(Proxy::new(self.config.https_port));
        let tls = listener::acceptor(proxy.clone())?;
        if let Some(listening) = self.metrics {
            let counted = proxy.clone();
            let handler: http::Handler = Arc::new(move |path| match path {
                "/metrics" => Answer::text(200, counted.counters.text()),
                _ => Answer::not_found(),
            });
            tokio::spawn(http::serve(listening, handler, stop.clone()));
        }
        let mut follower = Follower::new(proxy.clone(), client, &informers, stop.clone())?;
        // Clients that come before the first table wait in the sockets.
        if stop.run_until_cancelled(follower.synced()).await.is_none() {
            return Ok(());
        }
        follower.make_table().await;
        tokio::join!(
            listener::serve(proxy.clone(), self.http, self.config.http_port, None, stop.clone()),
            listener::serve(proxy, self.https, self.config.https_port, Some(tls), stop.clone()),
            stop.run_until_cancelled(follower.run()),
        );
        Ok(())
    }
}

/// A Secret that an Ingress names.
struct Followed {
    informer: Informer<Secret>,
    /// Of the Secret that `certificate` was read from.
    resource_version: String,
    certificate: Option<Arc<CertifiedKey>>,
    _stop: DropGuard,
}

/// Keeps the proxy's table as the API wants it.
struct Follower {
    proxy: Arc<Proxy>,
    client: Client,
    stop: CancellationToken,
    fallback: Arc<CertifiedKey>,
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    secrets: BTreeMap<NamespacedName, Followed>,
    secret_changed: Arc<Notify>,
    /// What the table in use was made from.
    named: Named,
}

impl Follower {
    fn new(
        proxy: Arc<Proxy>,
        client: Client,
        informers: &Informers,
        stop: CancellationToken,
    ) -> Result<Follower, Error> {
        let slices = informers.get();
        service::index_by_service(&slices);
        Ok(Follower {
            proxy,
            client,
            stop,
            fallback: Arc::new(certificate::fallback()?),
            ingresses: informers.get(),
            classes: informers.get(),
            services: informers.get(),
            slices,
            secrets: BTreeMap::new(),
            secret_changed: Arc::default(),
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
        let secret_changed = self.secret_changed.clone();
        loop {
            let matters = tokio::select! {
                Some(_) = ingresses.recv() => true,
                Some(_) = classes.recv() => true,
                Some(delta) = services.recv() => self.names(service_of(&delta)),
                Some(delta) = slices.recv() => self.names(service_of_slice(&delta)),
                () = secret_changed.notified() => true,
            };
            if matters {
                tokio::time::sleep(TABLE_PAUSE).await;
                // The caches hold at least what has been announced.
                drain(&mut ingresses);
                drain(&mut classes);
                drain(&mut services);
                drain(&mut slices);
                self.make_table().await;
            }
        }
    }

    fn names(&self, service: Option<NamespacedName>) -> bool {
        service.is_some_and(|service| self.named.services.contains(&service))
    }

    async fn make_table(&mut self) {
        let ours = decide::ours(self.ingresses.list(), &self.classes.list());
        self.named = decide::named(&ours);
        self.follow_secrets().await;
        let with_slices = |name: &NamespacedName| {
            let service = self.services.get(&name.namespace, &name.name)?;
            let slices = service::slices_of(&self.slices, &name.namespace, &name.name);
            Some((name.clone(), (service, slices)))
        };
        let world = World {
            services: self.named.services.iter().filter_map(with_slices).collect(),
            certificates: self.certificates(),
            fallback: Some(self.fallback.clone()),
            counters: &self.proxy.counters,
        };
        let table = decide::table(&ours, &world);
        tracing::debug!(ingresses = ours.len(), services = world.services.len(), "a new routing table");
        self.proxy.swap(table);
    }

    /// Begins and ends to follow Secrets, and waits for the first sight of new ones.
    async fn follow_secrets(&mut self) {
        self.secrets.retain(|name, _| self.named.secrets.contains(name));
        let mut new = Vec::new();
        for name in &self.named.secrets {
            if !self.secrets.contains_key(name) {
                let followed = self.follow(name);
                new.push(followed.informer.clone());
                self.secrets.insert(name.clone(), followed);
            }
        }
        let synced = async {
            for informer in &new {
                informer.synced().await;
            }
        };
        if timeout(SECRETS_TIMEOUT, synced).await.is_err() {
            tracing::warn!("some Secrets that Ingresses name have not been read yet");
        }
    }

    fn follow(&self, name: &NamespacedName) -> Followed {
        let stop = self.stop.child_token();
        let informer =
            Informer::of_one(self.client.clone(), SECRETS, &name.namespace, &name.name, stop.clone());
        let (mut deltas, changed) = (informer.subscribe(), self.secret_changed.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while deltas.recv().await.is_some() {
                changed.notify_one();
            }
        }));
        Followed { informer, resource_version: String::new(), certificate: None, _stop: stop.drop_guard() }
    }

    /// What Secrets hold, each read once.
    fn certificates(&mut self) -> BTreeMap<NamespacedName, Arc<CertifiedKey>> {
        let mut found = BTreeMap::new();
        for (name, followed) in &mut self.secrets {
            let Some(secret) = followed.informer.get(&name.namespace, &name.name) else { continue };
            if followed.resource_version != secret.metadata.resource_version {
                followed.resource_version.clone_from(&secret.metadata.resource_version);
                followed.certificate = match certificate::certified_key(&secret) {
                    Ok(key) => Some(Arc::new(key)),
                    Err(error) => {
                        tracing::warn!(secret = %name, error = %chain(&error), "a Secret holds no certificate");
                        None
                    }
                };
            }
            found.extend(followed.certificate.iter().map(|key| (name.clone(), key.clone())));
        }
        found
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn service_of(delta: &Delta<Service>) -> Option<NamespacedName> {
    Some(delta.object().meta().namespaced_name())
}

fn service_of_slice(delta: &Delta<EndpointSlice>) -> Option<NamespacedName> {
    let slice = delta.object();
    let name = service::service_name(slice)?;
    Some(NamespacedName::new(slice.metadata.namespace.as_str(), name))
}

fn drain<V>(deltas: &mut UnboundedReceiver<Delta<V>>) {
    while deltas.try_recv().is_ok() {}
}
