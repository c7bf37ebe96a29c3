//! `/configz`: by what this kubelet goes, under the names of upstream's `KubeletConfiguration`. Pure.

use std::time::Duration;

use apimachinery::{Value, json};

use super::authentication::REVIEW_KEPT;
use super::authorization::{ALLOWED_KEPT, DENIED_KEPT};
use crate::config::Config;

pub fn configz(config: &Config) -> Value {
    json!({"kubeletconfig": configuration(config)})
}

/// Fields of which this kubelet has no notion are left out.
fn configuration(config: &Config) -> Value {
    let settings = &config.settings;
    let (eviction, images, log) = (&settings.eviction, &settings.image_gc, &settings.container_log);
    json!({
        "enableServer": true,
        "address": config.listen.ip(),
        "port": config.listen.port(),
        "readOnlyPort": 0,
        "staticPodPath": settings.static_pod_path,
        "podLogsDir": config.pod_logs_dir,
        "authentication": {
            "x509": {}, "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": seconds(REVIEW_KEPT)},
        },
        "authorization": {"mode": "Webhook", "webhook": {
            "cacheAuthorizedTTL": seconds(ALLOWED_KEPT), "cacheUnauthorizedTTL": seconds(DENIED_KEPT)}},
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "resolvConf": config.resolv_conf,
        "cgroupRoot": config.cgroup_root,
        "cgroupDriver": "cgroupfs",
        "maxPods": config.max_pods,
        "imageMinimumGCAge": seconds(images.age_min),
        "imageMaximumGCAge": seconds(images.age_max.unwrap_or_default()),
        "imageGCHighThresholdPercent": images.high_threshold_percent,
        "imageGCLowThresholdPercent": images.low_threshold_percent,
        "evictionHard": eviction.thresholds.hard,
        "evictionSoft": eviction.thresholds.soft,
        "evictionSoftGracePeriod": eviction.thresholds.soft_grace_period,
        "evictionMinimumReclaim": eviction.thresholds.minimum_reclaim,
        "evictionPressureTransitionPeriod": seconds(eviction.pressure_transition_period),
        "evictionMaxPodGracePeriod": eviction.max_pod_grace_seconds,
        "containerLogMaxSize": log.bytes_max.to_string(),
        "containerLogMaxFiles": log.files_max,
        "allowedUnsafeSysctls": settings.allowed_unsafe_sysctls,
        "shutdownGracePeriod": seconds(settings.shutdown.total()),
    })
}

/// One of the forms in which Go reads a duration.
fn seconds(of: Duration) -> String {
    format!("{}s", of.as_secs())
}
