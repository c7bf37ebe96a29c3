//! Fields of `KubeletConfiguration` that have fields of their own, and the forms in which the parts of the kubelet take
//! what they go by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::quantity::Quantity;
use client::flowcontrol::TokenBucket;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Duration, KubeletConfiguration};
use crate::eviction;
use crate::imagegc;
use crate::logs;
use crate::nodeshutdown::Periods;
use crate::staticpods;
use crate::userns::IDS_PER_POD;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub x509: X509Authentication,
    pub webhook: WebhookAuthentication,
    pub anonymous: AnonymousAuthentication,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct X509Authentication {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookAuthentication {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Duration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        WebhookAuthentication { enabled: true, cache_ttl: Duration::from_secs(120) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnonymousAuthentication {
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorizationMode {
    AlwaysAllow,
    #[default]
    Webhook,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: AuthorizationMode,
    pub webhook: WebhookAuthorization,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: Duration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: Duration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        WebhookAuthorization {
            cache_authorized_ttl: Duration::from_secs(300),
            cache_unauthorized_ttl: Duration::from_secs(30),
        }
    }
}

/// Of pods that have users of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserNamespaces {
    #[serde(rename = "idsPerPod")]
    pub ids_per_pod: i64,
}

impl Default for UserNamespaces {
    fn default() -> Self {
        UserNamespaces { ids_per_pod: IDS_PER_POD.into() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    /// Empty is `NoSwap`.
    pub swap_behavior: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Duration,
}

impl Default for CrashLoopBackOff {
    fn default() -> Self {
        CrashLoopBackOff { max_container_restart_period: Duration::from_secs(300) }
    }
}

/// Memory of a NUMA node that is kept from pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryReservation {
    pub numa_node: i32,
    pub limits: BTreeMap<String, Quantity>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownGracePeriodByPodPriority {
    pub priority: i32,
    pub shutdown_grace_period_seconds: i64,
}

/// The path, unless it is empty.
fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

impl KubeletConfiguration {
    pub fn thresholds(&self) -> Result<Vec<eviction::Threshold>, eviction::Error> {
        let tables = eviction::Thresholds {
            hard: &self.eviction_hard,
            soft: &self.eviction_soft,
            soft_grace_period: &self.eviction_soft_grace_period,
            minimum_reclaim: &self.eviction_minimum_reclaim,
            of_allocatable: self.enforces("pods"),
        };
        tables.parse()
    }

    /// Whether the reservations of these ("pods", "system-reserved", "kube-reserved") are made to hold.
    pub fn enforces(&self, whose: &str) -> bool {
        self.enforce_node_allocatable.iter().any(|name| name == whose)
    }

    pub fn image_gc(&self) -> imagegc::Policy {
        let age_max = self.image_maximum_gc_age;
        imagegc::Policy {
            high_threshold_percent: self.image_gc_high_threshold_percent.into(),
            low_threshold_percent: self.image_gc_low_threshold_percent.into(),
            age_min: self.image_minimum_gc_age.to_std(),
            age_max: (!age_max.is_zero()).then(|| age_max.to_std()),
        }
    }

    /// The size is validated; at least one file is kept beside the one that is written.
    pub fn container_log(&self) -> logs::Limits {
        let size: Option<Quantity> = self.container_log_max_size.parse().ok();
        logs::Limits {
            bytes_max: size.and_then(|size| u64::try_from(size.value()).ok()).unwrap_or(u64::MAX),
            files_max: usize::try_from(self.container_log_max_files).unwrap_or(0),
        }
    }

    /// What pods get to end before the node goes down.
    pub fn shutdown(&self) -> Periods {
        if self.shutdown_grace_period_by_pod_priority.is_empty() {
            let (total, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
            return Periods::of(total.to_std(), critical.to_std());
        }
        let rows = self.shutdown_grace_period_by_pod_priority.iter();
        rows.map(|row| (row.priority, u64::try_from(row.shutdown_grace_period_seconds).unwrap_or(0)))
            .collect()
    }

    pub fn static_pods(&self) -> Option<PathBuf> {
        path(&self.static_pod_path)
    }

    /// The URL that describes static pods of a node, if one does.
    pub fn static_pod_source(&self, node_name: &str) -> Option<staticpods::Source> {
        let (url, headers) = (&self.static_pod_url, &self.static_pod_url_header);
        staticpods::Source::new(url, headers, node_name.to_owned(), self.http_check_frequency.to_std())
    }

    pub fn pod_logs(&self) -> &Path {
        Path::new(&self.pod_logs_dir)
    }

    /// How often events are written; `None` for as often as they come.
    pub fn event_pace(&self) -> Option<TokenBucket> {
        pace(self.event_record_qps, self.event_burst)
    }

    /// How often registries are asked for images.
    pub fn pull_pace(&self) -> Option<TokenBucket> {
        pace(self.registry_pull_qps, self.registry_burst)
    }

    /// How many images may be pulled at once; `None` for any number.
    pub fn pulls_at_once(&self) -> Option<usize> {
        if self.serialize_image_pulls {
            return Some(1);
        }
        self.max_parallel_image_pulls.and_then(|max| usize::try_from(max).ok())
    }
}

fn pace(per_second: i32, burst: i32) -> Option<TokenBucket> {
    (per_second > 0).then(|| TokenBucket::new(per_second.into(), burst.into(), Timestamp::now()))
}

/// How many CPUs a list such as `0-3,5` names; `None` if it is no list.
pub fn cpus_of(list: &str) -> Option<usize> {
    let mut cpus = std::collections::BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > CPU_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.len())
}

/// More than the kernel can number (its `NR_CPUS` is at most 8192).
const CPU_MAX: usize = 8191;
