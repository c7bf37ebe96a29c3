//! What the workers of pods do, and how long that takes (follows the metrics that upstream's `pod_workers.go` and
//! `status_manager.go` write).

use std::time::Instant;

use client::metrics::{DEF_BUCKETS, Histogram, Number, exponential_buckets};

/// Seconds until a status is written (`PodStatusSyncDuration`).
const STATUS_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// Why a worker looks at its pod (`SyncPodType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    /// The pod changed in the API.
    Update,
    /// Something that the pod depends on changed, or a time has come.
    Sync,
    /// The pod is gone, or the node ends it.
    Kill,
    /// Nothing of it runs any more.
    Terminated,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Sync => "sync",
            Operation::Kill => "kill",
            Operation::Terminated => "terminated",
        }
    }
}

/// How far a worker is with its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Sync,
    Terminating,
    Terminated,
}

/// A pod that has a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Working {
    pub stage: Stage,
    /// Nobody wants the pod any more.
    pub is_orphan: bool,
    /// Only the runtime knows of it.
    pub is_of_runtime: bool,
    pub is_static: bool,
}

impl Working {
    fn labels(self) -> String {
        let lifecycle = match self.stage {
            Stage::Sync => "sync",
            Stage::Terminating => "terminating",
            Stage::Terminated => "terminated",
        };
        let (config, is_static) = match self {
            Working { is_of_runtime: true, .. } => ("runtime_only", "unknown"),
            Working { is_orphan, is_static, .. } => {
                (if is_orphan { "orphan" } else { "desired" }, if is_static { "true" } else { "" })
            }
        };
        format!("config={config:?},lifecycle={lifecycle:?},static={is_static:?}")
    }

    fn all() -> impl Iterator<Item = Working> {
        let flags = [(false, false, false), (false, false, true), (true, false, false), (true, false, true)];
        flags.into_iter().chain([(true, true, false)]).flat_map(|(is_orphan, is_of_runtime, is_static)| {
            [Stage::Sync, Stage::Terminating, Stage::Terminated].map(|stage| Working {
                stage,
                is_orphan,
                is_of_runtime,
                is_static,
            })
        })
    }
}

#[derive(Debug)]
pub struct WorkerMetrics {
    durations: Histogram,
    starts: Histogram,
    status_syncs: Histogram,
    containers: Histogram,
    working: Number,
    orphans: Number,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let working = Number::gauge(
            "kubelet_working_pods",
            "Pods that have a worker, by how far it is and by who wants the pod.",
        );
        Working::all().for_each(|pod| working.set(&pod.labels(), 0.0));
        let orphans = Number::total(
            "kubelet_orphaned_runtime_pods_total",
            "Pods that were found in the runtime and nowhere else.",
        );
        let seconds = |name, help| Histogram::new(name, help, DEF_BUCKETS.to_vec());
        WorkerMetrics {
            durations: seconds(
                "kubelet_pod_worker_duration_seconds",
                "How long it took to make a pod what it is to be, by what brought that about.",
            ),
            starts: seconds(
                "kubelet_pod_worker_start_duration_seconds",
                "How long it took from when a pod was seen until its worker began.",
            ),
            status_syncs: Histogram::new(
                "kubelet_pod_status_sync_duration_seconds",
                "How long it took from a change of a pod's status until the API knew.",
                STATUS_BUCKETS.to_vec(),
            ),
            containers: Histogram::new(
                "kubelet_containers_per_pod_count",
                "How many containers pods have.",
                exponential_buckets(1.0, 2.0, 5),
            ),
            working,
            orphans,
        }
    }
}

impl WorkerMetrics {
    /// The worker of a pod seen then begins.
    pub fn started(&self, seen: Instant, containers: usize) {
        self.starts.observe("", seen.elapsed().as_secs_f64());
        self.containers.observe("", containers as f64);
    }

    pub fn synced(&self, operation: Operation, began: Instant) {
        let labels = format!("operation_type={:?}", operation.as_str());
        self.durations.observe(&labels, began.elapsed().as_secs_f64());
    }

    /// A status that differed since then from what the API knew.
    pub fn status_synced(&self, since: Instant) {
        self.status_syncs.observe("", since.elapsed().as_secs_f64());
    }

    /// A pod is no longer what it was; `None` before it has a worker, and when it has none any more.
    pub fn working(&self, before: Option<Working>, now: Option<Working>) {
        if before == now {
            return;
        }
        for (pod, change) in [(before, -1.0), (now, 1.0)] {
            if let Some(pod) = pod {
                self.working.add(&pod.labels(), change);
            }
        }
    }

    pub fn orphaned(&self) {
        self.orphans.add("", 1.0);
    }

    pub fn write(&self, text: &mut String) {
        let WorkerMetrics { durations, starts, status_syncs, containers, working, orphans } = self;
        [durations, starts, status_syncs, containers].into_iter().for_each(|histogram| histogram.write(text));
        [working, orphans].into_iter().for_each(|number| number.write(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metrics: &WorkerMetrics, line: &str) {
        let mut text = String::new();
        metrics.write(&mut text);
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn a_pod_is_counted_where_it_is() {
        let metrics = WorkerMetrics::default();
        let pod = |stage| Some(Working { stage, is_orphan: false, is_of_runtime: false, is_static: true });
        let line = |lifecycle: &str, count: u32| {
            format!(
                r#"kubelet_working_pods{{config="desired",lifecycle="{lifecycle}",static="true"}} {count}"#
            )
        };
        check(&metrics, &line("sync", 0));
        metrics.working(None, pod(Stage::Sync));
        metrics.working(None, pod(Stage::Sync));
        metrics.working(pod(Stage::Sync), pod(Stage::Terminating));
        check(&metrics, &line("sync", 1));
        check(&metrics, &line("terminating", 1));
        metrics.working(pod(Stage::Terminating), None);
        check(&metrics, &line("terminating", 0));
        let runtimes = Working { stage: Stage::Sync, is_orphan: true, is_of_runtime: true, is_static: false };
        metrics.working(None, Some(runtimes));
        check(&metrics, r#"kubelet_working_pods{config="runtime_only",lifecycle="sync",static="unknown"} 1"#);
    }

    #[test]
    fn turns_are_told_apart_by_what_brought_them_about() {
        let metrics = WorkerMetrics::default();
        metrics.started(Instant::now(), 3);
        metrics.synced(Operation::Create, Instant::now());
        metrics.synced(Operation::Kill, Instant::now());
        metrics.status_synced(Instant::now());
        for line in [
            "kubelet_pod_worker_start_duration_seconds_count 1",
            r#"kubelet_containers_per_pod_count_bucket{le="2"} 0"#,
            r#"kubelet_containers_per_pod_count_bucket{le="4"} 1"#,
            r#"kubelet_pod_worker_duration_seconds_count{operation_type="create"} 1"#,
            r#"kubelet_pod_worker_duration_seconds_count{operation_type="kill"} 1"#,
            "kubelet_pod_status_sync_duration_seconds_count 1",
        ] {
            check(&metrics, line);
        }
    }
}
