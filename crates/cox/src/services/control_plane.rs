//! API server, controllers and scheduler of one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apiserver::audit::Auditor;
use apiserver::audit::policy::Policy;
use apiserver::audit::sink::Backends;
use apiserver::authentication::{self, FrontProxies};
use apiserver::authorization::Chain;
use apiserver::enablement::Enablement;
use apiserver::encryption::Encryption;
use apiserver::features::Features;
use apiserver::tls::{Authorities, Serving, SharedTls};
use apiserver::{AdmissionPlugins, ApiServer, Cidr, FRONT_PROXY_CLIENT, FrontProxy, GroupServed};
use auth::jwt::SigningKey;
use auth::serviceaccount::Issuer;
use auth::tokenfile::TokenFile;
use auth::{RequestHeader, UserInfo};
use client::certificate::Replaceable;
use client::config::RestConfig;
use client::leaderelection::Elector;
use client::zpages::Flags;
use client::{CancellationToken, Client, Informers, Measured, QueueMetrics, RestMetrics};
use cluster::pki::{Identity, Leaf, Pki};
use cluster::{Layout, Settings};
use jiff::{SignedDuration, Timestamp};
use store::Store;

use super::certificates::Keeper;
use super::leader::Election;
use super::{Services, encryption_reload, leader};
use crate::logging;

/// Everything a control plane is made of, before it runs.
pub struct Plan<'a> {
    pub layout: &'a Layout,
    pub settings: &'a Settings,
    pub pki: &'a Arc<Pki>,
    pub node_ip: IpAddr,
    /// Where the state is, when not in the cluster's own data.
    pub etcd: Option<store::EtcdConfig>,
    /// How controllers and scheduler stand for the lead; none where no other process has theirs.
    pub election: Option<Election>,
    pub admission: AdmissionPlugins,
    /// Whether controllers and scheduler run in this process, too.
    pub runs_deciders: bool,
    /// Whether Ingresses get addresses here.
    pub ingress: bool,
    pub anonymous_auth: bool,
    pub tokens: TokenFile,
    pub requests_in_flight_max: u32,
    /// How long certificates hold that are signed on request.
    pub signing_duration: SignedDuration,
    pub node_cidr_mask_sizes: controllers::NodeCidrMaskSizes,
    pub features: Features,
    /// Which built-in groups, versions and resources are served.
    pub enablement: Enablement,
    pub request_timeout: Duration,
    pub profiling: bool,
    /// Of this process, which its parts show.
    pub flags: Flags,
    pub encryption: Option<Arc<Encryption>>,
    /// Whether its file is followed.
    pub encryption_reload: bool,
}

/// A started API server, and ways into it.
#[derive(Clone)]
pub struct Api {
    server: Arc<ApiServer>,
    /// What all components of this process share.
    pub informers: Informers,
    figures: Figures,
    /// Where others find the server.
    address: String,
}

/// What the controllers and the scheduler of this process are measured by.
#[derive(Clone, Default)]
struct Figures {
    queues: Arc<QueueMetrics>,
    jobs: Arc<controllers::JobMetrics>,
    scheduler: Arc<scheduler::Metrics>,
    requests: Arc<RestMetrics>,
}

impl Api {
    /// A client under the given identity.
    pub fn client(&self, user: UserInfo, agent: &str) -> Client {
        self.measured_client(user, agent, &self.figures.requests)
    }

    /// The same for a component whose requests are not counted with those of this server's own parts.
    pub fn measured_client(&self, user: UserInfo, agent: &str, requests: &Arc<RestMetrics>) -> Client {
        Client::new(Measured::new(self.server.in_process(user), requests, &self.address), agent)
    }

    pub fn admin(&self) -> Client {
        self.client(UserInfo::new("kubernetes-admin", ["system:masters", AUTHENTICATED]), "cox")
    }

