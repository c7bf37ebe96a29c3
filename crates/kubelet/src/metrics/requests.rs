//! What the kubelet is asked for by others on the node, and what it asks of the runtime, beyond the calls themselves
//! (follows the metrics of upstream's `podresources`, `images` and `pleg`).

use std::time::Duration;

use client::metrics::{DEF_BUCKETS, Histogram, Number};

/// The version of the pod resources API.
const VERSION: &str = r#"server_api_version="v1""#;

/// A call of the pod resources API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodResourcesCall {
    List,
    GetAllocatable,
    Get,
}

#[derive(Debug)]
pub struct RequestMetrics {
    all: Number,
    /// In the order of the calls: asked, and answered with an error.
    calls: [(Number, Number); 3],
    ensured_images: Number,
    image_volumes: Number,
    mounted_image_volumes: Number,
    failed_image_volumes: Number,
    event_streams: Number,
    event_stream_errors: Number,
    event_latency: Histogram,
    observations: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let call = |asked, failed| {
            let asked = Number::counter(asked, "Requests of the pod resources API, of one kind.");
            (asked, Number::counter(failed, "Those that failed."))
        };
        let seconds = |name, help| Histogram::new(name, help, DEF_BUCKETS.to_vec());
        RequestMetrics {
            all: Number::counter(
                "kubelet_pod_resources_endpoint_requests_total",
                "Requests of the pod resources API.",
            ),
            calls: [
                call(
                    "kubelet_pod_resources_endpoint_requests_list",
                    "kubelet_pod_resources_endpoint_errors_list",
                ),
                call(
                    "kubelet_pod_resources_endpoint_requests_get_allocatable",
                    "kubelet_pod_resources_endpoint_errors_get_allocatable",
                ),
                call(
                    "kubelet_pod_resources_endpoint_requests_get",
                    "kubelet_pod_resources_endpoint_errors_get",
                ),
            ],
            ensured_images: Number::counter(
                "kubelet_image_manager_ensure_image_requests_total",
                "Images that were to be there, by whether they were and had to be pulled.",
            ),
            image_volumes: Number::total(
                "kubelet_image_volume_requested_total",
                "Volumes that are images, for each container of their pods.",
            ),
            mounted_image_volumes: Number::total(
                "kubelet_image_volume_mounted_succeed_total",
                "Such volumes that were mounted into containers.",
            ),
            failed_image_volumes: Number::total(
                "kubelet_image_volume_mounted_errors_total",
                "Such volumes that could not be mounted.",
            ),
            event_streams: Number::total(
                "kubelet_evented_pleg_connection_success_count",
                "Streams of events that the runtime began.",
            ),
            event_stream_errors: Number::total(
                "kubelet_evented_pleg_connection_error_count",
                "Streams of events that it did not begin, or broke off.",
            ),
            event_latency: seconds(
                "kubelet_evented_pleg_connection_latency_seconds",
                "How long events of the runtime were under way.",
            ),
            observations: seconds(
                "kubelet_pleg_pod_relist_duration_seconds",
                "How long it took to learn from the runtime how a pod is.",
            ),
        }
    }
}

impl RequestMetrics {
    pub fn pod_resources<T, E>(&self, call: PodResourcesCall, answer: &Result<T, E>) {
        let (asked, failed) = &self.calls[call as usize];
        self.all.add(VERSION, 1.0);
        asked.add(VERSION, 1.0);
        if answer.is_err() {
            failed.add(VERSION, 1.0);
        }
    }

    /// What is not known of an image is `None`.
    pub fn image_ensured(&self, policy: &str, is_present: Option<bool>, must_be_pulled: Option<bool>) {
        let told = |known: Option<bool>| known.map_or("unknown".to_owned(), |known| known.to_string());
        let (present, required) = (told(is_present), told(must_be_pulled));
        let policy = policy.to_ascii_lowercase();
        let labels = format!("present_locally={present:?},pull_policy={policy:?},pull_required={required:?}");
        self.ensured_images.add(&labels, 1.0);
    }

    /// A container that mounts so many volumes that are images, of so many of its pod, was made or not.
    pub fn image_volumes(&self, of_pod: usize, mounted: usize, succeeded: bool) {
        self.image_volumes.add("", of_pod as f64);
        let counted = if succeeded { &self.mounted_image_volumes } else { &self.failed_image_volumes };
        counted.add("", mounted as f64);
    }

    pub fn event_stream<T, E>(&self, outcome: &Result<T, E>) {
        let counted = if outcome.is_ok() { &self.event_streams } else { &self.event_stream_errors };
        counted.add("", 1.0);
    }

    pub fn event_heard(&self, after: Duration) {
        self.event_latency.observe("", after.as_secs_f64());
    }

    pub fn pod_observed(&self, took: Duration) {
        self.observations.observe("", took.as_secs_f64());
    }

    pub fn write(&self, text: &mut String) {
        self.all.write(text);
        for (asked, failed) in &self.calls {
            asked.write(text);
            failed.write(text);
        }
        for number in [
            &self.ensured_images,
            &self.image_volumes,
            &self.mounted_image_volumes,
            &self.failed_image_volumes,
            &self.event_streams,
            &self.event_stream_errors,
        ] {
            number.write(text);
        }
        self.event_latency.write(text);
        self.observations.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_were_for_and_became() {
        let metrics = RequestMetrics::default();
        metrics.pod_resources(PodResourcesCall::List, &Ok::<_, ()>(()));
        metrics.pod_resources(PodResourcesCall::Get, &Err::<(), _>(()));
        metrics.image_ensured("IfNotPresent", Some(true), None);
        metrics.image_volumes(2, 1, true);
        metrics.event_stream(&Err::<(), _>(()));
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            r#"kubelet_pod_resources_endpoint_requests_total{server_api_version="v1"} 2"#,
            r#"kubelet_pod_resources_endpoint_requests_list{server_api_version="v1"} 1"#,
            r#"kubelet_pod_resources_endpoint_errors_get{server_api_version="v1"} 1"#,
            r#"kubelet_image_manager_ensure_image_requests_total{present_locally="true",pull_policy="ifnotpresent",pull_required="unknown"} 1"#,
            "kubelet_image_volume_requested_total 2",
            "kubelet_image_volume_mounted_succeed_total 1",
            "kubelet_image_volume_mounted_errors_total 0",
            "kubelet_evented_pleg_connection_error_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("errors_list{"), "{text}");
    }
}
