//! Single components against any API server: `cox scheduler`, `cox controller-manager`, `cox proxy`, `cox dns`. `cox
//! runtime` needs no API server.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use apiserver::component::Check;
use client::config::RestConfig;
use client::leaderelection::Elector;
use client::transport::Https;
use client::zpages::{Flags, Pages};
use client::{CancellationToken, Client, Informers, Measured, QueueMetrics, RestMetrics, ServiceAccount};
use network::{dns, proxy};

use super::configz;
use super::status::client_of;
use crate::cli::{
    ComponentArgs, ControllerManagerArgs, DnsArgs, OneElectionArgs, ProxyArgs, RuntimeAloneArgs,
    SchedulerArgs,
};
use crate::progress::Progress;
use crate::services::component::{self, Shown};
use crate::services::control_plane::{self, CONTROLLER_MANAGER, SCHEDULER};
use crate::services::node::KUBE_PROXY;
use crate::services::{Services, interrupted, leader, node};
use crate::{control, logging, memory};

/// Where components show how they are, as upstream's do.
const SCHEDULER_PORT: u16 = 10259;
const CONTROLLER_MANAGER_PORT: u16 = 10257;

/// Runs one service until Ctrl-C.
fn run_one<F>(
    args: &ComponentArgs,
    name: &'static str,
    run: impl FnOnce(Informers, CancellationToken) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    logging::start(&args.log);
    let (client, _) = client_of(&args.kubeconfig, name)?;
    super::block_on(serve(client, name, run))
}

async fn serve<F>(
    client: Client,
    name: &'static str,
    run: impl FnOnce(Informers, CancellationToken) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    memory::return_in_background();
    let informers = Informers::new(client, CancellationToken::new());
    let mut services = Services::default();
    services.start(name, |stop| run(informers, stop));
    until_interrupted(services).await
}

/// A component's client, and what it is measured by.
fn measured(args: &ComponentArgs, name: &str) -> anyhow::Result<(Client, Arc<RestMetrics>)> {
    let (config, metrics) = (RestConfig::from_kubeconfig(&args.kubeconfig)?, Arc::default());
    let transport = Measured::new(Https::new(&config)?, &metrics, &config.server);
    Ok((Client::new(transport, name), metrics))
}

pub async fn until_interrupted(mut services: Services) -> anyhow::Result<ExitCode> {
    let outcome = tokio::select! {
        interrupted = interrupted() => interrupted,
        error = services.failed() => Err(error),
    };
    services.stop().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

pub fn scheduler(args: SchedulerArgs, flags: Flags) -> anyhow::Result<ExitCode> {
    logging::start(&args.component.log);
    super::block_on(schedule(args, flags))
}

async fn schedule(args: SchedulerArgs, flags: Flags) -> anyhow::Result<ExitCode> {
    let (client, rest) = measured(&args.component, SCHEDULER)?;
    let elector = elector(&args.leader_election, &client, scheduler::DEFAULT_SCHEDULER_NAME, SCHEDULER)?;
    let (metrics, is_synced) = (Arc::<scheduler::Metrics>::default(), Arc::<AtomicBool>::default());
    let seen = is_synced.clone();
    let handlers = Check {
        name: "sched-handler-sync",
        readiness_only: true,
        passes: Box::new(move || seen.load(Ordering::Relaxed)),
    };
    let shown = Shown {
        name: SCHEDULER,
        default_port: SCHEDULER_PORT,
        checks: component::leader_election(elector.as_ref()).into_iter().chain([handlers]).collect(),
        configz: configz::of_scheduler(&args),
        figures: vec![metrics.clone(), rest],
        flags,
    };
    let (serving, binder) = (args.serving, client.clone());
    let run = |informers: Informers, stop: CancellationToken| async move {
        let waits = informers.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            scheduler::synced(&waits).await;
            is_synced.store(true, Ordering::Relaxed);
        }));
        let run = |stop| scheduler::run(binder.clone(), informers.clone(), metrics.clone(), stop);
        let work = leader::work(elector, stop.clone(), run);
        beside(component::serve(serving, shown, stop.clone()), work, stop).await
    };
    serve(client, SCHEDULER, run).await
}

/// Does the work of a component and serves what it shows; each ends with the other.
async fn beside(
    serving: impl Future<Output = anyhow::Result<()>>,
    work: impl Future<Output = ()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let working = async {
        work.await;
        stop.cancel();
        Ok(())
    };
    tokio::try_join!(serving, working).map(|_| ())
}