    /// Lets a part of this process answer for a group of the API.
    pub async fn serve_group(
        &self,
        served: GroupServed,
        backend: Arc<dyn apiserver::Backend>,
    ) -> anyhow::Result<()> {
        let name = served.group_version.to_string();
        let registered = self.server.serve_group(served, backend).await;
        registered.with_context(|| format!("cannot serve {name}"))
    }
}

/// What components are called, as user agents and as leases.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub const SCHEDULER: &str = "kube-scheduler";
pub const AUTHENTICATED: &str = "system:authenticated";

/// Who is believed, who decides and who is told, as the operator says.
pub struct Access {
    pub authentication: authentication::Config,
    pub authorization: Chain,
    /// What is told of requests, and to whom.
    pub auditing: Option<(Policy, Backends)>,
}

impl Plan<'_> {
    /// Opens the store and starts the API server.
    pub async fn start_api(
        &self,
        services: &mut Services,
        mut access: Access,
        keeper: &mut Keeper,
    ) -> anyhow::Result<Api> {
        let store = self.open_store(services).await?;
        let auditing = access.auditing.take();
        let mut config = self.config(access, keeper)?;
        if let Some((policy, backends)) = auditing {
            let auditor = Auditor::new(policy, backends, config.clock.clone());
            config.auditor = Some(auditor.clone());
            services.start("audit", |stop| async move {
                stop.cancelled().await;
                auditor.close().await;
                Ok(())
            });
        }
        let tls = self.serving_tls(&config, keeper)?;
        let figures = Figures::default();
        if self.runs_deciders {
            config.components = vec![figures.queues.clone(), figures.jobs.clone(), figures.scheduler.clone()];
        }
        config.components.push(figures.requests.clone());
        let address = format!("https://{}", config.advertise);
        let server = Arc::new(ApiServer::start(config, self.issuer()?, store).await?);
        let listener = client::listen::listen_everywhere(self.settings.secure_port)
            .await
            .with_context(|| format!("API server cannot listen on port {}", self.settings.secure_port))?;
        let serving = server.clone();
        services.start("apiserver", |stop| async move {
            serving.serve(listener, tls, stop).await;
            Ok(())
        });
        let reader = UserInfo::new("system:apiserver", ["system:masters", AUTHENTICATED]);
        let transport = server.in_process(reader);
        let informers_stop = CancellationToken::new();
        let informers = Informers::new(Client::new(transport, "informers"), informers_stop.clone());
        services.start("informers", |stop| async move {
            stop.cancelled().await;
            informers_stop.cancel();
            Ok(())
        });
        Ok(Api { server, informers, figures, address })
    }

    async fn open_store(&self, services: &mut Services) -> anyhow::Result<Store> {
        let store = self.opened_store().await?;
        if let Some(encryption) = self.encryption.clone().filter(|_| self.encryption_reload) {
            let store = store.clone();
            services.start("encryption-config", |stop| encryption_reload::run(encryption, store, stop));
        }
        Ok(store)
    }

    async fn opened_store(&self) -> anyhow::Result<Store> {
        if let Some(etcd) = &self.etcd {
            let mut config = etcd.clone();
            if let Some(encryption) = &self.encryption {
                config.transformer = encryption.clone();
            }
            let servers = config.servers.servers.join(", ");
            return Store::open_etcd(config).await.with_context(|| format!("cannot use etcd at {servers}"));
        }
        let path = self.layout.store();
        let mut config = store::Config::new(path.clone());
        if let Some(encryption) = &self.encryption {
            config.transformer = encryption.clone();
        }
        Store::open(config).await.with_context(|| format!("cannot open the store in {}", path.display()))
    }

    fn config(&self, access: Access, keeper: &mut Keeper) -> anyhow::Result<apiserver::Config> {
        let advertise = SocketAddr::new(self.node_ip, self.settings.secure_port);
        let mut ranges = self.settings.service_cidrs.iter().map(|range| range.to_string().parse::<Cidr>());
        let primary = ranges.next().context("the settings name no range of Services")??;
        let mut config = apiserver::Config::new(advertise, primary);
        config.secondary_service_cidr = ranges.next().transpose()?;
        config.node_ports = self.settings.node_ports.0..=self.settings.node_ports.1;
        config.admission = self.admission.clone();
        config.runs_control_plane = self.runs_deciders;
        config.anonymous_auth = self.anonymous_auth;
        config.tokens = self.tokens.clone();
        config.requests_in_flight_max = self.requests_in_flight_max;
        config.set_features(self.features.clone());
        config.request_timeout = self.request_timeout;
        config.flags = self.flags.clone();
        config.encryption = self.encryption.clone();
        config.enablement = self.enablement.clone();
        config.set_verbosity = self.profiling.then(logging::setter);
        config.client_ca = Some(self.pki.ca_certificate().to_owned());
        let leaf =
            Leaf::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"]);
        let certificate = kept(keeper, self.pki, leaf)?;
        config.kubelet_tls = Some(trusting(self.pki).tls_showing(Some(certificate))?);
        config.authorization = access.authorization;
        config.authentication = access.authentication;
        let (front_proxy, believed) = self.front_proxy(keeper)?;
        config.front_proxy = Some(front_proxy);
        let given = config.authentication.request_header.take();
        config.authentication.request_header = Some(joined(believed, given));
        Ok(config)
    }

    /// An authority of its own: whoever it certifies may speak for anybody, which no other certificate allows.
    fn front_proxy(&self, keeper: &mut Keeper) -> anyhow::Result<(FrontProxy, FrontProxies)> {
        let pki = Arc::new(Pki::open(&self.layout.front_proxy_pki(), "front-proxy", Timestamp::now())?);
        let certificate = kept(keeper, &pki, Leaf::client("client", FRONT_PROXY_CLIENT, &[]))?;
        let one = |name: &str| vec![name.to_owned()];
        let headers = RequestHeader {
            allowed_names: one(FRONT_PROXY_CLIENT),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_headers_prefix: one("X-Remote-Extra-"),
        };
        Ok((certificate, FrontProxies { authority: pki.ca_certificate().to_owned(), headers }))
    }

    /// The name under which the cluster signs its own tokens.
    pub fn issuer_name(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.settings.cluster_domain)
    }

    fn issuer(&self) -> anyhow::Result<Issuer> {
        let key = self.pki.service_account_key(SigningKey::generate_pem)??;
        Ok(Issuer::new(self.issuer_name(), Vec::new(), SigningKey::from_pem(key.as_bytes())?))
    }

    fn serving_tls(&self, config: &apiserver::Config, keeper: &mut Keeper) -> anyhow::Result<SharedTls> {
        let domain = &self.settings.cluster_domain;
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let mut names = service.to_vec();
        names.extend([
            format!("kubernetes.default.svc.{domain}"),
            "localhost".to_owned(),
            self.settings.node_name.clone(),
        ]);
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        addresses.extend(self.settings.api_service_ips());
        addresses.push(self.node_ip);
        let leaf = Leaf::server("apiserver", "kube-apiserver", names, addresses);
        let certificate = kept(keeper, self.pki, leaf)?;
        let proxies = config.authentication.request_header.as_ref();
        let authorities = Authorities {
            clients: self.pki.ca_certificate().as_bytes(),
            front_proxies: proxies.map_or(&[], |proxies| proxies.authority.as_bytes()),
        };
        Ok(apiserver::tls::shared(Serving::showing(certificate, authorities)?))
    }

    /// Starts the controllers and the scheduler.
    pub fn start_deciders(&self, services: &mut Services, api: &Api) {
        let config = controllers::Config {
            root_ca: self.pki.ca_certificate().to_owned(),
            signing: Some(controllers::SigningAuthority {
                certificate: self.pki.ca_certificate().to_owned(),
                key: self.pki.ca_key(),
                duration: self.signing_duration,
            }),
            cluster_cidrs: self.settings.cluster_cidrs.clone(),
            node_cidr_mask_sizes: self.node_cidr_mask_sizes,
            disabled: disabled_controllers(self.ingress),
            queues: api.figures.queues.clone(),
            jobs: api.figures.jobs.clone(),
        };
        let (clients, informers) = (api.clone(), api.informers.clone());
        let manager =
            api.client(UserInfo::new("system:kube-controller-manager", [AUTHENTICATED]), CONTROLLER_MANAGER);
        let elector = self.elector(&manager, CONTROLLER_MANAGER, CONTROLLER_MANAGER);
        services.start("controller-manager", |stop| async move {
            let client_for =
                |name: &'static str| clients.client(UserInfo::service_account("kube-system", name, ""), name);
            leader::work(elector, stop, |stop| controllers::run(&config, client_for, &informers, stop)).await;
            Ok(())
        });
        let client = api.client(UserInfo::new("system:kube-scheduler", [AUTHENTICATED]), SCHEDULER);
        let elector = self.elector(&client, scheduler::DEFAULT_SCHEDULER_NAME, SCHEDULER);
        let (informers, metrics) = (api.informers.clone(), api.figures.scheduler.clone());
        services.start("scheduler", |stop| async move {
            let run = |stop| scheduler::run(client.clone(), informers.clone(), metrics.clone(), stop);
            leader::work(elector, stop, run).await;
            Ok(())
        });
    }

    fn elector(&self, client: &Client, component: &str, lease: &str) -> Option<Elector> {
        self.election.as_ref().map(|election| election.elector(client.clone(), component, lease))
    }
}

