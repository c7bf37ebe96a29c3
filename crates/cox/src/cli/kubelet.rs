//! By what the kubelet goes: a KubeletConfiguration, drop-ins, and flags by the names of the kubelet's own, which say
//! more than both.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use apimachinery::quantity::Quantity;
use apimachinery::{Map, Value, json};
use clap::Args;
use kubelet::KubeletConfiguration;
use kubelet::kubeletconfig::{self, Own, Sources};

#[derive(Args, Clone)]
#[command(next_help_heading = "Kubelet")]
pub struct KubeletArgs {
    /// A file of kind KubeletConfiguration; flags say more than it
    #[arg(long)]
    pub kubelet_config: Option<PathBuf>,
    /// A folder of drop-ins, `*.conf`, laid over that file in the order of their names
    #[arg(long)]
    pub kubelet_config_dir: Option<PathBuf>,
    /// Folder of the kubelet's pods and plugins, when the node is made. The cluster named coxswain takes /var/lib/kubelet,
    /// which CSI drivers and device plugins expect, if it is empty; others use one below --data-dir
    #[arg(long)]
    pub root_dir: Option<PathBuf>,
    /// Labels of the node, for example disk=ssd,zone=a
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    pub node_labels: Vec<(String, String)>,
    #[command(flatten)]
    flags: Flags,
}

/// Each is a field of KubeletConfiguration.
#[derive(Args, Clone)]
struct Flags {
    /// A file or folder of pods that run on this node whatever the API server says
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// Pods that may run here
    #[arg(long)]
    max_pods: Option<i32>,
    /// Taints that the node gets when it is registered, for example dedicated=db:NoSchedule
    #[arg(long, value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<Value>,
    /// Port on which pods and figures are shown to anybody, without TLS; none with 0
    #[arg(long)]
    read_only_port: Option<u16>,
    /// Have the kubelet's client certificate signed anew by the cluster before it ends
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    rotate_certificates: Option<bool>,
    /// Have the certificate of the kubelet's own API signed by the cluster
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    rotate_server_certificates: Option<bool>,
    /// CPU, memory and storage kept from pods for the system, for example cpu=500m,memory=1Gi
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    system_reserved: Vec<(String, String)>,
    /// The same for Kubernetes itself
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    kube_reserved: Vec<(String, String)>,
    /// Size at which a container's log is rotated
    #[arg(long, value_parser = bytes)]
    container_log_max_size: Option<String>,
    /// Log files that a container may have
    #[arg(long)]
    container_log_max_files: Option<i32>,
    /// Sysctls, or beginnings of them with a `*`, that pods may set beyond the safe ones
    #[arg(long, value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,
    /// When pods are evicted at once, for example memory.available<100Mi,nodefs.available<10%
    #[arg(long, value_delimiter = ',', value_parser = threshold)]
    eviction_hard: Vec<(String, String)>,
    /// When pods are evicted after a grace period
    #[arg(long, value_delimiter = ',', value_parser = threshold)]
    eviction_soft: Vec<(String, String)>,
    /// Those grace periods, for example memory.available=1m30s
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    eviction_soft_grace_period: Vec<(String, String)>,
    /// What is to be free beyond a threshold once it was met, for example nodefs.available=1Gi
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    eviction_minimum_reclaim: Vec<(String, String)>,
    /// Seconds that a pod has at most to end for a soft threshold
    #[arg(long)]
    eviction_max_pod_grace_period: Option<i32>,
    /// How long a shortage must be over before the node says so
    #[arg(long, value_parser = duration)]
    eviction_pressure_transition_period: Option<String>,
    /// Use of the images' disk, in percent, from which on unused images are removed
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=100))]
    image_gc_high_threshold: Option<i32>,
    /// Use of the images' disk down to which they are removed
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=100))]
    image_gc_low_threshold: Option<i32>,
    /// What pods get to end when this node goes down; with 0s they go on running when cox ends
    #[arg(long, value_parser = duration)]
    shutdown_grace_period: Option<String>,
    /// How much of that is kept for critical pods
    #[arg(long, value_parser = duration)]
    shutdown_grace_period_critical_pods: Option<String>,
}

impl KubeletArgs {
    /// Has the cluster sign the kubelet's certificates, unless something else was asked for.
    pub fn default_to_signed_certificates(&mut self) {
        self.flags.rotate_certificates.get_or_insert(true);
        self.flags.rotate_server_certificates.get_or_insert(true);
    }

    /// Reads the files. `more` are fields that flags of the command itself say.
    pub fn load(&self, own: &Own, more: Map) -> anyhow::Result<KubeletConfiguration> {
        let mut flags = self.flags.fields();
        flags.extend(more);
        let sources =
            Sources { file: self.kubelet_config.clone(), dir: self.kubelet_config_dir.clone(), flags };
        let (configuration, warnings) =
            kubeletconfig::load(own, &sources).context("the kubelet cannot go by its configuration")?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(configuration)
    }
}

