//! One node: container runtime, kubelet, pod network, service proxy, DNS and ingress proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use api::resource::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::core::Node;
use apimachinery::meta::StringMap;
use apimachinery::{Value, json};
use apiserver::features::Features;
use client::zpages::{Flags, Pages};
use client::{CancellationToken, Client, Informers, PatchType, RestMetrics};
use cluster::Layout;
use ipnet::IpNet;
use kubelet::KubeletConfiguration;
use kubelet::certificate::Shown;
use runtime::{CriClients, Runtime};
use tokio::sync::{oneshot, watch};

use super::Services;
use super::image_directory;
use super::pod_network::{BuiltIn, Detached, Plugins};
use crate::cli::features;
use crate::logging;

/// Where cluster DNS answers on each node.
const DNS_PORT: u16 = 53;

/// Where it tells its figures, as CoreDNS does.
const DNS_METRICS_PORT: u16 = 9153;

/// Everything a node is made of, before it runs.
pub struct Plan {
    pub layout: Layout,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Its address of the other family, in a cluster of both.
    pub node_ip_other: Option<IpAddr>,
    /// Of the names that DNS answers.
    pub cluster_domain: String,
    /// Pods here and elsewhere; empty means only this node's.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// Of the kubelet's own API.
    pub kubelet_tls: Arc<rustls::ServerConfig>,
    /// The kubelet's certificates, where they can be replaced.
    pub shown: Shown,
    /// Where the built-in runtime's images come from.
    pub images: ImagePlan,
    /// Folder of CNI configurations and those of plugins, instead of the built-in pod network.
    pub cni: Option<(PathBuf, Vec<PathBuf>)>,
    /// Whether the node offers directories as volumes.
    pub local_path: bool,
    /// Ports for HTTP and HTTPS of Ingresses, if they are served here.
    pub ingress: Option<(u16, u16)>,
    /// By what the kubelet goes.
    pub kubelet: KubeletConfiguration,
    /// The kubelet's folder.
    pub kubelet_root: PathBuf,
    pub node_labels: StringMap,
    /// Whether network policies, proxy and DNS run here too.
    pub services_on_node: bool,
    /// Whether that proxy is ours, or none because another one serves Services here.
    pub proxy: bool,
    /// Of this process, which its parts show.
    pub flags: Flags,
}

/// As what the proxy makes itself known.
pub const KUBE_PROXY: &str = "kube-proxy";

/// Where the built-in runtime's images come from.
pub struct ImagePlan {
    /// `registries.yaml`.
    pub registries: PathBuf,
    /// Folder of archives.
    pub archives: PathBuf,
}

/// The built-in runtime's settings, with the network it is to use.
fn runtime_config(
    layout: &Layout,
    registries: PathBuf,
    network: Arc<dyn runtime::PodNetwork>,
) -> anyhow::Result<runtime::Config> {
    Ok(runtime::Config {
        data_dir: layout.runtime(),
        state_dir: layout.run().join("runtime"),
        cgroup_root: layout.cgroup(),
        shim: std::env::current_exe().context("cannot find this program's own file")?,
        network,
        registries,
    })
}

/// Starts the runtime on its socket, with the images that lie ready for it.
pub async fn start_built_in(
    layout: &Layout,
    images: &ImagePlan,
    network: Arc<dyn runtime::PodNetwork>,
    services: &mut Services,
) -> anyhow::Result<Arc<Runtime>> {
    let runtime = Runtime::open(runtime_config(layout, images.registries.clone(), network)?).await?;
    let (taking, archives) = (runtime.clone(), images.archives.clone());
    services.start("images", |stop| image_directory::run(taking, archives, stop));
    let (serving, listener) = (runtime.clone(), runtime::listen(&layout.cri_socket())?);
    services.start("runtime", |stop| async move {
        let served = serving.clone().serve(listener, stop).await;
        serving.close();
        Ok(served?)
    });
    Ok(runtime)
}

/// The pod network that plugins make.
pub fn plugins(layout: &Layout, conf_dir: &Path, bin_dirs: &[PathBuf]) -> Arc<dyn runtime::PodNetwork> {
    let state_dir = layout.network().join("cni");
    let (conf_dir, bin_dirs) = (conf_dir.to_owned(), bin_dirs.to_vec());
    Arc::new(Plugins(network::cni::Cni::new(network::cni::Config { conf_dir, bin_dirs, state_dir })))
}

