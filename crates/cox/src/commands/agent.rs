//! A node alone, against any API server: `cox agent`, and `cox kubelet` where proxy and DNS come from elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use apimachinery::json;
use client::config::RestConfig;
use client::transport::Https;
use client::zpages::Flags;
use client::{CancellationToken, Client, Informers, Measured, RestMetrics};
use cluster::{Layout, kubelet_root};
use jiff::Timestamp;
use kubelet::KubeletConfiguration;
use kubelet::certificate::{Identity, Shown, ShownClient, latest_client};
use kubelet::kubeletconfig::Own;

use super::component::{node_name, until_interrupted};
use super::join;
use super::status::client_of;
use crate::cli::{AgentArgs, given};
use crate::progress::Progress;
use crate::services::{Services, kubelet_tls, node};
use crate::{control, logging, memory};

/// Upstream's `KubeletPort`, and the domain that clusters have by custom.
const PORT: u16 = 10250;
const CLUSTER_DOMAIN: &str = "cluster.local";

/// How much of a node this process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    Node,
    /// Proxy and DNS come from elsewhere.
    KubeletAlone,
}

pub fn agent(mut args: AgentArgs, parts: Agent, flags: Flags) -> anyhow::Result<ExitCode> {
    logging::start(&args.log);
    let layout = args.cluster.layout()?;
    let kubeconfig = match args.kubeconfig.clone() {
        Some(path) => path,
        None => become_member(&mut args, &layout)?,
    };
    let configuration = configuration(&args, &layout)?;
    let kubelet_requests = Arc::default();
    let (kubelet, shown) = kubelet_client(&kubeconfig, &layout, &kubelet_requests)?;
    let own = |path: &Option<PathBuf>, agent: &str| match path {
        Some(path) => client_of(path, agent).map(|(client, _)| client),
        None => Ok(kubelet.clone()),
    };
    let ingress = own(&args.ingress_kubeconfig, "ingress")?;
    let (proxy, dns) = (own(&args.proxy_kubeconfig, "kube-proxy")?, own(&args.dns_kubeconfig, "dns")?);
    let plan = plan(args, parts, flags, layout, configuration, shown)?;
    super::block_on(async {
        memory::return_in_background();
        let layout = plan.layout.clone();
        let _locks = cluster::lock::of_node(&layout)?;
        let informers = |client: Client| Informers::new(client, CancellationToken::new());
        let clients = node::Clients {
            kubelet,
            kubelet_requests,
            proxy: informers(proxy),
            dns: informers(dns),
            ingress: (ingress.clone(), informers(ingress)),
        };
        let mut services = Services::default();
        let started = plan.start(&mut services, clients).await?;
        let (listener, runtime) = (control::listen(&layout)?, started.runtime);
        services.start("control", |stop| control::serve(listener, runtime, stop));
        if let Some(error) = started.ingress_error {
            Progress::on_terminal().step(&node::ingress_not_served(&error));
        }
        Progress::on_terminal().step("node is registered");
        until_interrupted(services).await
    })
}

/// Joins the cluster that the flags name, or goes on in the one that was joined before. What is known from there need not
/// be given. Returns the way to the API server.
fn become_member(args: &mut AgentArgs, layout: &Layout) -> anyhow::Result<PathBuf> {
    let joined = super::block_on_here(join::join(&args.join, args.node_name.as_deref(), layout))?;
    args.node_name = Some(joined.node_name);
    let network = joined.network;
    or_else(&mut args.cluster_cidr, network.cluster_cidrs);
    or_else(&mut args.service_cluster_ip_range, network.service_cidrs);
    or_else(&mut args.cluster_dns, network.cluster_dns);
    args.cluster_domain.get_or_insert(network.cluster_domain);
    args.client_ca_file.get_or_insert(join::authority_file(layout));
    if args.tls_cert_file.is_none() {
        args.kubelet.default_to_signed_certificates();
    }
    // Nodes may not read Secrets of Ingresses: only who is given the right serves them.
    args.ingress.ingress &= args.ingress_kubeconfig.is_some();
    Ok(layout.component_kubeconfig("kubelet"))
}

