//! `/metrics/cadvisor`: the same figures under the names that dashboards made for cAdvisor use.

use client::metrics::{head, sample_at};
use runtime::cri;

use super::{labels, seconds};
use crate::stats::node::NodeReading;
use crate::stats::{ContainerReading, PodReading, Reading, number};

pub fn cadvisor(reading: &Reading) -> String {
    let mut text = String::new();
    usage(&mut text, reading);
    network(&mut text, reading);
    machine(&mut text, reading);
    text
}

/// What is told of the node as a whole (`/`), of a pod, and of a container.
enum Of<'a> {
    Node(&'a NodeReading),
    Pod(&'a PodReading),
    Container(&'a ContainerReading),
}

impl Of<'_> {
    fn cpu(&self) -> Option<u64> {
        let of = |cpu: Option<&cri::CpuUsage>| number(cpu?.usage_core_nano_seconds.as_ref());
        match self {
            Of::Node(node) => Some(node.cpu_nanos),
            Of::Pod(pod) => of(pod.usage.cpu.as_ref()),
            Of::Container(container) => of(container.usage.cpu.as_ref()),
        }
    }

    fn memory(
        &self,
        of_node: fn(&NodeReading) -> u64,
        of: fn(&cri::MemoryUsage) -> Option<&cri::UInt64Value>,
    ) -> Option<u64> {
        match self {
            Of::Node(node) => Some(of_node(node)),
            Of::Pod(pod) => number(of(pod.usage.memory.as_ref()?)),
            Of::Container(container) => number(of(container.usage.memory.as_ref()?)),
        }
    }

    fn disk(&self, of: fn(&cri::FilesystemUsage) -> Option<&cri::UInt64Value>) -> Option<u64> {
        match self {
            Of::Container(container) => number(of(container.usage.writable_layer.as_ref()?)),
            _ => None,
        }
    }

    fn start(&self) -> Option<f64> {
        match self {
            Of::Node(_) => None,
            Of::Pod(pod) => Some(pod.started_at.as_second() as f64),
            Of::Container(container) => Some(container.started_at.as_second() as f64),
        }
    }

    fn processes(&self) -> Option<u64> {
        match self {
            Of::Node(node) => node.processes,
            Of::Pod(pod) => number(pod.usage.process.as_ref()?.process_count.as_ref()),
            Of::Container(_) => None,
        }
    }
}

/// A resource that processes may have to wait for.
enum Waited {
    Cpu,
    Memory,
    Io,
}

impl Of<'_> {
    /// Seconds for which all processes, or only some, waited.
    fn waited(&self, resource: Waited, all: bool) -> Option<f64> {
        let psi = match self {
            Of::Node(node) => node.pressure[resource as usize],
            Of::Pod(pod) => waited(resource, pod.usage.cpu, pod.usage.memory, pod.usage.io),
            Of::Container(container) => {
                let usage = &container.usage;
                waited(resource, usage.cpu, usage.memory, usage.io)
            }
        }?;
        let data = if all { psi.full } else { psi.some };
        data.map(|data| seconds(data.total))
    }
}

fn waited(
    resource: Waited,
    cpu: Option<cri::CpuUsage>,
    memory: Option<cri::MemoryUsage>,
    io: Option<cri::IoUsage>,
) -> Option<cri::PsiStats> {
    match resource {
        Waited::Cpu => cpu?.psi,
        Waited::Memory => memory?.psi,
        Waited::Io => io?.psi,
    }
}