/// Stops and removes every pod of the node.
pub async fn remove_pods(layout: &Layout) -> anyhow::Result<()> {
    // Nothing is pulled: whatever the user's file says, and be it nonsense, pods can be removed.
    let registries = PathBuf::new();
    let runtime = Runtime::open(runtime_config(layout, registries, Arc::new(Detached))?).await?;
    let removed = runtime.teardown_all().await;
    runtime.close();
    Ok(removed?)
}

/// Where the pod network keeps what it gave out.
pub fn network_state(layout: &Layout) -> PathBuf {
    layout.network().join("pods.json")
}

/// The node's ways to the API, each under its own identity.
pub struct Clients {
    pub kubelet: Client,
    /// What the kubelet's requests are measured by.
    pub kubelet_requests: Arc<RestMetrics>,
    pub proxy: Informers,
    pub dns: Informers,
    /// Secrets are read with the client.
    pub ingress: (Client, Informers),
}

/// A started node.
pub struct Started {
    /// Absent with another CRI runtime.
    pub runtime: Option<Arc<Runtime>>,
    /// The node's own addresses in the pod network, one per family, where DNS answers.
    pub dns_addresses: Vec<IpAddr>,
    /// Why Ingresses are not served though they should be; a node is useful without that.
    pub ingress_error: Option<ingress::Error>,
}

/// What the operator is told then.
pub fn ingress_not_served(error: &ingress::Error) -> String {
    format!(
        "Ingresses are not served here: cannot {error}; choose others with --ingress-http-port and --ingress-https-port"
    )
}

impl Plan {
    pub async fn start(self, services: &mut Services, clients: Clients) -> anyhow::Result<Started> {
        let (network, known_network) = watch::channel(None);
        let (cri, runtime) = self.start_runtime(services, known_network.clone()).await?;
        let gates = self.kubelet.feature_gates.iter().map(|(name, on)| format!("{name}={on}"));
        let features = features(&gates.collect::<Vec<_>>()).context("featureGates of the kubelet")?;
        let ready = self.start_kubelet(services, &clients, features, cri);
        if ready.await.is_err() {
            // It has ended without saying that it is ready: its error says why.
            return Err(services.failed().await);
        }
        let nodes = clients.proxy.get_selected::<Node>(NODES, &format!("metadata.name={}", self.node_name));
        let pod_cidrs = tokio::select! {
            cidrs = pod_cidrs(nodes) => cidrs,
            error = services.failed() => return Err(error),
        };
        let dns_addresses = match &self.cni {
            // Plugins have their own idea of who has which address; the node's is sure to be its own.
            Some(_) => vec![self.node_ip],
            None => {
                let started = network::PodNetwork::start(self.network_config(pod_cidrs.clone())).await?;
                network.send_replace(Some(started.clone()));
                self.start_ways(services, clients.proxy.clone(), started.clone());
                services.start("pod-network", |stop| async move {
                    Ok(started.keep(stop.cancelled_owned()).await?)
                });
                pod_cidrs.iter().map(|cidr| network::ipam::gateway(*cidr)).collect()
            }
        };
        if self.services_on_node {
            self.start_policy(services, clients.proxy.clone());
            if self.proxy {
                self.start_proxy(services, clients.proxy, &pod_cidrs, &dns_addresses);
            } else {
                // Another one cannot serve what the rules of an earlier start take from it.
                network::proxy::teardown(self.layout.name())?;
            }
            self.start_dns(services, clients.dns, &dns_addresses);
        }
        let ingress_error = self.start_ingress(services, clients.ingress).await.err();
        Ok(Started { runtime, dns_addresses, ingress_error })
    }

    async fn start_runtime(
        &self,
        services: &mut Services,
        network: watch::Receiver<Option<network::PodNetwork>>,
    ) -> anyhow::Result<(CriClients, Option<Arc<Runtime>>)> {
        let (endpoint, images) =
            (&self.kubelet.container_runtime_endpoint, &self.kubelet.image_service_endpoint);
        if !endpoint.is_empty() {
            let mut clients = runtime::connect(endpoint).await?;
            if !images.is_empty() {
                clients.images = runtime::connect(images).await?.images;
            }
            return Ok((clients, None));
        }
        anyhow::ensure!(
            images.is_empty(),
            "imageServiceEndpoint {images:?} needs a containerRuntimeEndpoint: the built-in runtime has its own images"
        );
        let pods: Arc<dyn runtime::PodNetwork> = match &self.cni {
            Some((conf_dir, bin_dirs)) => plugins(&self.layout, conf_dir, bin_dirs),
            None => Arc::new(BuiltIn::new(network)),
        };
        let runtime = start_built_in(&self.layout, &self.images, pods, services).await?;
        Ok((runtime.clone().in_process(), Some(runtime)))
    }