impl Flags {
    /// Those that are given, by the names of their fields.
    fn fields(&self) -> Map {
        let rows = [
            ("staticPodPath", json!(self.pod_manifest_path)),
            ("maxPods", json!(self.max_pods)),
            ("registerWithTaints", list(&self.register_with_taints)),
            ("readOnlyPort", json!(self.read_only_port)),
            ("rotateCertificates", json!(self.rotate_certificates)),
            ("serverTLSBootstrap", json!(self.rotate_server_certificates)),
            ("systemReserved", table(&self.system_reserved)),
            ("kubeReserved", table(&self.kube_reserved)),
            ("containerLogMaxSize", json!(self.container_log_max_size)),
            ("containerLogMaxFiles", json!(self.container_log_max_files)),
            ("allowedUnsafeSysctls", list(&self.allowed_unsafe_sysctls)),
            ("evictionHard", table(&self.eviction_hard)),
            ("evictionSoft", table(&self.eviction_soft)),
            ("evictionSoftGracePeriod", table(&self.eviction_soft_grace_period)),
            ("evictionMinimumReclaim", table(&self.eviction_minimum_reclaim)),
            ("evictionMaxPodGracePeriod", json!(self.eviction_max_pod_grace_period)),
            ("evictionPressureTransitionPeriod", json!(self.eviction_pressure_transition_period)),
            ("imageGCHighThresholdPercent", json!(self.image_gc_high_threshold)),
            ("imageGCLowThresholdPercent", json!(self.image_gc_low_threshold)),
            ("shutdownGracePeriod", json!(self.shutdown_grace_period)),
            ("shutdownGracePeriodCriticalPods", json!(self.shutdown_grace_period_critical_pods)),
        ];
        given(rows)
    }
}

/// The fields that have a value.
pub fn given(rows: impl IntoIterator<Item = (&'static str, Value)>) -> Map {
    rows.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Null where nothing is given.
fn list<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

fn table(pairs: &[(String, String)]) -> Value {
    if pairs.is_empty() {
        return Value::Null;
    }
    pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<Map>().into()
}

fn bytes(text: &str) -> Result<String, String> {
    let quantity: Quantity = text.parse().map_err(|error| format!("{error}"))?;
    if quantity.sign() < 0 { Err("a size cannot be negative".to_owned()) } else { Ok(text.to_owned()) }
}

fn duration(text: &str) -> Result<String, String> {
    let parsed = apimachinery::time::parse_duration(text);
    let parsed = parsed.ok_or_else(|| format!("{text:?} is not of the form 1m30s"))?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())?;
    Ok(text.to_owned())
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
fn taint(text: &str) -> Result<Value, String> {
    let (named, effect) =
        pair(text, ':').ok_or_else(|| format!("{text:?} is not of the form key=value:effect"))?;
    let (key, value) = named.split_once('=').unwrap_or((&named, ""));
    Ok(json!({"key": key, "value": value, "effect": effect}))
}

fn threshold(text: &str) -> Result<(String, String), String> {
    pair(text, '<').ok_or_else(|| format!("{text:?} is not of the form memory.available<100Mi"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    pair(text, '=').ok_or_else(|| format!("{text:?} is not of the form memory.available=1m"))
}

fn pair(text: &str, separator: char) -> Option<(String, String)> {
    text.split_once(separator).map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        kubelet: KubeletArgs,
    }

    fn configuration(flags: &[&str]) -> KubeletConfiguration {
        let command = Command::try_parse_from([&["cox"][..], flags].concat()).expect("flags");
        let own = Own {
            port: 10250,
            cluster_dns: Vec::new(),
            cluster_domain: String::new(),
            pod_logs_dir: "/logs".to_owned(),
            cgroup_root: "/c".to_owned(),
            guest_on_disk_bytes: None,
        };
        command.kubelet.load(&own, Map::new()).expect("a configuration")
    }

    #[test]
    fn without_flags_all_is_as_upstream() {
        let (found, expect) = (configuration(&[]), KubeletConfiguration::default());
        assert_eq!(found.eviction_hard, expect.eviction_hard);
        assert_eq!((found.image_gc(), found.container_log()), (expect.image_gc(), expect.container_log()));
    }

    #[test]
    fn thresholds_given_take_the_place_of_the_defaults() {
        let found = configuration(&["--eviction-hard", "memory.available<1Gi,pid.available<5%"]);
        let hard: Vec<&str> = found.eviction_hard.keys().map(String::as_str).collect();
        assert_eq!(hard, ["memory.available", "pid.available"]);
    }

    #[test]
    fn a_taint_has_a_value_or_none() {
        let found = configuration(&["--register-with-taints", "a=b:NoSchedule,c:NoExecute"]);
        let taints: Vec<_> =
            found.register_with_taints.iter().map(|t| (&*t.key, &*t.value, &*t.effect)).collect();
        assert_eq!(taints, [("a", "b", "NoSchedule"), ("c", "", "NoExecute")]);
        assert!(configuration(&["--rotate-certificates"]).rotate_certificates);
    }
}
