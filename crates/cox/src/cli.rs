//! The flags.

mod kubelet;

use std::net::IpAddr;
use std::path::PathBuf;

mod access;
mod audit;
mod component;
mod etcd;
pub mod flags;
mod join;
mod leader;
mod nodeipam;
mod runtime;
mod server;

pub use access::{AuthorizationArgs, BelievedArgs};
pub use audit::AuditArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster::layout::Roots;
use cluster::{DEFAULT_NAME, Layout};
pub use component::SecureServingArgs;
pub use etcd::EtcdArgs;
use jiff::SignedDuration;
pub use join::{JoinArgs, TokenCommand};
pub use leader::{LeaderElectionArgs, OneElectionArgs};
pub use nodeipam::NodeIpamArgs;
pub use server::{AuthenticationArgs, EncryptionArgs, FlowControlArgs, ServingArgs, features};

pub use self::kubelet::{KubeletArgs, given};
pub use self::runtime::{RuntimeAloneArgs, RuntimeArgs};

#[derive(Parser)]
#[command(
    name = "cox",
    version = apimachinery::version::GIT_VERSION,
    about = "Kubernetes in one binary: API server, store, scheduler, controllers, kubelet, runtime, proxy and DNS",
    after_help = "Examples:\n  cox up --demo            start a cluster and show a running application\n  \
                  cox up -d                start a cluster in the background\n  \
                  cox kubeconfig           print the administrator's kubeconfig\n  \
                  cox image import a.tar   make a local image known to the cluster\n  \
                  cox down --purge         stop everything and remove all data"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster on this machine
    #[command(
        after_help = "Examples:\n  cox up                 in the foreground; Ctrl-C stops it, pods keep running\n  \
                            cox up -d              in the background, once it is ready\n  \
                            cox up --name test -d  a second cluster beside the first"
    )]
    Up(UpArgs),
    /// Stop the cluster and everything that runs in it
    #[command(after_help = "Examples:\n  cox down           data stays, the next `cox up` continues\n  \
                            cox down --purge   data is removed too")]
    Down(DownArgs),
    /// Print the administrator's kubeconfig
    Kubeconfig(ClusterArgs),
    /// Show how the cluster is
    Status(StatusArgs),
    /// Images on this node
    #[command(subcommand)]
    Image(ImageCommand),
    /// Tokens by which other machines join this cluster
    #[command(subcommand)]
    Token(TokenCommand),
    /// Run the control plane alone, for nodes elsewhere
    Server(UpArgs),
    /// Run a node alone: kubelet, runtime, network, proxy, DNS
    #[command(
        after_help = "Examples:\n  cox token create    on a machine of the cluster: prints the command to join with\n  \
                            cox agent           again on a machine that has joined"
    )]
    Agent(AgentArgs),
    /// Run the API server alone
    Apiserver(UpArgs),
    /// Run the scheduler alone against any API server
    Scheduler(SchedulerArgs),
    /// Run the controllers alone against any API server
    ControllerManager(ControllerManagerArgs),
    /// Run the kubelet alone against any API server
    Kubelet(AgentArgs),
    /// Run the container runtime alone, for any kubelet and for crictl
    Runtime(RuntimeAloneArgs),
    /// Run the service proxy alone against any API server
    Proxy(ProxyArgs),
    /// Run cluster DNS alone against any API server
    Dns(DnsArgs),
    /// Print versions
    Version(OutputArgs),
    /// The application that `cox up --demo` runs
    #[command(hide = true)]
    DemoApp(DemoAppArgs),
}

#[derive(Args, Clone)]
pub struct ClusterArgs {
    /// Which cluster of this machine
    #[arg(long, default_value = DEFAULT_NAME)]
    pub name: String,
    /// Where durable data goes, a folder per cluster
    #[arg(long, default_value_os_t = Roots::default().data)]
    pub data_dir: PathBuf,
    /// Where kubeconfigs for users go
    #[arg(long, default_value_os_t = Roots::default().config)]
    pub config_dir: PathBuf,
    /// Where sockets and locks go
    #[arg(long, default_value_os_t = Roots::default().run)]
    pub run_dir: PathBuf,
}

impl ClusterArgs {
    pub fn layout(&self) -> anyhow::Result<Layout> {
        let roots =
            Roots { data: self.data_dir.clone(), config: self.config_dir.clone(), run: self.run_dir.clone() };
        Ok(Layout::new(&self.name, roots)?)
    }
}