    fn kubelet_port(&self) -> u16 {
        u16::try_from(self.kubelet.port).expect("the configuration is validated")
    }

    fn start_kubelet(
        &self,
        services: &mut Services,
        clients: &Clients,
        features: Features,
        cri: CriClients,
    ) -> oneshot::Receiver<()> {
        let config = kubelet::Config {
            node_name: self.node_name.clone(),
            node_ip: self.node_ip,
            node_ip_other: self.node_ip_other,
            root_dir: self.kubelet_root.clone(),
            local_path_root: self.local_path.then(|| self.kubelet_root.join("local-path")),
            node_labels: self.node_labels.clone(),
            tls: self.kubelet_tls.clone(),
            shown: self.shown.clone(),
            version: apimachinery::version::GIT_VERSION.to_owned(),
            kubelet: self.kubelet.clone(),
            pages: features.pages("kubelet", self.flags.clone()),
            set_verbosity: logging::setter(),
            figures: vec![clients.kubelet_requests.clone(), Arc::new(features)],
        };
        let (told, ready) = oneshot::channel();
        let client = clients.kubelet.clone();
        services.start_patiently("kubelet", self.kubelet.shutdown().total(), |stop| async move {
            let informers = Informers::new(client.clone(), stop.clone());
            let tell = || {
                if told.send(()).is_err() {
                    tracing::debug!("nobody waits for the kubelet");
                }
            };
            Ok(kubelet::run(config, client, informers, cri, stop, tell).await?)
        });
        ready
    }

    fn network_config(&self, pod_cidrs: Vec<IpNet>) -> network::pod_network::Config {
        let cluster_cidrs =
            if self.cluster_cidrs.is_empty() { pod_cidrs.clone() } else { self.cluster_cidrs.clone() };
        network::pod_network::Config {
            cluster: self.layout.name().to_owned(),
            pod_cidrs,
            cluster_cidrs,
            service_cidrs: self.service_cidrs.clone(),
            node_ip: Some(self.node_ip),
            addresses: Vec::new(),
            state_file: network_state(&self.layout),
        }
    }

    /// To other nodes' pods.
    fn start_ways(&self, services: &mut Services, informers: Informers, network: network::PodNetwork) {
        let node_name = self.node_name.clone();
        services.start("nodes", |stop| async move {
            Ok(network::nodes::run(informers, network, node_name, stop).await?)
        });
    }

    fn start_policy(&self, services: &mut Services, informers: Informers) {
        let config = network::policy::Config {
            cluster: self.layout.name().to_owned(),
            node_name: self.node_name.clone(),
        };
        services.start("network-policy", |stop| async move {
            Ok(network::policy::run(informers, config, stop).await?)
        });
    }

    fn start_proxy(
        &self,
        services: &mut Services,
        informers: Informers,
        pod_cidrs: &[IpNet],
        dns_addresses: &[IpAddr],
    ) {
        let pods = if self.cluster_cidrs.is_empty() { pod_cidrs } else { &self.cluster_cidrs };
        let networks = network::proxy::Networks {
            pods: pods.to_vec(),
            services: self.service_cidrs.clone(),
            node_ports: Vec::new(),
        };
        // At the distance from the kubelet's port that upstream's have, so that several nodes fit on a machine.
        let port = self.kubelet_port();
        let [healthz, metrics] = [port.saturating_add(6), port.saturating_sub(1)];
        let config = network::proxy::Config {
            cluster: self.layout.name().to_owned(),
            node_name: self.node_name.clone(),
            networks,
            dns: if self.kubelet.cluster_dns.is_empty() { Vec::new() } else { dns_addresses.to_vec() },
            healthz_address: Some((std::net::Ipv4Addr::UNSPECIFIED, healthz).into()),
            metrics_address: Some((std::net::Ipv4Addr::LOCALHOST, metrics).into()),
            pages: Pages::new(KUBE_PROXY, self.flags.clone()),
        };
        services
            .start("proxy", |stop| async move { Ok(network::proxy::run(informers, config, stop).await?) });
    }

