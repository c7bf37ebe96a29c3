//! Single components against any API server: `cox scheduler`, `cox controller-manager`, `cox kubelet`, `cox proxy`,
//! `cox dns`, and `cox agent`, a whole node. `cox runtime` needs no API server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use client::config::RestConfig;
use client::transport::Https;
use client::{CancellationToken, Client, Informers, ServiceAccount};
use network::{dns, proxy};

use super::status::client_of;
use crate::cli::{AgentArgs, ComponentArgs, ControllerManagerArgs, DnsArgs, ProxyArgs, RuntimeAloneArgs};
use crate::progress::Progress;
use crate::services::{Services, control_plane, interrupted, node};
use crate::{control, logging, memory};

/// Runs one service until Ctrl-C.
fn run_one<F>(
    args: &ComponentArgs,
    name: &'static str,
    run: impl FnOnce(Informers, CancellationToken) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    logging::start(args.verbose);
    let (client, _) = client_of(&args.kubeconfig, name)?;
    super::block_on(async {
        memory::return_in_background();
        let informers = Informers::new(client, CancellationToken::new());
        let mut services = Services::default();
        services.start(name, |stop| run(informers, stop));
        until_interrupted(services).await
    })
}

async fn until_interrupted(mut services: Services) -> anyhow::Result<ExitCode> {
    let outcome = tokio::select! {
        interrupted = interrupted() => interrupted,
        error = services.failed() => Err(error),
    };
    services.stop().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

pub fn scheduler(args: ComponentArgs) -> anyhow::Result<ExitCode> {
    let (client, _) = client_of(&args.kubeconfig, "kube-scheduler")?;
    run_one(&args, "kube-scheduler", |informers, stop| async move {
        scheduler::run(client, informers, stop).await;
        Ok(())
    })
}

pub fn controller_manager(args: ControllerManagerArgs) -> anyhow::Result<ExitCode> {
    let (client, config) = client_of(&args.component.kubeconfig, "kube-controller-manager")?;
    let root_ca = match &args.root_ca_file {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?
        }
        None => String::from_utf8(config.certificate_authority.clone())
            .context("the certificate authority is not PEM")?,
    };
    let without_identity =
        RestConfig { client_certificate: None, client_key: None, bearer_token: None, ..config };
    let anonymous = Https::new(&without_identity)?;
    let signing = match (&args.cluster_signing_cert_file, &args.cluster_signing_key_file) {
        (Some(certificate), Some(key)) => {
            Some(controllers::SigningAuthority { certificate: read(certificate)?, key: read(key)? })
        }
        _ => None,
    };
    let (cluster_cidrs, disabled) = (args.cluster_cidr, control_plane::disabled_controllers(args.ingress));
    run_one(&args.component, "kube-controller-manager", |informers, stop| async move {
        let config = controllers::Config { root_ca, signing, cluster_cidrs, disabled };
        let client_for = |account: &'static str| {
            let transport = ServiceAccount::new(client.clone(), anonymous.clone(), "kube-system", account);
            Client::new(transport, account)
        };
        controllers::run(&config, client_for, &informers, stop).await;
        Ok(())
    })
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn node_name(given: Option<String>) -> String {
    given.unwrap_or_else(cluster::address::hostname)
}

pub fn runtime(args: RuntimeAloneArgs) -> anyhow::Result<ExitCode> {
    logging::start(args.verbose);
    let layout = args.cluster.layout()?;
    let (conf_dir, bin_dirs) = args
        .network
        .cni()
        .context("a runtime alone has no network of its own; name that of CNI plugins with --cni-conf-dir")?;
    super::block_on(async {
        memory::return_in_background();
        let _lock = cluster::lock::Lock::take(&layout.lock())?;
        let mut services = Services::default();
        let network = node::plugins(&layout, &conf_dir, &bin_dirs);
        let runtime =
            node::start_built_in(&layout, &args.images.plan(&layout), network, &mut services).await?;
        let listener = control::listen(&layout)?;
        services.start("control", |stop| control::serve(listener, Some(runtime), stop));
        Progress::on_terminal().step(&format!("the runtime answers at {}", layout.cri_socket().display()));
        until_interrupted(services).await
    })
}

pub fn proxy(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let config = proxy::Config {
        cluster: args.name,
        node_name: node_name(args.node_name),
        networks: proxy::Networks {
            pods: args.cluster_cidr,
            services: args.service_cluster_ip_range,
            node_ports: args.nodeport_addresses,
        },
        healthz_address: Some(args.healthz_bind_address),
        metrics_address: Some(args.metrics_bind_address),
    };
    run_one(&args.component, "kube-proxy", |informers, stop| async move {
        Ok(proxy::run(informers, config, stop).await?)
    })
}

pub fn dns(args: DnsArgs) -> anyhow::Result<ExitCode> {
    let config = dns::Config {
        listen: args.listen,
        domain: args.cluster_domain,
        resolv_conf: "/etc/resolv.conf".into(),
        metrics_address: args.metrics_bind_address,
    };
    run_one(
        &args.component,
        "dns",
        |informers, stop| async move { Ok(dns::run(informers, config, stop).await?) },
    )
}

/// How much of a node this process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    Node,
    /// Proxy and DNS come from elsewhere.
    KubeletAlone,
}

pub fn agent(args: AgentArgs, parts: Agent) -> anyhow::Result<ExitCode> {
    logging::start(args.component.verbose);
    let layout = args.cluster.layout()?;
    let (client, _) = client_of(&args.component.kubeconfig, "kubelet")?;
    let own = |path: &Option<PathBuf>, agent: &str| match path {
        Some(path) => client_of(path, agent).map(|(client, _)| client),
        None => Ok(client.clone()),
    };
    let ingress = own(&args.ingress_kubeconfig, "ingress")?;
    let (proxy, dns) = (own(&args.proxy_kubeconfig, "kube-proxy")?, own(&args.dns_kubeconfig, "dns")?);
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let tls = apiserver::tls::server_config(
        &read(&args.tls_cert_file)?,
        &read(&args.tls_private_key_file)?,
        &read(&args.client_ca_file)?,
    )?;
    let node_ip = args.node_ip.or_else(cluster::address::outward);
    let plan = node::Plan {
        node_name: node_name(args.node_name),
        node_ip: node_ip.context("this machine's address cannot be found; give it with --node-ip")?,
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain,
        cluster_cidrs: args.cluster_cidr,
        service_cidrs: args.service_cluster_ip_range,
        kubelet_port: args.port,
        kubelet_tls: Arc::new(tls),
        runtime: args.runtime.plan(&layout),
        cni: args.cluster_network.cni(),
        ingress: args.ingress.ports(node::INGRESS_PORTS).filter(|_| parts == Agent::Node),
        kubelet: args.kubelet.settings(),
        local_path: parts == Agent::Node && args.storage.local_path,
        services_on_node: parts == Agent::Node,
        layout: layout.clone(),
    };
    super::block_on(async {
        memory::return_in_background();
        let _lock = cluster::lock::Lock::take(&layout.lock())?;
        let informers = |client: Client| Informers::new(client, CancellationToken::new());
        let clients = node::Clients {
            kubelet: client,
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
