//! How the node keeps itself healthy, by the names of the kubelet's own flags.

use std::path::PathBuf;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use clap::Args;
use kubelet::settings::{ContainerLog, Eviction, EvictionThresholds, ImageGc, Shutdown};

#[derive(Args, Clone)]
pub struct KubeletArgs {
    /// A file or folder of pods that run on this node whatever the API server says
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// Size at which a container's log is rotated
    #[arg(long, default_value = "10Mi", value_parser = bytes)]
    pub container_log_max_size: u64,
    /// Log files that a container may have
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    pub container_log_max_files: u64,
    /// Sysctls, or beginnings of them with a `*`, that pods may set beyond the safe ones
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// When pods are evicted at once, for example memory.available<100Mi,nodefs.available<10%
    #[arg(long, value_delimiter = ',', value_parser = threshold)]
    pub eviction_hard: Option<Vec<(String, String)>>,
    /// When pods are evicted after a grace period
    #[arg(long, value_delimiter = ',', value_parser = threshold)]
    pub eviction_soft: Vec<(String, String)>,
    /// Those grace periods, for example memory.available=1m30s
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    pub eviction_soft_grace_period: Vec<(String, String)>,
    /// What is to be free beyond a threshold once it was met, for example nodefs.available=1Gi
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    pub eviction_minimum_reclaim: Vec<(String, String)>,
    /// Seconds that a pod has at most to end for a soft threshold
    #[arg(long, default_value_t = 0)]
    pub eviction_max_pod_grace_period: i64,
    /// How long a shortage must be over before the node says so
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub eviction_pressure_transition_period: Duration,
    /// Use of the images' disk, in percent, from which on unused images are removed
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(i64).range(0..=100))]
    pub image_gc_high_threshold: i64,
    /// Use of the images' disk down to which they are removed
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(i64).range(0..=100))]
    pub image_gc_low_threshold: i64,
    /// What pods get to end when this node goes down; with 0s they go on running when cox ends
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_grace_period: Duration,
    /// How much of that is kept for critical pods
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_grace_period_critical_pods: Duration,
}

impl KubeletArgs {
    pub fn settings(&self) -> kubelet::Settings {
        let table = |pairs: &[(String, String)]| pairs.iter().cloned().collect();
        let hard = self.eviction_hard.as_deref().map(table);
        let thresholds = EvictionThresholds {
            hard: hard.unwrap_or_else(|| EvictionThresholds::default().hard),
            soft: table(&self.eviction_soft),
            soft_grace_period: table(&self.eviction_soft_grace_period),
            minimum_reclaim: table(&self.eviction_minimum_reclaim),
        };
        kubelet::Settings {
            container_log: ContainerLog {
                bytes_max: self.container_log_max_size,
                files_max: usize::try_from(self.container_log_max_files).unwrap_or(usize::MAX),
            },
            allowed_unsafe_sysctls: self.allowed_unsafe_sysctls.clone(),
            static_pod_path: self.pod_manifest_path.clone(),
            eviction: Eviction {
                thresholds,
                pressure_transition_period: self.eviction_pressure_transition_period,
                max_pod_grace_seconds: self.eviction_max_pod_grace_period,
            },
            image_gc: ImageGc {
                high_threshold_percent: self.image_gc_high_threshold,
                low_threshold_percent: self.image_gc_low_threshold,
                ..ImageGc::default()
            },
            shutdown: Shutdown::of(self.shutdown_grace_period, self.shutdown_grace_period_critical_pods),
        }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let quantity: Quantity = text.parse().map_err(|error| format!("{error}"))?;
    u64::try_from(quantity.value()).map_err(|_| "a size cannot be negative".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
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

    fn settings(flags: &[&str]) -> kubelet::Settings {
        let command = Command::try_parse_from([&["cox"][..], flags].concat()).expect("flags");
        command.kubelet.settings()
    }

    #[test]
    fn without_flags_all_is_as_upstream() {
        let (found, expect) = (settings(&[]), kubelet::Settings::default());
        assert_eq!(found.eviction, expect.eviction);
        assert_eq!((found.image_gc, found.container_log), (expect.image_gc, expect.container_log));
    }

    #[test]
    fn thresholds_given_take_the_place_of_the_defaults() {
        let found = settings(&["--eviction-hard", "memory.available<1Gi,pid.available<5%"]);
        let hard: Vec<&str> = found.eviction.thresholds.hard.keys().map(String::as_str).collect();
        assert_eq!(hard, ["memory.available", "pid.available"]);
    }
}