#[derive(Args, Clone)]
pub struct UpArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Return once the cluster is ready, and leave it running
    #[arg(short, long)]
    pub detach: bool,
    /// Also run a demo application of three replicas behind a Service
    #[arg(long)]
    pub demo: bool,
    /// Port of the API server, when the cluster is made
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// Address by which this machine is known in the cluster, or one per family; found if not given
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Name of this machine in the cluster, when the cluster is made; the host name if not given
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address range of pods, when the cluster is made; of IPv4, of IPv6, or one of each
    #[arg(long, value_delimiter = ',', help_heading = "Network")]
    pub cluster_cidr: Vec<ipnet::IpNet>,
    /// Address range of Services, when the cluster is made; of IPv4, of IPv6, or one of each
    #[arg(long, alias = "service-cidr", value_delimiter = ',', help_heading = "Network")]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    #[command(flatten)]
    pub node_ipam: NodeIpamArgs,
    #[command(flatten)]
    pub cluster_network: NetworkArgs,
    #[command(flatten)]
    pub services: ServiceArgs,
    #[command(flatten)]
    pub admission: AdmissionArgs,
    #[command(flatten)]
    pub authentication: AuthenticationArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    #[command(flatten)]
    pub encryption: EncryptionArgs,
    #[command(flatten)]
    pub flow_control: FlowControlArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub believed: BelievedArgs,
    #[command(flatten)]
    pub authorization: AuthorizationArgs,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub leader_election: LeaderElectionArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub ingress: IngressArgs,
    #[command(flatten)]
    pub signing: SigningArgs,
    #[command(flatten)]
    pub kubelet: KubeletArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// How much is logged.
#[derive(Args, Clone)]
pub struct LogArgs {
    /// Log more (COX_LOG filters finely)
    #[arg(short, long)]
    pub verbose: bool,
    /// How much to log, as a number: 0 warnings, 1 what happens, 4 details, 8 everything
    #[arg(long, value_name = "LEVEL")]
    pub v: Option<i32>,
}

#[derive(Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Remove the cluster's data too
    #[arg(long)]
    pub purge: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Text,
    Json,
}

#[derive(Args)]
pub struct OutputArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Import an OCI or Docker archive; `-` reads standard input
    Import {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Keep it whatever else the disk is needed for
        #[arg(long)]
        pin: bool,
        archive: PathBuf,
    },
    /// List the images of this node
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Pull an image from its registry
    Pull {
        #[command(flatten)]
        cluster: ClusterArgs,
        image: String,
    },
    /// Remove an image
    Remove {
        #[command(flatten)]
        cluster: ClusterArgs,
        image: String,
    },
}

#[derive(Args, Clone)]
pub struct ComponentArgs {
    /// How to reach the API server, and as whom
    #[arg(long)]
    pub kubeconfig: PathBuf,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args)]
pub struct SchedulerArgs {
    #[command(flatten)]
    pub component: ComponentArgs,
    #[command(flatten)]
    pub serving: SecureServingArgs,
    #[command(flatten)]
    pub leader_election: OneElectionArgs,
}

#[derive(Args)]
pub struct ControllerManagerArgs {
    #[command(flatten)]
    pub component: ComponentArgs,
    #[command(flatten)]
    pub serving: SecureServingArgs,
    #[command(flatten)]
    pub leader_election: OneElectionArgs,
    /// The authority that pods are to trust, PEM; that of the kubeconfig if not given
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// The authority that signs requests for certificates, PEM; without it others sign them
    #[arg(long, requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Address ranges from which nodes get theirs for pods, one or one per family; without it others do that
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<ipnet::IpNet>,
    #[command(flatten)]
    pub node_ipam: NodeIpamArgs,
    /// Give Ingresses of the class `cox` addresses, and make that class
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub ingress: bool,
}

#[derive(Args, Clone)]
pub struct AgentArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How to reach the API server, and as whom; not needed where the machine joins or has joined
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub join: JoinArgs,
    /// The service proxy's own way to the API server; the kubelet's if not given
    #[arg(long)]
    pub proxy_kubeconfig: Option<PathBuf>,
    /// Cluster DNS's own way to the API server; the kubelet's if not given
    #[arg(long)]
    pub dns_kubeconfig: Option<PathBuf>,
    /// The ingress proxy's own way to the API server; the kubelet's if not given
    #[arg(long)]
    pub ingress_kubeconfig: Option<PathBuf>,
    /// Address by which this machine is known in the cluster, or one per family; found if not given
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Name of this machine in the cluster; the host name if not given
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address of the cluster's DNS Service; none if not given
    #[arg(long)]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names; cluster.local if not given
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Address ranges of all pods of the cluster, one or one per family
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<ipnet::IpNet>,
    /// Address ranges of Services, one or one per family
    #[arg(long, value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// Port of the kubelet's own API; 10250 if not given
    #[arg(long)]
    pub port: Option<u16>,
    /// Certificate of the kubelet's own API, PEM; not needed with --rotate-server-certificates
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The authority of the clients of the kubelet's own API, PEM
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub cluster_network: NetworkArgs,
    #[command(flatten)]
    pub services: ServiceArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub ingress: IngressArgs,
    #[command(flatten)]
    pub kubelet: KubeletArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// What the cluster signs.
