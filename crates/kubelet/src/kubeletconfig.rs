//! What the kubelet goes by: `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1`, with upstream's names and
//! defaults. One table of fields makes the type, its defaults, what files may say and what `/configz` shows.

mod duration;
mod effect;
mod load;
mod parts;
mod validation;

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::view::core::Taint;
use apimachinery::{Map, Value, json};
use serde::{Deserialize, Serialize};

pub use duration::Duration;
pub use load::{Error, Sources, load};
pub use parts::*;

use crate::eviction;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// Names with amounts, durations or other texts.
pub type Table = BTreeMap<String, String>;

/// Makes the type and its `Default` of rows `field: type = default`.
macro_rules! fields {
    ($($(#[$attribute:meta])* $field:ident: $type:ty = $default:expr,)*) => {
        /// As read from files and flags, with defaults in place of what they do not say.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct KubeletConfiguration { $($(#[$attribute])* pub $field: $type,)* }

        impl Default for KubeletConfiguration {
            fn default() -> Self {
                KubeletConfiguration { $($field: $default,)* }
            }
        }
    };
}

const fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds)
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

fields! {
    enable_server: bool = true,
    static_pod_path: String = String::new(),
    pod_logs_dir: String = "/var/log/pods".to_owned(),
    sync_frequency: Duration = seconds(60),
    file_check_frequency: Duration = seconds(20),
    http_check_frequency: Duration = seconds(20),
    #[serde(rename = "staticPodURL")]
    static_pod_url: String = String::new(),
    #[serde(rename = "staticPodURLHeader")]
    static_pod_url_header: BTreeMap<String, Vec<String>> = BTreeMap::new(),
    address: IpAddr = IpAddr::from([0, 0, 0, 0]),
    port: i32 = 10250,
    read_only_port: i32 = 0,
    tls_cert_file: String = String::new(),
    tls_private_key_file: String = String::new(),
    tls_cipher_suites: Vec<String> = Vec::new(),
    tls_curve_preferences: Vec<i32> = Vec::new(),
    tls_min_version: String = String::new(),
    rotate_certificates: bool = false,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: bool = false,
    authentication: Authentication = Authentication::default(),
    authorization: Authorization = Authorization::default(),
    #[serde(rename = "registryPullQPS")]
    registry_pull_qps: i32 = 5,
    registry_burst: i32 = 10,
    image_pull_credentials_verification_policy: String = "NeverVerifyPreloadedImages".to_owned(),
    preloaded_images_verification_allowlist: Vec<String> = Vec::new(),
    #[serde(rename = "eventRecordQPS")]
    event_record_qps: i32 = 50,
    event_burst: i32 = 100,
    enable_debugging_handlers: bool = true,
    enable_contention_profiling: bool = false,
    healthz_port: i32 = 10248,
    healthz_bind_address: IpAddr = IpAddr::from([127, 0, 0, 1]),
    oom_score_adj: i32 = -999,
    cluster_domain: String = String::new(),
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<IpAddr> = Vec::new(),
    streaming_connection_idle_timeout: Duration = seconds(4 * 60 * 60),
    node_status_update_frequency: Duration = seconds(10),
    node_status_report_frequency: Duration = seconds(300),
    node_lease_duration_seconds: i32 = 40,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Duration = seconds(120),
    #[serde(rename = "imageMaximumGCAge")]
    image_maximum_gc_age: Duration = seconds(0),
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: i32 = 85,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: i32 = 80,
    volume_stats_agg_period: Duration = seconds(60),
    kubelet_cgroups: String = String::new(),
    system_cgroups: String = String::new(),
    cgroup_root: String = String::new(),
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: bool = true,
    cgroup_driver: String = "cgroupfs".to_owned(),
    cpu_manager_policy: String = "none".to_owned(),
    #[serde(rename = "singleProcessOOMKill")]
    single_process_oom_kill: Option<bool> = None,
    cpu_manager_policy_options: Table = Table::new(),
    cpu_manager_reconcile_period: Duration = seconds(10),
    memory_manager_policy: String = "None".to_owned(),
    topology_manager_policy: String = "none".to_owned(),
    topology_manager_scope: String = "container".to_owned(),
    topology_manager_policy_options: Table = Table::new(),
    qos_reserved: Table = Table::new(),
    runtime_request_timeout: Duration = seconds(120),
    hairpin_mode: String = "promiscuous-bridge".to_owned(),
    max_pods: i32 = 110,
    #[serde(rename = "podCIDR")]
    pod_cidr: String = String::new(),
    pod_pids_limit: i64 = -1,
    resolv_conf: String = "/etc/resolv.conf".to_owned(),
    run_once: bool = false,
    #[serde(rename = "cpuCFSQuota")]
    cpu_cfs_quota: bool = true,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    cpu_cfs_quota_period: Duration = Duration::from_millis(100),
    node_status_max_images: i32 = 50,
    max_open_files: i64 = 1_000_000,
    content_type: String = "application/vnd.kubernetes.protobuf".to_owned(),
    #[serde(rename = "kubeAPIQPS")]
    kube_api_qps: i32 = 50,
    #[serde(rename = "kubeAPIBurst")]
    kube_api_burst: i32 = 100,
    serialize_image_pulls: bool = true,
    max_parallel_image_pulls: Option<i32> = None,
    eviction_hard: Table = eviction::hard_by_default(),
    eviction_soft: Table = Table::new(),
    eviction_soft_grace_period: Table = Table::new(),
    eviction_pressure_transition_period: Duration = seconds(300),
    eviction_max_pod_grace_period: i32 = 0,
    eviction_minimum_reclaim: Table = Table::new(),
    merge_default_eviction_settings: bool = false,
    pods_per_core: i32 = 0,
    enable_controller_attach_detach: bool = true,
    protect_kernel_defaults: bool = false,
    #[serde(rename = "makeIPTablesUtilChains")]
    make_iptables_util_chains: bool = true,
    iptables_masquerade_bit: i32 = 14,
    iptables_drop_bit: i32 = 15,
    feature_gates: BTreeMap<String, bool> = BTreeMap::new(),
    fail_swap_on: bool = true,
    memory_swap: MemorySwap = MemorySwap::default(),
    container_log_max_size: String = "10Mi".to_owned(),
    container_log_max_files: i32 = 5,
    container_log_max_workers: i32 = 1,
    container_log_monitor_interval: Duration = seconds(10),
    config_map_and_secret_change_detection_strategy: String = "Watch".to_owned(),
    system_reserved: Table = Table::new(),
    kube_reserved: Table = Table::new(),
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: String = String::new(),
    show_hidden_metrics_for_version: String = String::new(),
    system_reserved_cgroup: String = String::new(),
    kube_reserved_cgroup: String = String::new(),
    enforce_node_allocatable: Vec<String> = texts(&["pods"]),
    allowed_unsafe_sysctls: Vec<String> = Vec::new(),
    volume_plugin_dir: String = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned(),
    #[serde(rename = "providerID")]
    provider_id: String = String::new(),
    kernel_memcg_notification: bool = false,
    logging: Value = json!({"format": "text", "flushFrequency": "5s", "verbosity": 0}),
    enable_system_log_handler: bool = true,
    enable_system_log_query: bool = false,
    shutdown_grace_period: Duration = seconds(0),
    shutdown_grace_period_critical_pods: Duration = seconds(0),
    shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriodByPodPriority> = Vec::new(),
    crash_loop_back_off: CrashLoopBackOff = CrashLoopBackOff::default(),
    reserved_memory: Vec<MemoryReservation> = Vec::new(),
    enable_profiling_handler: bool = true,
    enable_debug_flags_handler: bool = true,
    seccomp_default: bool = false,
    memory_throttling_factor: f64 = 0.9,
    memory_reservation_policy: String = "None".to_owned(),
    register_with_taints: Vec<Taint> = Vec::new(),
    register_node: bool = true,
    tracing: Option<Value> = None,
    local_storage_capacity_isolation: bool = true,
    /// Empty for the built-in runtime, where upstream would take containerd.
    container_runtime_endpoint: String = String::new(),
    image_service_endpoint: String = String::new(),
    fail_cgroup_v1: bool = true,
    user_namespaces: Option<UserNamespaces> = None,
}

impl KubeletConfiguration {
    /// As `/configz` shows it.
    pub fn shown(&self) -> Value {
        let mut shown =
            apimachinery::to_value(self).expect("its fields are texts, numbers and tables of them");
        if let Value::Object(fields) = &mut shown {
            fields.retain(|_, value| !value.is_null());
        }
        shown
    }
}

/// What the cluster decides for its nodes where a file does not: everything else is as upstream has it.
#[derive(Clone, Debug)]
pub struct Own {
    pub port: u16,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub pod_logs_dir: String,
    pub cgroup_root: String,
    /// Size of the disk that the node is a guest on, beside its owner's own files. `None` for a machine that is a node
    /// and nothing else.
    pub guest_on_disk_bytes: Option<i64>,
}

impl Own {
    fn eviction_hard(&self) -> Table {
        self.guest_on_disk_bytes.map_or_else(eviction::hard_by_default, eviction::hard_for_guest)
    }

    /// A guest leaves images alone until room is short: on a disk that its owner fills, none would stay for long.
    fn image_gc_high_threshold_percent(&self) -> i32 {
        let default = KubeletConfiguration::default().image_gc_high_threshold_percent;
        self.guest_on_disk_bytes.map_or(default, |_| 100)
    }

    /// A built-in runtime and network need neither a second version of cgroups nor a machine without swap, verify no
    /// credentials of images that are there, and hear of memory from the kernel.
    fn document(&self) -> Map {
        let document = json!({
            "port": self.port,
            // At the distance at which upstream's is, so that several nodes fit on a machine.
            "healthzPort": self.port.saturating_sub(2),
            "clusterDNS": self.cluster_dns,
            "clusterDomain": self.cluster_domain,
            "podLogsDir": self.pod_logs_dir,
            "cgroupRoot": self.cgroup_root,
            "failCgroupV1": false,
            "failSwapOn": false,
            "kernelMemcgNotification": true,
            "serializeImagePulls": false,
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
            "imageGCHighThresholdPercent": self.image_gc_high_threshold_percent(),
        });
        match document {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests;
