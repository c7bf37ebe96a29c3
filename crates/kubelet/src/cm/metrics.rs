//! How often pods were given resources of their own, and how often that failed (follows the metrics of upstream's
//! `topologymanager`, `cpumanager`, `memorymanager` and `devicemanager`).

use std::time::{Duration, Instant};

use client::metrics::{DEF_BUCKETS, Histogram, Number, exponential_buckets};

/// Attempts, and those that failed.
#[derive(Debug)]
pub struct Attempts {
    requests: Number,
    errors: Number,
}

impl Attempts {
    fn new(requests: (&'static str, &'static str), errors: (&'static str, &'static str)) -> Self {
        let total = |(name, help)| Number::total(name, help);
        Attempts { requests: total(requests), errors: total(errors) }
    }

    pub fn made<T, E>(&self, outcome: &Result<T, E>) {
        self.requests.add("", 1.0);
        if outcome.is_err() {
            self.errors.add("", 1.0);
        }
    }

    fn write(&self, text: &mut String) {
        self.requests.write(text);
        self.errors.write(text);
    }
}

#[derive(Debug)]
pub struct AdmissionMetrics {
    pub topology: Attempts,
    topology_milliseconds: Histogram,
    pub cpus: Attempts,
    pub memory: Attempts,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        AdmissionMetrics {
            topology: Attempts::new(
                (
                    "kubelet_topology_manager_admission_requests_total",
                    "Pods whose resources had to be brought together.",
                ),
                ("kubelet_topology_manager_admission_errors_total", "Those for which that was not possible."),
            ),
            topology_milliseconds: Histogram::new(
                "kubelet_topology_manager_admission_duration_ms",
                "How many milliseconds it took to give a pod its resources.",
                exponential_buckets(0.05, 2.0, 15),
            ),
            cpus: Attempts::new(
                (
                    "kubelet_cpu_manager_pinning_requests_total",
                    "Containers that were to have CPUs of their own.",
                ),
                ("kubelet_cpu_manager_pinning_errors_total", "Those that could not have them."),
            ),
            memory: Attempts::new(
                (
                    "kubelet_memory_manager_pinning_requests_total",
                    "Containers that were to have memory of certain nodes.",
                ),
                ("kubelet_memory_manager_pinning_errors_total", "Those that could not have it."),
            ),
        }
    }
}

impl AdmissionMetrics {
    pub fn admitted<T, E>(&self, outcome: &Result<T, E>, took: Duration) {
        self.topology.made(outcome);
        self.topology_milliseconds.observe("", took.as_millis() as f64);
    }

    pub fn write(&self, text: &mut String) {
        self.topology.write(text);
        self.topology_milliseconds.write(text);
        self.cpus.write(text);
        self.memory.write(text);
    }
}

/// Claims of dynamic resources.
#[derive(Debug)]
pub struct DraMetrics {
    operations: Histogram,
}

impl Default for DraMetrics {
    fn default() -> Self {
        // From a tenth of a second to 40 (`DRADurationBuckets`).
        let (first, last, count) = (0.1, 40.0_f64, 15);
        let factor = (last / first).powf(1.0 / f64::from(count - 1));
        DraMetrics {
            operations: Histogram::new(
                "dra_operations_duration_seconds",
                "How long it took to make all claims of a pod ready, or to give them back.",
                exponential_buckets(first, factor, count),
            ),
        }
    }
}

impl DraMetrics {
    pub fn done(&self, operation: &str, failed: bool, began: Instant) {
        let labels = format!("is_error=\"{failed}\",operation_name={operation:?}");
        self.operations.observe(&labels, began.elapsed().as_secs_f64());
    }

    pub fn write(&self, text: &mut String) {
        self.operations.write(text);
    }
}

#[derive(Debug)]
pub struct DeviceMetrics {
    registrations: Number,
    allocations: Histogram,
}

impl Default for DeviceMetrics {
    fn default() -> Self {
        DeviceMetrics {
            registrations: Number::counter(
                "kubelet_device_plugin_registration_total",
                "Device plugins that registered, by their resource.",
            ),
            allocations: Histogram::new(
                "kubelet_device_plugin_alloc_duration_seconds",
                "How long device plugins took to give devices, by their resource.",
                DEF_BUCKETS.to_vec(),
            ),
        }
    }
}

impl DeviceMetrics {
    pub fn registered(&self, resource: &str) {
        self.registrations.add(&format!("resource_name={resource:?}"), 1.0);
    }

    pub fn allocated(&self, resource: &str, began: Instant) {
        let labels = format!("resource_name={resource:?}");
        self.allocations.observe(&labels, began.elapsed().as_secs_f64());
    }

    pub fn write(&self, text: &mut String) {
        self.registrations.write(text);
        self.allocations.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_counted_as_an_attempt_too() {
        let (admission, devices) = (AdmissionMetrics::default(), DeviceMetrics::default());
        admission.admitted(&Ok::<_, ()>(()), Duration::from_millis(1));
        admission.admitted(&Err::<(), _>(()), Duration::from_millis(1));
        admission.cpus.made(&Err::<(), _>(()));
        devices.registered("example.com/gpu");
        devices.allocated("example.com/gpu", Instant::now());
        let mut text = String::new();
        let claims = DraMetrics::default();
        claims.done("PrepareResources", true, Instant::now());
        admission.write(&mut text);
        devices.write(&mut text);
        claims.write(&mut text);
        for line in [
            "kubelet_topology_manager_admission_requests_total 2",
            "kubelet_topology_manager_admission_errors_total 1",
            r#"kubelet_topology_manager_admission_duration_ms_bucket{le="0.8"} 0"#,
            r#"kubelet_topology_manager_admission_duration_ms_bucket{le="1.6"} 2"#,
            "kubelet_cpu_manager_pinning_requests_total 1",
            "kubelet_cpu_manager_pinning_errors_total 1",
            "kubelet_memory_manager_pinning_requests_total 0",
            r#"dra_operations_duration_seconds_count{is_error="true",operation_name="PrepareResources"} 1"#,
            r#"kubelet_device_plugin_registration_total{resource_name="example.com/gpu"} 1"#,
            r#"kubelet_device_plugin_alloc_duration_seconds_count{resource_name="example.com/gpu"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