/// What makes this process work only while it leads, unless it is to work all the time.
fn elector(
    args: &OneElectionArgs,
    client: &Client,
    component: &str,
    lease: &str,
) -> anyhow::Result<Option<Elector>> {
    let lease = args.leader_elect_resource_name.as_deref().unwrap_or(lease);
    let election = args.election.election(true)?;
    Ok(election.map(|election| election.elector(client.clone(), component, lease)))
}

pub fn controller_manager(args: ControllerManagerArgs, flags: Flags) -> anyhow::Result<ExitCode> {
    logging::start(&args.component.log);
    super::block_on(control(args, flags))
}

async fn control(args: ControllerManagerArgs, flags: Flags) -> anyhow::Result<ExitCode> {
    let config = RestConfig::from_kubeconfig(&args.component.kubeconfig)?;
    let (client, rest) = measured(&args.component, CONTROLLER_MANAGER)?;
    let elector = elector(&args.leader_election, &client, CONTROLLER_MANAGER, CONTROLLER_MANAGER)?;
    let root_ca = match &args.root_ca_file {
        Some(path) => read(path)?,
        None => String::from_utf8(config.certificate_authority.clone())
            .context("the certificate authority is not PEM")?,
    };
    let without_identity =
        RestConfig { client_certificate: None, client_key: None, bearer_token: None, ..config };
    let anonymous = Measured::new(Https::new(&without_identity)?, &rest, &without_identity.server);
    let signing = match (&args.cluster_signing_cert_file, &args.cluster_signing_key_file) {
        (Some(certificate), Some(key)) => {
            let duration = args.signing.cluster_signing_duration;
            Some(controllers::SigningAuthority { certificate: read(certificate)?, key: read(key)?, duration })
        }
        _ => None,
    };
    let (queues, jobs) = (Arc::<QueueMetrics>::default(), Arc::<controllers::JobMetrics>::default());
    let shown = Shown {
        name: CONTROLLER_MANAGER,
        default_port: CONTROLLER_MANAGER_PORT,
        checks: component::leader_election(elector.as_ref()).into_iter().collect(),
        configz: configz::of_controller_manager(&args),
        figures: vec![queues.clone(), jobs.clone(), rest],
        flags,
    };
    let serving = args.serving;
    let node_cidr_mask_sizes = args.node_ipam.mask_sizes();
    let (cluster_cidrs, disabled) = (args.cluster_cidr, control_plane::disabled_controllers(args.ingress));
    let issuer = client.clone();
    let run = |informers: Informers, stop: CancellationToken| async move {
        let config = controllers::Config {
            root_ca,
            signing,
            cluster_cidrs,
            node_cidr_mask_sizes,
            disabled,
            queues,
            jobs,
        };
        let client_for = |account: &'static str| {
            let transport = ServiceAccount::new(issuer.clone(), anonymous.clone(), "kube-system", account);
            Client::new(transport, account)
        };
        let run = |stop| controllers::run(&config, client_for, &informers, stop);
        let work = leader::work(elector, stop.clone(), run);
        beside(component::serve(serving, shown, stop.clone()), work, stop).await
    };
    serve(client, CONTROLLER_MANAGER, run).await
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub fn node_name(given: Option<String>) -> String {
    given.unwrap_or_else(cluster::address::hostname)
}

pub fn runtime(args: RuntimeAloneArgs) -> anyhow::Result<ExitCode> {
    logging::start(&args.log);
    let layout = args.cluster.layout()?;
    let (conf_dir, bin_dirs) = args
        .network
        .cni()
        .context("a runtime alone has no network of its own; name that of CNI plugins with --cni-conf-dir")?;
    super::block_on(async {
        memory::return_in_background();
        let _locks = cluster::lock::of_node(&layout)?;
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

pub fn proxy(args: ProxyArgs, flags: Flags) -> anyhow::Result<ExitCode> {
    let config = proxy::Config {
        cluster: args.name,
        node_name: node_name(args.node_name),
        networks: proxy::Networks {
            pods: args.cluster_cidr,
            services: args.service_cluster_ip_range,
            node_ports: args.nodeport_addresses,
        },
        dns: Vec::new(),
        healthz_address: Some(args.healthz_bind_address),
        metrics_address: Some(args.metrics_bind_address),
        pages: Pages::new(KUBE_PROXY, flags),
    };
    run_one(&args.component, KUBE_PROXY, |informers, stop| async move {
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
