//! What the volumes of pods take: how long they are brought and taken away, how drivers answer, and how many there are
//! (follows `pkg/volume/util/metrics.go` and the kubelet's `volumemanager/metrics`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use client::metrics::{Histogram, head, sample};
use tonic::{Code, Status};

/// Seconds (`StorageOperationMetric` and those beside it).
const BUCKETS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
const MOUNT: &str = "volume_mount";
const UNMOUNT: &str = "volume_unmount";

#[derive(Debug)]
pub struct VolumeMetrics {
    operations: Histogram,
    csi_operations: Histogram,
    /// By uid of the pod and name of the volume in it.
    volumes: Mutex<HashMap<String, BTreeMap<String, Known>>>,
}

#[derive(Debug)]
struct Known {
    /// Upstream's plugin, with the driver of a CSI volume behind it.
    plugin: String,
    /// Whether the pod is to have it.
    is_desired: bool,
    /// Whether it is there.
    is_mounted: bool,
}

impl Default for VolumeMetrics {
    fn default() -> Self {
        VolumeMetrics {
            operations: Histogram::new(
                "storage_operation_duration_seconds",
                "How long it took to bring volumes into pods and to take them away.",
                BUCKETS.to_vec(),
            ),
            csi_operations: Histogram::new(
                "csi_operations_seconds",
                "How long drivers of volumes took to answer, by their answer.",
                BUCKETS.to_vec(),
            ),
            volumes: Mutex::default(),
        }
    }
}

impl VolumeMetrics {
    /// A volume that is being brought into a pod.
    pub fn mounting<'a>(&'a self, uid: &'a str, volume: &'a str, plugin: String) -> Mounting<'a> {
        let mut volumes = self.volumes();
        let of_pod = volumes.entry(uid.to_owned()).or_default();
        let known = of_pod.entry(volume.to_owned()).or_insert_with(|| Known {
            plugin: plugin.clone(),
            is_desired: true,
            is_mounted: false,
        });
        known.is_desired = true;
        Mounting { metrics: self, uid, volume, plugin, began: Instant::now() }
    }

    /// All volumes of a pod that are being taken away.
    pub fn unmounting<'a>(&'a self, uid: &'a str) -> Unmounting<'a> {
        if let Some(of_pod) = self.volumes().get_mut(uid) {
            of_pod.values_mut().for_each(|known| known.is_desired = false);
        }
        Unmounting { metrics: self, uid, began: Instant::now() }
    }

    fn observe(&self, plugin: &str, operation: &str, succeeded: bool, began: Instant) {
        let status = if succeeded { "success" } else { "fail-unknown" };
        let labels = format!(
            "migrated=\"false\",operation_name={operation:?},status={status:?},volume_plugin={plugin:?}"
        );
        self.operations.observe(&labels, began.elapsed().as_secs_f64());
    }

    /// A call of a driver that began then; `method` is its path.
    pub fn driver_called(&self, driver: &str, method: &str, answer: Option<&Status>, began: Instant) {
        let code = code(answer.map_or(Code::Ok, Status::code));
        let labels = format!(
            "driver_name={driver:?},grpc_status_code={code:?},method_name={method:?},migrated=\"false\""
        );
        self.csi_operations.observe(&labels, began.elapsed().as_secs_f64());
    }

    pub fn write(&self, text: &mut String) {
        self.operations.write(text);
        self.csi_operations.write(text);
        const TOTAL: &str = "volume_manager_total_volumes";
        head(text, TOTAL, "Volumes that pods are to have, and that they have.", "gauge");
        for ((plugin, state), count) in self.counts() {
            sample(text, TOTAL, "", &format!("plugin_name={plugin:?},state={state:?}"), "", count);
        }
    }

    fn counts(&self) -> BTreeMap<(String, &'static str), f64> {
        let mut counts = BTreeMap::new();
        for known in self.volumes().values().flat_map(BTreeMap::values) {
            for (holds, state) in
                [(known.is_mounted, "actual_state_of_world"), (known.is_desired, "desired_state_of_world")]
            {
                if holds {
                    *counts.entry((known.plugin.clone(), state)).or_default() += 1.0;
                }
            }
        }
        counts
    }

    /// No holder leaves the table half written.
    fn volumes(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Known>>> {
        self.volumes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[must_use]
pub struct Mounting<'a> {
    metrics: &'a VolumeMetrics,
    uid: &'a str,
    volume: &'a str,
    plugin: String,
    began: Instant,
}

impl Mounting<'_> {
    pub fn ended(self, succeeded: bool) {
        self.metrics.observe(&self.plugin, MOUNT, succeeded, self.began);
        let mut volumes = self.metrics.volumes();
        if let Some(known) = volumes.get_mut(self.uid).and_then(|of_pod| of_pod.get_mut(self.volume)) {
            known.is_mounted |= succeeded;
        }
    }
}

