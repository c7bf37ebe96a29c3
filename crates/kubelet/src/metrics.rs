//! What the kubelet counts and times of its own doings, under upstream's names and with upstream's buckets (follows the
//! kubelet's `metrics/metrics.go`).

mod certificates;
mod requests;
mod volumes;
mod workers;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api::view::core::{Pod, PodStatus};
use client::metrics::{DEF_BUCKETS, Histogram, Number};
use jiff::{SignedDuration, Timestamp};

use crate::certificate::Purpose;
use crate::startup::Startups;
pub use certificates::CertificateMetrics;
pub use requests::{PodResourcesCall, RequestMetrics};
pub use volumes::VolumeMetrics;
pub use workers::{Operation, Stage, WorkerMetrics, Working};

/// Seconds that starting a pod takes (`podStartupDurationBuckets`).
const STARTUP_BUCKETS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// Seconds that pulling an image takes (`imagePullDurationBuckets`).
const PULL_BUCKETS: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
    2700.0, 3600.0,
];
/// Milliseconds that a resize takes (`podResizeDurationBuckets`).
const RESIZE_BUCKETS: [f64; 14] = [
    10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0, 120_000.0,
    300_000.0, 600_000.0,
];
const MIB: u64 = 1 << 20;
/// From which size on an image counts as what (`imageSizeBuckets`).
const IMAGE_SIZES: [(u64, &str); 12] = [
    (100 << 30, "GT100GB"),
    (60 << 30, "60GB-100GB"),
    (40 << 30, "40GB-60GB"),
    (30 << 30, "30GB-40GB"),
    (20 << 30, "20GB-30GB"),
    (10 << 30, "10GB-20GB"),
    (5 << 30, "5GB-10GB"),
    (1 << 30, "1GB-5GB"),
    (500 * MIB, "500MB-1GB"),
    (100 * MIB, "100MB-500MB"),
    (10 * MIB, "10MB-100MB"),
    (0, "0-10MB"),
];
/// Reasons of refusals that are told apart (`admissionRejectionReasons`): any may be another plugin's.
const REJECTIONS: [&str; 20] = [
    "AppArmor",
    "Evicted",
    "InitContainerRestartPolicyForbidden",
    "InvalidNodeInfo",
    "NodeShutdown",
    "OutOfcpu",
    "OutOfephemeral-storage",
    "OutOfmemory",
    "OutOfpods",
    "PodFeatureUnsupported",
    "PodLevelResourcesNotSupported",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
    "UnexpectedPredicateFailureType",
    "UnknownReason",
    "VolumeAttachmentLimitExceeded",
];

