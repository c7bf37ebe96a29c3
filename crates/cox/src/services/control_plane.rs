//! API server, controllers and scheduler of one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use apiserver::audit::Auditor;
use apiserver::audit::policy::Policy;
use apiserver::audit::sink::{Backend, Mode};
use apiserver::{AdmissionPlugins, ApiServer, Cidr, FRONT_PROXY_CLIENT, FrontProxy, GroupServed};
use auth::UserInfo;
use auth::jwt::SigningKey;
use auth::serviceaccount::Issuer;
use auth::tokenfile::TokenFile;
use client::{CancellationToken, Client, Informers};
use cluster::pki::{Identity, Pki, Usage};
use cluster::{Layout, Settings};
use jiff::Timestamp;
use store::Store;
use tokio::net::TcpListener;

use super::Services;

/// Everything a control plane is made of, before it runs.
pub struct Plan<'a> {
    pub layout: &'a Layout,
    pub settings: &'a Settings,
    pub pki: &'a Pki,
    pub node_ip: IpAddr,
    pub admission: AdmissionPlugins,
    /// Whether Ingresses get addresses here.
    pub ingress: bool,
    pub anonymous_auth: bool,
    pub tokens: TokenFile,
    pub requests_in_flight_max: u32,
}

/// A started API server, and ways into it.
#[derive(Clone)]
pub struct Api {
    server: Arc<ApiServer>,
    /// What all components of this process share.
    pub informers: Informers,
}

impl Api {
    /// A client under the given identity.
    pub fn client(&self, user: UserInfo, agent: &str) -> Client {
        Client::new(self.server.in_process(user), agent)
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

pub const AUTHENTICATED: &str = "system:authenticated";

impl Plan<'_> {
    /// Opens the store and starts the API server.
    pub async fn start_api(
        &self,
        services: &mut Services,
        auditing: Option<(Policy, Vec<(Backend, Mode)>)>,
    ) -> anyhow::Result<Api> {
        let store = Store::open(store::Config::new(self.layout.store())).await;
        let store =
            store.with_context(|| format!("cannot open the store in {}", self.layout.store().display()))?;
        let mut config = self.config()?;
        if let Some((policy, backends)) = auditing {
            let auditor = Auditor::new(policy, backends, config.clock.clone());
            config.auditor = Some(auditor.clone());
            services.start("audit", |stop| async move {
                stop.cancelled().await;
                auditor.close().await;
                Ok(())
            });
        }
        let server = Arc::new(ApiServer::start(config, self.issuer()?, store).await?);
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.settings.secure_port));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("API server cannot listen on {listen}"))?;
        let tls = apiserver::tls::shared(self.serving_tls()?);
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
        Ok(Api { server, informers })
    }

    fn config(&self) -> anyhow::Result<apiserver::Config> {
        let advertise = SocketAddr::new(self.node_ip, self.settings.secure_port);
        let service_cidr: Cidr = self.settings.service_cidr.to_string().parse()?;
        let mut config = apiserver::Config::new(advertise, service_cidr);
        config.secondary_service_cidr =
            self.settings.service_cidr_v6.map(|cidr| cidr.to_string().parse()).transpose()?;
        config.node_ports = self.settings.node_ports.0..=self.settings.node_ports.1;
        config.admission = self.admission.clone();
        config.anonymous_auth = self.anonymous_auth;
        config.tokens = self.tokens.clone();
        config.requests_in_flight_max = self.requests_in_flight_max;
        let usage = Usage::Client { groups: &["system:masters"] };
        let identity = self.pki.identity(
            "apiserver-kubelet-client",
            "kube-apiserver-kubelet-client",
            &usage,
            Timestamp::now(),
        )?;
        config.client_ca = Some(self.pki.ca_certificate().to_owned());
        config.front_proxy = Some(self.front_proxy()?);
        config.kubelet_tls = Some(rest_config(String::new(), self.pki, &identity).tls()?);
        Ok(config)
    }

    /// An authority of its own: whoever it certifies may speak for anybody, which no other certificate allows.
    fn front_proxy(&self) -> anyhow::Result<FrontProxy> {
        let pki = Pki::open(&self.layout.front_proxy_pki(), "front-proxy", Timestamp::now())?;
        let usage = Usage::Client { groups: &[] };
        let identity = pki.identity("client", FRONT_PROXY_CLIENT, &usage, Timestamp::now())?;
        let authority = pki.ca_certificate().to_owned();
        Ok(FrontProxy { authority, certificate: identity.certificate, key: identity.key })
    }

    fn issuer(&self) -> anyhow::Result<Issuer> {
        let key = self.pki.service_account_key(SigningKey::generate_pem)??;
        let name = format!("https://kubernetes.default.svc.{}", self.settings.cluster_domain);
        Ok(Issuer::new(name, Vec::new(), SigningKey::from_pem(key.as_bytes())?))
    }

    fn serving_tls(&self) -> anyhow::Result<apiserver::tls::Serving> {
        let domain = &self.settings.cluster_domain;
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let mut names = service.to_vec();
        names.extend([
            format!("kubernetes.default.svc.{domain}"),
            "localhost".to_owned(),
            self.settings.node_name.clone(),
        ]);
        let mut addresses = vec![
            Ipv4Addr::LOCALHOST.into(),
            self.settings.api_service_ip().into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ];
        addresses.push(self.node_ip);
        let usage = Usage::Server { names: &names, addresses: &addresses };
        let identity = self.pki.identity("apiserver", "kube-apiserver", &usage, Timestamp::now())?;
        let ca = self.pki.ca_certificate().as_bytes();
        Ok(apiserver::tls::Serving::new(identity.certificate.as_bytes(), identity.key.as_bytes(), ca)?)
    }

    /// Starts the controllers and the scheduler.
    pub fn start_deciders(&self, services: &mut Services, api: &Api) {
        let config = controllers::Config {
            root_ca: self.pki.ca_certificate().to_owned(),
            signing: Some(controllers::SigningAuthority {
                certificate: self.pki.ca_certificate().to_owned(),
                key: self.pki.ca_key(),
            }),
            cluster_cidrs: self.settings.cluster_cidrs(),
            disabled: disabled_controllers(self.ingress),
        };
        let (clients, informers) = (api.clone(), api.informers.clone());
        services.start("controller-manager", |stop| async move {
            let client_for =
                |name: &'static str| clients.client(UserInfo::service_account("kube-system", name, ""), name);
            controllers::run(&config, client_for, &informers, stop).await;
            Ok(())
        });
        let client = api.client(UserInfo::new("system:kube-scheduler", [AUTHENTICATED]), "kube-scheduler");
        let informers = api.informers.clone();
        services.start("scheduler", |stop| async move {
            scheduler::run(client, informers, stop).await;
            Ok(())
        });
    }
}

/// The controllers that do not run, by what is wanted of them.
pub fn disabled_controllers(ingress: bool) -> Vec<&'static str> {
    if ingress { Vec::new() } else { vec!["ingress-controller"] }
}

/// How a client with this identity reaches `server`.
pub fn rest_config(server: String, pki: &Pki, identity: &Identity) -> client::config::RestConfig {
    client::config::RestConfig {
        server,
        certificate_authority: pki.ca_certificate().as_bytes().to_vec(),
        client_certificate: Some(identity.certificate.as_bytes().to_vec()),
        client_key: Some(identity.key.as_bytes().to_vec()),
        bearer_token: None,
    }
}
