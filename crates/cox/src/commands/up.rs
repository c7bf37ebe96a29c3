//! `cox up`, `cox server`, `cox apiserver`: start a cluster, or its control plane alone.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use apimachinery::json;
use auth::UserInfo;
use client::CancellationToken;
use client::certificate::Replaceable;
use client::zpages::Flags;
use cluster::lock::{self, Lock};
use cluster::pki::{Identity, Leaf, Pki};
use cluster::settings::Wishes;
use cluster::{Layout, Settings, kubeconfig, kubelet_root, preflight};
use ipnet::IpNet;
use jiff::Timestamp;
use kubelet::KubeletConfiguration;
use kubelet::certificate::Shown;
use kubelet::kubeletconfig::Own;

use crate::cli::{UpArgs, given};
use crate::progress::Progress;
use crate::services::certificates::Keeper;
use crate::services::control_plane::{self, AUTHENTICATED, Access, Api};
use crate::services::kubelet_tls::{self, KubeletTls};
use crate::services::{Services, agents, interrupted, local_path, metrics, node};
use crate::{control, logging, memory, waiting};

/// How much of a cluster runs in this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    Everything,
    ControlPlane,
    ApiServer,
}

pub fn up(args: UpArgs, parts: Parts, flags: Flags) -> anyhow::Result<ExitCode> {
    let layout = args.cluster.layout()?;
    if let Some(pid) = Lock::holder(&layout.lock()) {
        bail!(
            "cluster {:?} is already running (process {pid}); stop it with `cox down` first",
            layout.name()
        );
    }
    let child = super::detach::pipe_from_parent();
    if args.detach && child.is_none() {
        return super::detach::start(&layout);
    }
    logging::start(&args.log);
    let detached = child.is_some();
    let progress = child.map_or_else(Progress::on_terminal, Progress::to_parent);
    let result = super::block_on(run(&args, parts, flags, &layout, &progress, detached));
    if let Err(error) = &result {
        progress.failed(&format!("{error:#}"));
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn run(
    args: &UpArgs,
    parts: Parts,
    flags: Flags,
    layout: &Layout,
    progress: &Progress,
    detached: bool,
) -> anyhow::Result<()> {
    memory::return_in_background();
    let _locks = match parts {
        Parts::Everything => lock::of_node(layout)?,
        Parts::ControlPlane | Parts::ApiServer => lock::of_control_plane(layout)?,
    };
    check_machine(args, layout)?;
    let mut services = Services::default();
    let mut interrupt = std::pin::pin!(interrupted());
    let outcome = tokio::select! {
        biased;
        interrupted = &mut interrupt => interrupted,
        started = start_all(args, parts, flags, layout, progress, &mut services) => match started {
            Err(error) => Err(error),
            Ok(()) => {
                progress.ready();
                if !detached {
                    eprintln!("\nPress Ctrl-C to stop; pods keep running until `cox down`.");
                }
                tokio::select! {
                    interrupted = &mut interrupt => interrupted,
                    error = services.failed() => Err(error),
                }
            }
        },
    };
    services.stop().await;
    outcome
}

/// Names everything that is missing at once.
fn check_machine(args: &UpArgs, layout: &Layout) -> anyhow::Result<()> {
    let known = Settings::load(layout)?;
    let port = known.as_ref().map(|s| s.secure_port).or(args.secure_port);
    let slot_decides = known.is_none() && !layout.is_default();
    let ports: Vec<u16> = match (port, slot_decides) {
        (Some(port), _) => vec![port, known.map_or(10250, |s| s.kubelet_port)],
        (None, true) => Vec::new(),
        (None, false) => vec![6443, 10250],
    };
    let problems = preflight::check(&layout.data(), &ports);
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = problems.iter().map(|p| format!("  - {p}")).collect();
    bail!("this machine cannot run a cluster yet:\n{}", list.join("\n"));
}

async fn start_all(
    args: &UpArgs,
    parts: Parts,
    flags: Flags,
    layout: &Layout,
    progress: &Progress,
    services: &mut Services,
) -> anyhow::Result<()> {
    let mut keeper = Keeper::default();
    start(args, parts, flags, layout, progress, services, &mut keeper).await?;
    services.start("certificates", |stop| keeper.run(Timestamp::now, stop));
    Ok(())
}

async fn start(
    args: &UpArgs,
    parts: Parts,
    flags: Flags,
    layout: &Layout,
    progress: &Progress,
    services: &mut Services,
    keeper: &mut Keeper,
) -> anyhow::Result<()> {
    check_families("--cluster-cidr", &args.cluster_cidr)?;
    check_families("--service-cluster-ip-range", &args.service_cluster_ip_range)?;
    let wishes = Wishes {
        secure_port: args.secure_port,
        cluster_cidrs: args.cluster_cidr.clone(),
        service_cidrs: args.service_cluster_ip_range.clone(),
        node_name: args.node_name.clone(),
    };
    let settings = Settings::load_or_create(layout, &wishes, &cluster::address::hostname())?;
    // A machine without any network still has the address of its own pod network.
    let node_ips = cluster::address::of_node(&args.node_ip, &settings.cluster_cidrs);
    let node_ip = node_ips.first().copied().or_else(|| settings.first_pod_ip());
    let node_ip = node_ip.context("the settings name no range of pods")?;
    let pki = Arc::new(Pki::open(&layout.pki(), layout.name(), Timestamp::now())?);
    progress.step("certificates and settings are in place");

    let plan = control_plane::Plan {
        layout,
        settings: &settings,
        pki: &pki,
        node_ip,
        etcd: args.etcd.config()?,
        // An etcd may have other servers; a store of one's own has not.
        election: args.leader_election.election(!args.etcd.etcd_servers.is_empty())?,
        admission: args.admission.selection()?,
        runs_deciders: parts != Parts::ApiServer,
        ingress: args.ingress.ingress,
        anonymous_auth: args.authentication.anonymous_auth,
        tokens: args.authentication.tokens()?,
        encryption: args.encryption.encryption()?,
        encryption_reload: args.encryption.encryption_provider_config_automatic_reload,
        requests_in_flight_max: args.flow_control.requests_in_flight_max()?,
        signing_duration: args.signing.cluster_signing_duration,
        node_cidr_mask_sizes: args.node_ipam.mask_sizes(),
        features: args.serving.features()?,
        enablement: args.serving.enablement()?,
        request_timeout: args.serving.request_timeout,
        profiling: args.serving.profiling,
        flags,
    };
    let has_node = parts == Parts::Everything;
    let configuration = has_node.then(|| kubelet_configuration(args, layout, &settings)).transpose()?;
    let access = Access {
        authentication: args.believed.config(&plan.issuer_name())?,
        authorization: args.authorization.chain()?,
        auditing: args.audit.auditing()?,
    };
    let starting = plan.start_api(services, access, keeper);
    let api = waiting::wait(progress, "the API server to answer", std::future::ready(()), starting).await?;
    let serving = SocketAddr::new(node_ip, settings.secure_port);
    progress.step(&format!("API server answers on https://{serving}"));
    write_kubeconfigs(layout, &settings, &pki, keeper)?;
    if parts == Parts::ApiServer {
        return Ok(());
    }
    plan.start_deciders(services, &api);
    metrics::start(services, &api).await?;
    agents::grant(&api.admin()).await?;
    if args.storage.local_path {
        local_path::publish(&api.admin()).await?;
    }
    let Some(configuration) = configuration else { return Ok(()) };
    let reasons = waiting::tell_node(progress, api.admin(), &settings.node_name);
    let starting = start_node(args, configuration, &plan, &api, progress, services, keeper);
    let what = format!("node {} to be ready", settings.node_name);
    let runtime = waiting::wait(progress, &what, reasons, starting).await?;
    progress.step(&format!("node {} is ready", settings.node_name));
    if args.demo {
        let runtime = runtime.context("--demo needs the built-in container runtime")?;
        super::demo::deploy(&api, &runtime, node_ip, layout, progress).await?;
    }
    Ok(())
}

/// At most one range of each family.
fn check_families(flag: &str, ranges: &[IpNet]) -> anyhow::Result<()> {
    let of_v4 = ranges.iter().filter(|range| range.addr().is_ipv4()).count();
    if of_v4 > 1 || ranges.len() - of_v4 > 1 {
        bail!("{flag} has two ranges of one family; give one of IPv4, one of IPv6, or one of each");
    }
    Ok(())
}

async fn start_node(
    args: &UpArgs,
    configuration: KubeletConfiguration,
    control_plane: &control_plane::Plan<'_>,
    api: &Api,
    progress: &Progress,
    services: &mut Services,
    keeper: &mut Keeper,
) -> anyhow::Result<Option<Arc<runtime::Runtime>>> {
    let &control_plane::Plan { layout, settings, pki, node_ip, .. } = control_plane;
    let tls = serving_tls(&configuration, settings, pki, node_ip, keeper)?;
    let plan = node::Plan {
        layout: layout.clone(),
        node_name: settings.node_name.clone(),
        node_ip,
        node_ip_other: cluster::address::of_node(&args.node_ip, &settings.cluster_cidrs).get(1).copied(),
        cluster_domain: settings.cluster_domain.clone(),
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        kubelet_tls: Arc::new(tls.config),
        // In process nobody asks it for a certificate.
        shown: Shown { serving: tls.serving, client: None },
        images: args.runtime.images.plan(layout),
        cni: args.cluster_network.cni(),
        local_path: args.storage.local_path,
        ingress: args.ingress.ports(settings.ingress_ports()),
        kubelet: configuration,
        kubelet_root: kubelet_root::settle(layout, args.kubelet.root_dir.as_deref())?,
        node_labels: args.kubelet.node_labels.iter().cloned().collect(),
        services_on_node: true,
        proxy: args.services.proxy,
        flags: control_plane.flags.clone(),
    };
    let user = UserInfo::new(format!("system:node:{}", settings.node_name), ["system:nodes", AUTHENTICATED]);
    let kubelet_requests = Arc::default();
    let clients = node::Clients {
        kubelet: api.measured_client(user, "kubelet", &kubelet_requests),
        kubelet_requests,
        proxy: api.informers.clone(),
        dns: api.informers.clone(),
        ingress: (
            api.client(UserInfo::new(agents::INGRESS_USER, [AUTHENTICATED]), "ingress"),
            api.informers.clone(),
        ),
    };
    let started = plan.start(services, clients).await?;
    if let Some(error) = &started.ingress_error {
        progress.step(&node::ingress_not_served(error));
    }
    if !started.dns_addresses.is_empty() {
        node::publish_dns(&api.admin(), &settings.dns_service_ips(), &started.dns_addresses).await?;
    }
    let (listener, runtime) = (control::listen(layout)?, started.runtime.clone());
    services.start("control", |stop| control::serve(listener, runtime, stop));
    let never = CancellationToken::new();
    tokio::select! {
        _ = node::node_ready(&api.informers, &settings.node_name, &never) => Ok(started.runtime),
        error = services.failed() => Err(error),
    }
}

fn kubelet_configuration(
    args: &UpArgs,
    layout: &Layout,
    settings: &Settings,
) -> anyhow::Result<KubeletConfiguration> {
    let data = layout.data();
    let (disk, _) = kubelet::disk(&data)
        .with_context(|| format!("cannot tell how large the disk of {} is", data.display()))?;
    let own = Own {
        port: settings.kubelet_port,
        cluster_dns: settings.dns_service_ips(),
        cluster_domain: settings.cluster_domain.clone(),
        pod_logs_dir: layout.pod_logs().display().to_string(),
        cgroup_root: layout.cgroup(),
        guest_on_disk_bytes: Some(disk.capacity),
    };
    args.kubelet
        .load(&own, given([("containerRuntimeEndpoint", json!(args.runtime.container_runtime_endpoint))]))
}

/// Where the cluster is to sign the certificate on request, the one made here serves until then.
fn serving_tls(
    configuration: &KubeletConfiguration,
    settings: &Settings,
    pki: &Arc<Pki>,
    node_ip: IpAddr,
    keeper: &mut Keeper,
) -> anyhow::Result<KubeletTls> {
    let common_name = format!("system:node:{}", settings.node_name);
    let names = vec![settings.node_name.clone()];
    let leaf = Leaf::server("kubelet-serving", &common_name, names, vec![node_ip]);
    let certificate = if configuration.server_tls_bootstrap {
        let identity = pki.identity(&leaf, Timestamp::now())?;
        Replaceable::new(identity.certificate.as_bytes(), identity.key.as_bytes())?
    } else {
        control_plane::kept(keeper, pki, leaf)?
    };
    kubelet_tls::of(configuration, Some(certificate), pki.ca_certificate().as_bytes())
}

/// Components that can run as processes of their own, with the identity each then has.
const COMPONENTS: [(&str, &str, &[&str]); 5] = [
    ("scheduler", "system:kube-scheduler", &[]),
    ("controller-manager", "system:kube-controller-manager", &[]),
    ("proxy", "system:kube-proxy", &[]),
    ("dns", agents::DNS_USER, &[]),
    ("ingress", agents::INGRESS_USER, &[]),
];

fn write_kubeconfigs(
    layout: &Layout,
    settings: &Settings,
    pki: &Arc<Pki>,
    keeper: &mut Keeper,
) -> anyhow::Result<()> {
    for (component, user, groups) in COMPONENTS {
        let path = layout.component_kubeconfig(component);
        keep_kubeconfig(layout, settings, pki, keeper, Leaf::client(component, user, groups), path)?;
    }
    let node = Leaf::client("kubelet", &format!("system:node:{}", settings.node_name), &["system:nodes"]);
    keep_kubeconfig(layout, settings, pki, keeper, node, layout.component_kubeconfig("kubelet"))?;
    let admin = Leaf::client("admin", "kubernetes-admin", &["system:masters"]);
    if let Some(path) = kubeconfig::user_path() {
        super::down::Traces::note_kube_folder(layout, &path)?;
    }
    keep_kubeconfig(layout, settings, pki, keeper, admin, layout.kubeconfig())
}

/// Writes a kubeconfig, now and whenever its certificate is renewed. The administrator's goes to the user's own too.
fn keep_kubeconfig(
    layout: &Layout,
    settings: &Settings,
    pki: &Arc<Pki>,
    keeper: &mut Keeper,
    leaf: Leaf,
    path: std::path::PathBuf,
) -> anyhow::Result<()> {
    let server = format!("https://127.0.0.1:{}", settings.secure_port);
    let (context, authority) = (layout.context(), pki.ca_certificate().to_owned());
    let user_path = kubeconfig::user_path().filter(|_| path == layout.kubeconfig());
    let write = move |identity: &Identity| {
        let config = kubeconfig::new(&context, &server, &authority, identity);
        kubeconfig::write(&path, &config)?;
        if let Some(user_path) = &user_path
            && let Err(error) = kubeconfig::merge(user_path, &config)
        {
            eprintln!("warning: {error}; use --kubeconfig {}", path.display());
        }
        Ok(())
    };
    write(&pki.identity(&leaf, Timestamp::now())?)?;
    keeper.keep(pki, leaf, Timestamp::now(), write)?;
    Ok(())
}