#[derive(Debug)]
pub struct Metrics {
    evictions: Number,
    eviction_stats_age: Histogram,
    resizes: Histogram,
    preemptions: Number,
    admission_rejections: Number,
    images_removed: Number,
    pod_start: Histogram,
    pod_start_total: Histogram,
    pod_start_sli: Histogram,
    cgroup_manager: Histogram,
    sandbox_starts: Histogram,
    sandbox_errors: Number,
    image_pulls: Histogram,
    shutdown_start: Number,
    shutdown_end: Number,
    startups: Mutex<Startups>,
    pub volumes: Arc<VolumeMetrics>,
    pub workers: WorkerMetrics,
    pub requests: RequestMetrics,
    /// Those that the kubelet renews itself.
    certificates: Mutex<Vec<Arc<CertificateMetrics>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let startup = |name, help| Histogram::new(name, help, STARTUP_BUCKETS.to_vec());
        Metrics {
            evictions: Number::counter("kubelet_evictions", "Pods that were evicted, by what was short."),
            eviction_stats_age: Histogram::new(
                "kubelet_eviction_stats_age_seconds",
                "How old the figures were by which pods were evicted, by what was short.",
                DEF_BUCKETS.to_vec(),
            ),
            resizes: Histogram::new(
                "kubelet_pod_resize_duration_milliseconds",
                "How many milliseconds it took to put changed resources of pods in force.",
                RESIZE_BUCKETS.to_vec(),
            ),
            preemptions: Number::counter(
                "kubelet_preemptions",
                "Pods that were ended to make room for critical ones, by the resource that was short.",
            ),
            admission_rejections: Number::counter(
                "kubelet_admission_rejections_total",
                "Pods that the node refused, by the reason.",
            ),
            images_removed: Number::counter(
                "kubelet_image_garbage_collected_total",
                "Images removed because nobody used them, by whether their age or the room they took was why.",
            ),
            pod_start: startup(
                "kubelet_pod_start_duration_seconds",
                "How long pods took from when the kubelet saw them until they ran.",
            ),
            pod_start_total: startup(
                "kubelet_pod_start_total_duration_seconds",
                "How long pods took from their creation until all their containers ran.",
            ),
            pod_start_sli: startup(
                "kubelet_pod_start_sli_duration_seconds",
                "The same without pulling images and running init containers.",
            ),
            cgroup_manager: Histogram::new(
                "kubelet_cgroup_manager_duration_seconds",
                "How long it took to make, change and remove cgroups of pods.",
                DEF_BUCKETS.to_vec(),
            ),
            sandbox_starts: Histogram::new(
                "kubelet_run_podsandbox_duration_seconds",
                "How long the runtime took to start sandboxes, by its handler.",
                DEF_BUCKETS.to_vec(),
            ),
            sandbox_errors: Number::counter(
                "kubelet_run_podsandbox_errors_total",
                "Sandboxes that could not be started, by the runtime's handler.",
            ),
            image_pulls: Histogram::new(
                "kubelet_image_pull_duration_seconds",
                "How long pulls took with the wait for their turn, by the size of the image.",
                PULL_BUCKETS.to_vec(),
            ),
            shutdown_start: Number::gauge(
                "kubelet_graceful_shutdown_start_time_seconds",
                "When pods began to be ended because the node goes down, in seconds since 1970; 0 if never.",
            ),
            shutdown_end: Number::gauge(
                "kubelet_graceful_shutdown_end_time_seconds",
                "When that was done, in seconds since 1970; 0 if it is not.",
            ),
            startups: Mutex::default(),
            volumes: Arc::default(),
            workers: WorkerMetrics::default(),
            requests: RequestMetrics::default(),
            certificates: Mutex::default(),
        }
    }
}

impl Metrics {
    pub fn pod_seen(&self, pod: &Pod, now: Timestamp) {
        self.startups().seen(pod, now);
    }

    pub fn pod_gone(&self, uid: &str) {
        self.startups().forget(uid);
    }

    pub fn pod_reported(&self, pod: &Pod, status: &PodStatus, now: Timestamp) {
        let told = self.startups().reported(pod, status, now);
        let rows = [
            (&self.pod_start, told.since_seen),
            (&self.pod_start_total, told.total),
            (&self.pod_start_sli, told.sli),
        ];
        for (histogram, took) in rows {
            if let Some(took) = took {
                histogram.observe("", took.as_secs_f64());
            }
        }
    }

    pub fn image_pulled(&self, pod: &Pod, size: u64, took: Duration, now: Timestamp) {
        let began = now - SignedDuration::try_from(took).unwrap_or_default();
        self.startups().pulled(&pod.metadata.uid, began, now);
        self.image_pulls.observe(&format!("image_size_in_bytes={:?}", size_class(size)), took.as_secs_f64());
    }

    /// By the signal of what was short, or of the limit that was exceeded.
    pub fn evicted(&self, signal: &str) {
        self.evictions.add(&format!("eviction_signal={signal:?}"), 1.0);
    }

    /// For figures that were read then.
    pub fn evicted_for_stats(&self, signal: &str, read_at: Instant) {
        let labels = format!("eviction_signal={signal:?}");
        self.eviction_stats_age.observe(&labels, read_at.elapsed().as_secs_f64());
    }

    pub fn resized(&self, succeeded: bool, began: Instant) {
        self.resizes.observe(&format!("success=\"{succeeded}\""), began.elapsed().as_millis() as f64);
    }

    pub fn preempted(&self, resource: &str) {
        self.preemptions.add(&format!("preemption_signal={resource:?}"), 1.0);
    }

    pub fn rejected(&self, reason: &str) {
        self.admission_rejections.add(&format!("reason={:?}", rejection(reason)), 1.0);
    }

    /// For its `age`, or for the `space` it takes.
    pub fn image_removed(&self, reason: &str) {
        self.images_removed.add(&format!("reason={reason:?}"), 1.0);
    }