type Figure = fn(&Of<'_>) -> Option<f64>;

const FIGURES: [(&str, &str, &str, Figure); 16] = [
    ("container_cpu_usage_seconds_total", "counter", "Processor time used.", |of| of.cpu().map(seconds)),
    ("container_memory_usage_bytes", "gauge", "Memory used, file pages included.", |of| {
        of.memory(|node| node.memory.usage, |memory| memory.usage_bytes.as_ref()).map(|n| n as f64)
    }),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Memory used, without file pages not used lately.",
        |of| {
            of.memory(|node| node.memory.working_set, |memory| memory.working_set_bytes.as_ref())
                .map(|n| n as f64)
        },
    ),
    ("container_memory_rss", "gauge", "Memory that no file stands behind.", |of| {
        of.memory(|node| node.memory.rss, |memory| memory.rss_bytes.as_ref()).map(|n| n as f64)
    }),
    ("container_memory_swap", "gauge", "Memory swapped out.", |of| match of {
        Of::Node(node) => Some(node.memory.swap_usage as f64),
        Of::Pod(_) => None,
        Of::Container(container) => container.swap().map(|n| n as f64),
    }),
    ("container_memory_failures_total", "counter", "Page faults that had to read from disk.", |of| {
        of.memory(|node| node.memory.major_page_faults, |memory| memory.major_page_faults.as_ref())
            .map(|n| n as f64)
    }),
    ("container_fs_usage_bytes", "gauge", "Bytes written beside volumes.", |of| {
        of.disk(|layer| layer.used_bytes.as_ref()).map(|n| n as f64)
    }),
    ("container_fs_inodes_total", "gauge", "Inodes used beside volumes.", |of| {
        of.disk(|layer| layer.inodes_used.as_ref()).map(|n| n as f64)
    }),
    ("container_processes", "gauge", "Processes that run.", |of| of.processes().map(|n| n as f64)),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "counter",
        "Time for which all waited for a processor.",
        |of| of.waited(Waited::Cpu, true),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "counter",
        "Time for which some waited for a processor.",
        |of| of.waited(Waited::Cpu, false),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "counter",
        "Time for which all waited for memory.",
        |of| of.waited(Waited::Memory, true),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "counter",
        "Time for which some waited for memory.",
        |of| of.waited(Waited::Memory, false),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "counter",
        "Time for which all waited for input and output.",
        |of| of.waited(Waited::Io, true),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "counter",
        "Time for which some waited for input and output.",
        |of| of.waited(Waited::Io, false),
    ),
    ("container_start_time_seconds", "gauge", "When it started, in seconds since 1970.", |of| of.start()),
];

fn usage(text: &mut String, reading: &Reading) {
    for (name, kind, help, figure) in FIGURES {
        head(text, name, help, kind);
        let mut tell = |labels: String, of: Of<'_>| {
            if let Some(value) = figure(&of) {
                let more = if name == "container_memory_failures_total" {
                    ",failure_type=\"pgmajfault\",scope=\"hierarchy\""
                } else {
                    ""
                };
                sample_at(text, name, &format!("{labels}{more}"), value, reading.at);
            }
        };
        tell(labels(&[("id", "/")]), Of::Node(&reading.node));
        for pod in &reading.pods {
            tell(pod_labels(pod), Of::Pod(pod));
            for container in &pod.containers {
                tell(container_labels(pod, container), Of::Container(container));
            }
        }
    }
}

/// By name, the counter of an interface that is told.
type Counter = fn(&cri::NetworkInterfaceUsage) -> Option<&cri::UInt64Value>;

const COUNTERS: [(&str, &str, Counter); 4] = [
    ("container_network_receive_bytes_total", "Bytes received.", |of| of.rx_bytes.as_ref()),
    ("container_network_receive_errors_total", "Errors while receiving.", |of| of.rx_errors.as_ref()),
    ("container_network_transmit_bytes_total", "Bytes sent.", |of| of.tx_bytes.as_ref()),
    ("container_network_transmit_errors_total", "Errors while sending.", |of| of.tx_errors.as_ref()),
];

fn network(text: &mut String, reading: &Reading) {
    for (name, help, counter) in COUNTERS {
        head(text, name, help, "counter");
        for pod in &reading.pods {
            let Some(network) = &pod.usage.network else { continue };
            for interface in network.default_interface.iter().chain(&network.interfaces) {
                let Some(value) = number(counter(interface)) else { continue };
                let labels = format!("{},interface={:?}", pod_labels(pod), interface.name);
                sample_at(text, name, &labels, value as f64, reading.at);
            }
        }
    }
}

fn machine(text: &mut String, reading: &Reading) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = reading.node.memory.available.saturating_add(reading.node.memory.working_set);
    for (name, help, value) in [
        ("machine_cpu_cores", "Processors of this machine.", cores as f64),
        ("machine_memory_bytes", "Memory of this machine.", memory as f64),
        ("machine_swap_bytes", "Swap of this machine.", {
            let swap = &reading.node.memory;
            swap.swap_usage.saturating_add(swap.swap_available) as f64
        }),
    ] {
        head(text, name, help, "gauge");
        sample_at(text, name, "", value, reading.at);
    }
}

fn pod_labels(pod: &PodReading) -> String {
    labels(&[("id", &pod_id(pod)), ("namespace", &pod.namespace), ("pod", &pod.name)])
}

/// What stands for the cgroup: the kubelet knows the runtime's cgroups by these names only.
fn pod_id(pod: &PodReading) -> String {
    format!("/pod{}", pod.uid)
}

fn container_labels(pod: &PodReading, container: &ContainerReading) -> String {
    labels(&[
        ("container", &container.name),
        ("id", &format!("{}/{}", pod_id(pod), container.id)),
        ("image", &container.image),
        ("name", &container.id),
        ("namespace", &pod.namespace),
        ("pod", &pod.name),
    ])
}