    async fn start_ingress(
        &self,
        services: &mut Services,
        (client, informers): (Client, Informers),
    ) -> Result<(), ingress::Error> {
        let Some((http_port, https_port)) = self.ingress else { return Ok(()) };
        // At the distance from the kubelet's port that ingress-nginx' has from upstream's.
        let metrics_port = Some(self.kubelet_port().saturating_add(4));
        let bound = ingress::Bound::bind(ingress::Config { http_port, https_port, metrics_port }).await?;
        services.start("ingress", |stop| async move { Ok(bound.run(client, informers, stop).await?) });
        Ok(())
    }

    fn start_dns(&self, services: &mut Services, informers: Informers, addresses: &[IpAddr]) {
        if self.kubelet.cluster_dns.is_empty() || addresses.is_empty() {
            return;
        }
        let config = network::dns::Config {
            listen: addresses.iter().map(|address| SocketAddr::new(*address, DNS_PORT)).collect(),
            domain: self.cluster_domain.clone(),
            resolv_conf: "/etc/resolv.conf".into(),
            metrics_address: Some(SocketAddr::new(addresses[0], DNS_METRICS_PORT)),
        };
        services.start("dns", |stop| async move { Ok(network::dns::run(informers, config, stop).await?) });
    }
}

/// Waits until the cluster has given the node its addresses.
async fn pod_cidrs(nodes: client::Informer<Node>) -> Vec<IpNet> {
    let mut changes = nodes.subscribe();
    while let Some(delta) = changes.recv().await {
        let cidrs = network::nodes::pod_cidrs(delta.object());
        if !cidrs.is_empty() {
            return cidrs;
        }
    }
    Vec::new()
}

/// Makes the DNS Service lead to this node's DNS; addresses are one or one per family.
pub async fn publish_dns(
    admin: &Client,
    service_ips: &[IpAddr],
    endpoints: &[IpAddr],
) -> Result<(), client::Error> {
    let labels = json!({"k8s-app": DNS_NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let ips: Vec<String> = service_ips.iter().map(IpAddr::to_string).collect();
    let policy = if ips.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    let service = json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": DNS_NAME, "namespace": DNS_NAMESPACE, "labels": labels},
        "spec": {"clusterIP": ips[0], "clusterIPs": ips, "ipFamilyPolicy": policy, "ports": dns_ports("port")},
    });
    admin.patch(SERVICES, DNS_NAMESPACE, DNS_NAME, None, PatchType::Apply, &service).await?;
    for endpoint in endpoints {
        let (name, slice) = dns_slice(&labels, *endpoint);
        admin.patch(ENDPOINT_SLICES, DNS_NAMESPACE, name, None, PatchType::Apply, &slice).await?;
    }
    Ok(())
}

const DNS_NAMESPACE: &str = "kube-system";
const DNS_NAME: &str = "kube-dns";

fn dns_ports(key: &str) -> Value {
    json!([{"name": "dns", "protocol": "UDP", key: DNS_PORT}, {"name": "dns-tcp", "protocol": "TCP", key: DNS_PORT}])
}

fn dns_slice(labels: &Value, endpoint: IpAddr) -> (&'static str, Value) {
    let (name, family) = if endpoint.is_ipv4() { (DNS_NAME, "IPv4") } else { ("kube-dns-ipv6", "IPv6") };
    let mut labels = labels.clone();
    labels["kubernetes.io/service-name"] = DNS_NAME.into();
    labels["endpointslice.kubernetes.io/managed-by"] = network::proxy::DNS_MANAGER.into();
    let slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name, "namespace": DNS_NAMESPACE, "labels": labels},
        "addressType": family, "ports": dns_ports("port"),
        "endpoints": [{"addresses": [endpoint.to_string()], "conditions": {"ready": true, "serving": true, "terminating": false}}],
    });
    (name, slice)
}

/// Where HTTP and HTTPS are expected.
pub const INGRESS_PORTS: (u16, u16) = (80, 443);

/// Waits until the node is Ready in the API.
pub async fn node_ready(informers: &Informers, node_name: &str, stop: &CancellationToken) -> bool {
    let nodes = informers.get_selected::<Node>(NODES, &format!("metadata.name={node_name}"));
    let mut changes = nodes.subscribe();
    let wait = async {
        while let Some(delta) = changes.recv().await {
            let ready = apimachinery::meta::find_condition(&delta.object().status.conditions, "Ready");
            if ready.is_some_and(|condition| condition.is_true()) {
                return true;
            }
        }
        false
    };
    stop.run_until_cancelled(wait).await.unwrap_or(false)
}