#[must_use]
pub struct Unmounting<'a> {
    metrics: &'a VolumeMetrics,
    uid: &'a str,
    began: Instant,
}

impl Unmounting<'_> {
    /// They go together, so that each took as long as all.
    pub fn ended(self, succeeded: bool) {
        let mut volumes = self.metrics.volumes();
        for known in volumes.get(self.uid).into_iter().flat_map(BTreeMap::values) {
            self.metrics.observe(&known.plugin, UNMOUNT, succeeded, self.began);
        }
        if succeeded {
            volumes.remove(self.uid);
        }
    }
}

/// gRPC's codes as Go writes them.
fn code(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(metrics: &VolumeMetrics) -> String {
        let mut text = String::new();
        metrics.write(&mut text);
        text
    }

    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn a_volume_is_desired_until_its_pod_ends_and_there_until_it_is_taken_away() {
        let metrics = VolumeMetrics::default();
        let plugin = || "kubernetes.io/secret".to_owned();
        let of = |state: &str, count: u32| {
            format!(
                r#"volume_manager_total_volumes{{plugin_name="kubernetes.io/secret",state="{state}_state_of_world"}} {count}"#
            )
        };
        metrics.mounting("u", "a", plugin()).ended(false);
        let text = shown(&metrics);
        check(&text, &of("desired", 1));
        assert!(!text.contains("actual_state_of_world"), "{text}");
        metrics.mounting("u", "a", plugin()).ended(true);
        metrics.mounting("u", "b", plugin()).ended(true);
        // Renewed in vain, it is still there.
        metrics.mounting("u", "b", plugin()).ended(false);
        check(&shown(&metrics), &of("actual", 2));
        metrics.unmounting("u").ended(false);
        let text = shown(&metrics);
        check(&text, &of("actual", 2));
        assert!(!text.contains("desired_state_of_world"), "{text}");
        metrics.unmounting("u").ended(true);
        let text = shown(&metrics);
        assert!(!text.contains("volume_manager_total_volumes{"), "{text}");
        for (operation, status, count) in [
            (MOUNT, "success", 2),
            (MOUNT, "fail-unknown", 2),
            (UNMOUNT, "success", 2),
            (UNMOUNT, "fail-unknown", 2),
        ] {
            check(
                &text,
                &format!(
                    r#"storage_operation_duration_seconds_count{{migrated="false",operation_name="{operation}",status="{status}",volume_plugin="kubernetes.io/secret"}} {count}"#
                ),
            );
        }
    }

    #[test]
    fn what_drivers_answer_is_told_in_grpcs_words() {
        let metrics = VolumeMetrics::default();
        let method = "/csi.v1.Node/NodePublishVolume";
        metrics.driver_called("d", method, None, Instant::now());
        metrics.driver_called("d", method, Some(&Status::cancelled("")), Instant::now());
        metrics.driver_called("d", method, Some(&Status::not_found("")), Instant::now());
        let text = shown(&metrics);
        for code in ["OK", "Canceled", "NotFound"] {
            let line = format!(
                r#"csi_operations_seconds_count{{driver_name="d",grpc_status_code="{code}",method_name="{method}",migrated="false"}} 1"#
            );
            check(&text, &line);
        }
    }
}