/// The controllers that do not run, by what is wanted of them.
pub fn disabled_controllers(ingress: bool) -> Vec<&'static str> {
    if ingress { Vec::new() } else { vec!["ingress-controller"] }
}

/// An identity that is replaced where it is used when it is renewed.
pub fn kept(keeper: &mut Keeper, pki: &Arc<Pki>, leaf: Leaf) -> anyhow::Result<Arc<Replaceable>> {
    let identity = pki.identity(&leaf, Timestamp::now())?;
    let used = Replaceable::new(identity.certificate.as_bytes(), identity.key.as_bytes())?;
    let replaced = used.clone();
    let replace = move |identity: &Identity| {
        Ok(replaced.replace(identity.certificate.as_bytes(), identity.key.as_bytes())?)
    };
    keeper.keep(pki, leaf, Timestamp::now(), replace)?;
    Ok(used)
}

/// The cluster's own front proxies and those that the operator adds. All read the headers of both.
fn joined(own: FrontProxies, given: Option<FrontProxies>) -> FrontProxies {
    let Some(given) = given else { return own };
    let both = |own: Vec<String>, given: Vec<String>| {
        let more = given.into_iter().filter(|name| !own.contains(name)).collect::<Vec<_>>();
        [own, more].concat()
    };
    let (own_headers, given_headers) = (own.headers, given.headers);
    // No names at all mean every name.
    let allows_any = given_headers.allowed_names.is_empty();
    let allowed = both(own_headers.allowed_names, given_headers.allowed_names);
    FrontProxies {
        authority: format!("{}{}", own.authority, given.authority),
        headers: RequestHeader {
            allowed_names: if allows_any { Vec::new() } else { allowed },
            username_headers: both(own_headers.username_headers, given_headers.username_headers),
            uid_headers: both(own_headers.uid_headers, given_headers.uid_headers),
            group_headers: both(own_headers.group_headers, given_headers.group_headers),
            extra_headers_prefix: both(own_headers.extra_headers_prefix, given_headers.extra_headers_prefix),
        },
    }
}

/// How to reach whoever has a certificate of the cluster's authority.
fn trusting(pki: &Pki) -> RestConfig {
    RestConfig { certificate_authority: pki.ca_certificate().as_bytes().to_vec(), ..RestConfig::default() }
}