fn or_else<T>(given: &mut Vec<T>, known: Vec<T>) {
    if given.is_empty() {
        *given = known;
    }
}

fn configuration(args: &AgentArgs, layout: &Layout) -> anyhow::Result<KubeletConfiguration> {
    let own = Own {
        port: PORT,
        cluster_dns: Vec::new(),
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        pod_logs_dir: layout.pod_logs().display().to_string(),
        cgroup_root: layout.cgroup(),
        guest_on_disk_bytes: None,
    };
    let dns = Some(&args.cluster_dns).filter(|addresses| !addresses.is_empty());
    let flags = given([
        ("port", json!(args.port)),
        ("clusterDNS", json!(dns)),
        ("clusterDomain", json!(args.cluster_domain)),
        ("containerRuntimeEndpoint", json!(args.runtime.container_runtime_endpoint)),
        ("tlsCertFile", json!(args.tls_cert_file)),
        ("tlsPrivateKeyFile", json!(args.tls_private_key_file)),
    ]);
    args.kubelet.load(&own, flags)
}

/// The way to the API server, with what may be replaced of it: the certificate of the kubeconfig, or one that the
/// cluster has signed since.
fn kubelet_client(
    kubeconfig: &Path,
    layout: &Layout,
    requests: &Arc<RestMetrics>,
) -> anyhow::Result<(Client, Option<ShownClient>)> {
    let mut config = RestConfig::from_kubeconfig(kubeconfig)?;
    let mut identity = None;
    if let (Some(certificate), Some(key)) = (config.client_certificate.take(), config.client_key.take()) {
        let text = |pem| String::from_utf8(pem).context("the kubeconfig's certificate is not PEM");
        let first = Identity { certificate: text(certificate)?, key: text(key)? };
        let latest = latest_client(&layout.kubelet(), first, Timestamp::now());
        config.client_certificate = Some(latest.certificate.clone().into_bytes());
        config.client_key = Some(latest.key.clone().into_bytes());
        identity = Some(latest);
    }
    let https = Https::new(&config)?;
    let measured = Measured::new(https.clone(), requests, &config.server);
    Ok((Client::new(measured, "kubelet"), identity.map(|first| ShownClient { https, first })))
}

fn plan(
    args: AgentArgs,
    parts: Agent,
    flags: Flags,
    layout: Layout,
    configuration: KubeletConfiguration,
    client: Option<ShownClient>,
) -> anyhow::Result<node::Plan> {
    let client_ca = match &args.client_ca_file {
        Some(path) => std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?,
        None => Vec::new(),
    };
    let tls = kubelet_tls::of(&configuration, None, &client_ca)?;
    let mut node_ips = cluster::address::of_node(&args.node_ip, &args.cluster_cidr).into_iter();
    Ok(node::Plan {
        node_name: node_name(args.node_name),
        node_ip: node_ips.next().context("this machine's address cannot be found; give it with --node-ip")?,
        node_ip_other: node_ips.next(),
        cluster_domain: configuration.cluster_domain.clone(),
        cluster_cidrs: args.cluster_cidr,
        service_cidrs: args.service_cluster_ip_range,
        kubelet_tls: Arc::new(tls.config),
        shown: Shown { serving: tls.serving, client },
        images: args.runtime.images.plan(&layout),
        cni: args.cluster_network.cni(),
        ingress: args.ingress.ports(node::INGRESS_PORTS).filter(|_| parts == Agent::Node),
        kubelet: configuration,
        kubelet_root: kubelet_root::settle(&layout, args.kubelet.root_dir.as_deref())?,
        node_labels: args.kubelet.node_labels.into_iter().collect(),
        local_path: parts == Agent::Node && args.storage.local_path,
        services_on_node: parts == Agent::Node,
        proxy: args.services.proxy,
        flags,
        layout,
    })
}