    /// Times `operation` on a cgroup, which upstream calls `create`, `update` or `destroy`.
    pub fn cgroup_changed(&self, operation: &str, began: Instant) {
        let labels = format!("operation_type={operation:?}");
        self.cgroup_manager.observe(&labels, began.elapsed().as_secs_f64());
    }

    pub fn sandbox_run(&self, handler: &str, began: Instant, failed: bool) {
        let labels = format!("runtime_handler={handler:?}");
        self.sandbox_starts.observe(&labels, began.elapsed().as_secs_f64());
        if failed {
            self.sandbox_errors.add(&labels, 1.0);
        }
    }

    /// The node goes down.
    pub fn shutdown_began(&self, now: Timestamp) {
        self.shutdown_start.set("", seconds(now));
        self.shutdown_end.set("", 0.0);
    }

    pub fn shutdown_ended(&self, now: Timestamp) {
        self.shutdown_end.set("", seconds(now));
    }

    /// One more certificate that is to be told of.
    pub fn certificate(&self, purpose: Purpose) -> Arc<CertificateMetrics> {
        let metrics = Arc::new(CertificateMetrics::new(purpose));
        self.certificates().push(metrics.clone());
        metrics
    }

    pub fn write(&self, text: &mut String, now: Timestamp) {
        let numbers = [
            &self.evictions,
            &self.preemptions,
            &self.admission_rejections,
            &self.images_removed,
            &self.sandbox_errors,
            &self.shutdown_start,
            &self.shutdown_end,
        ];
        numbers.into_iter().for_each(|number| number.write(text));
        let starts = [&self.pod_start, &self.pod_start_total, &self.pod_start_sli, &self.sandbox_starts];
        starts.into_iter().for_each(|histogram| histogram.write(text));
        self.eviction_stats_age.write(text);
        self.resizes.write(text);
        self.cgroup_manager.write(text);
        self.image_pulls.write(text);
        self.volumes.write(text);
        self.workers.write(text);
        self.requests.write(text);
        self.certificates().iter().for_each(|certificate| certificate.write(text, now));
    }

    fn certificates(&self) -> MutexGuard<'_, Vec<Arc<CertificateMetrics>>> {
        self.certificates.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// No holder leaves the table half written.
    fn startups(&self) -> MutexGuard<'_, Startups> {
        self.startups.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn rejection(reason: &str) -> &str {
    match reason {
        known if REJECTIONS.contains(&known) => known,
        short if short.starts_with("OutOf") => "OutOfExtendedResources",
        _ => "Other",
    }
}

fn size_class(bytes: u64) -> &'static str {
    IMAGE_SIZES.into_iter().find(|(from, _)| bytes > *from).map_or("N/A", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_apart_by_upstreams_sizes() {
        let check = |bytes: u64, expect: &str| assert_eq!(size_class(bytes), expect);
        check(0, "N/A");
        check(1, "0-10MB");
        check(10 * MIB, "0-10MB");
        check(10 * MIB + 1, "10MB-100MB");
        check(3 << 30, "1GB-5GB");
        check(101 << 30, "GT100GB");
    }

    #[test]
    fn what_was_done_is_counted_by_what_it_was() {
        let metrics = Metrics::default();
        metrics.evicted("memory.available");
        metrics.evicted_for_stats("memory.available", Instant::now());
        metrics.resized(false, Instant::now());
        ["OutOfcpu", "OutOfexample.com/gpu", "Mine"].iter().for_each(|reason| metrics.rejected(reason));
        metrics.cgroup_changed("create", Instant::now());
        metrics.sandbox_run("", Instant::now(), true);
        let mut text = String::new();
        metrics.write(&mut text, Timestamp::UNIX_EPOCH);
        for line in [
            r#"kubelet_evictions{eviction_signal="memory.available"} 1"#,
            r#"kubelet_eviction_stats_age_seconds_count{eviction_signal="memory.available"} 1"#,
            r#"kubelet_pod_resize_duration_milliseconds_count{success="false"} 1"#,
            r#"kubelet_admission_rejections_total{reason="OutOfcpu"} 1"#,
            r#"kubelet_admission_rejections_total{reason="OutOfExtendedResources"} 1"#,
            r#"kubelet_admission_rejections_total{reason="Other"} 1"#,
            r#"kubelet_cgroup_manager_duration_seconds_count{operation_type="create"} 1"#,
            r#"kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""} 1"#,
            r#"kubelet_run_podsandbox_errors_total{runtime_handler=""} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