#[derive(Args, Clone)]
#[command(next_help_heading = "Certificates")]
pub struct SigningArgs {
    /// How long certificates hold that are signed on request, unless less is asked for
    #[arg(long, default_value = "8760h", value_parser = signing_duration)]
    pub cluster_signing_duration: SignedDuration,
}

fn signing_duration(text: &str) -> Result<SignedDuration, String> {
    let duration = apimachinery::time::parse_duration(text).filter(|duration| duration.is_positive());
    duration.ok_or_else(|| format!("{text:?} is not of the form 8760h"))
}

/// Where claims get their volumes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// Make volumes from directories of nodes, by the default StorageClass `local-path`
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub local_path: bool,
}

/// Who takes the traffic of Ingresses.
#[derive(Args, Clone)]
#[command(next_help_heading = "Ingress")]
pub struct IngressArgs {
    /// Serve Ingresses of the class `cox` on this node
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub ingress: bool,
    /// Port of the node for their HTTP; 80 if not given, or another in clusters beside the default one
    #[arg(long)]
    pub ingress_http_port: Option<u16>,
    /// Port of the node for their HTTPS; 443 if not given, or another in clusters beside the default one
    #[arg(long)]
    pub ingress_https_port: Option<u16>,
}

impl IngressArgs {
    /// The ports for HTTP and HTTPS, if Ingresses are served at all.
    pub fn ports(&self, default: (u16, u16)) -> Option<(u16, u16)> {
        let (http, https) = default;
        let ports = (self.ingress_http_port.unwrap_or(http), self.ingress_https_port.unwrap_or(https));
        self.ingress.then_some(ports)
    }
}

/// What the API server asks before it writes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Admission")]
pub struct AdmissionArgs {
    /// Admission plugins to run besides those that run by default
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins not to run though they do by default
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
}

impl AdmissionArgs {
    /// The choice, if it names only what there is.
    pub fn selection(&self) -> anyhow::Result<apiserver::AdmissionPlugins> {
        let selection = apiserver::AdmissionPlugins {
            enable: self.enable_admission_plugins.clone(),
            disable: self.disable_admission_plugins.clone(),
        };
        selection.validate()?;
        Ok(selection)
    }
}

/// Who connects pods.
#[derive(Args, Clone)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Connect pods by CNI plugins, configured in this folder, instead of the built-in network
    #[arg(long)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where CNI plugins are
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "/opt/cni/bin,/usr/lib/cni",
        requires = "cni_conf_dir"
    )]
    pub cni_bin_dir: Vec<PathBuf>,
}

/// Who leads Services to pods.
#[derive(Args, Clone)]
#[command(next_help_heading = "Network")]
pub struct ServiceArgs {
    /// Serve Services on this node; false where another proxy does, such as kube-proxy
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub proxy: bool,
}

impl NetworkArgs {
    pub fn cni(&self) -> Option<(PathBuf, Vec<PathBuf>)> {
        Some((self.cni_conf_dir.clone()?, self.cni_bin_dir.clone()))
    }
}

#[derive(Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub component: ComponentArgs,
    /// Names the nftables table
    #[arg(long, default_value = DEFAULT_NAME)]
    pub name: String,
    /// Name of this machine in the cluster; the host name if not given
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address ranges of all pods of the cluster: who is outside reaches Services under this node's address
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<ipnet::IpNet>,
    /// Address ranges of Services: what no Service has is dropped
    #[arg(long, value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// Networks on whose addresses of this node node ports are open; all if not given
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<ipnet::IpNet>,
    /// Where /healthz and /livez are answered
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: std::net::SocketAddr,
    /// Where /metrics is answered
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: std::net::SocketAddr,
}

#[derive(Args)]
pub struct DnsArgs {
    #[command(flatten)]
    pub component: ComponentArgs,
    /// Address and port to answer on
    #[arg(long, default_value = "127.0.0.1:53")]
    pub listen: Vec<std::net::SocketAddr>,
    /// Where /metrics is answered; nowhere if not given
    #[arg(long)]
    pub metrics_bind_address: Option<std::net::SocketAddr>,
    /// Domain of the cluster's names
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
}

#[derive(Args)]
pub struct DemoAppArgs {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
