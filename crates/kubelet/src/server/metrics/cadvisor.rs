//! `/metrics/cadvisor`: the same figures under the names that dashboards made for cAdvisor use.

use client::metrics::{head, sample, sample_at};
use runtime::cri;

use super::{labels, seconds};
use crate::cm::count_cpus;
use crate::stats::cgroup::{Cgroup, Cpu, Device, Memory, Tasks, Told};
use crate::stats::node::{Interface, NodeReading};
use crate::stats::{ContainerReading, Filesystem, PodReading, Reading, number};

pub fn cadvisor(reading: &Reading, told: &Told, machine: &Machine) -> String {
    let mut text = String::new();
    head(&mut text, "cadvisor_version_info", "What runs here.", GAUGE);
    let versions = labels(&[("kernelVersion", &machine.kernel_version), ("osVersion", &machine.os_image)]);
    sample(&mut text, "cadvisor_version_info", "", &versions, "", 1.0);
    usage(&mut text, reading, told);
    write_machine(&mut text, reading, machine);
    for name in ["container_scrape_error", "machine_scrape_error"] {
        head(&mut text, name, "1 if the figures could not be read.", GAUGE);
        sample(&mut text, name, "", "", "", 0.0);
    }
    text
}

/// What does not change while the machine runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cores: usize,
    pub sockets: usize,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
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

/// Of what a line tells, and who that is.
struct Subject<'a> {
    labels: String,
    of: Of<'a>,
    cgroup: &'a Cgroup,
    device: &'a str,
    reading: &'a Reading,
}

enum Figure {
    One(fn(&Subject<'_>) -> Option<f64>),
    /// With the labels that tell them apart.
    Many(fn(&Subject<'_>) -> Vec<(String, f64)>),
}

struct Row {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Whether it is told when the value was read.
    timed: bool,
    figure: Figure,
}

const fn row(name: &'static str, kind: &'static str, help: &'static str, figure: Figure) -> Row {
    Row { name, kind, help, timed: true, figure }
}

const fn untimed(name: &'static str, help: &'static str, figure: Figure) -> Row {
    Row { name, kind: GAUGE, help, timed: false, figure }
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

fn count(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn time(nanoseconds: Option<u64>) -> Option<f64> {
    nanoseconds.map(seconds)
}

impl Subject<'_> {
    fn cpu(&self) -> &Cpu {
        &self.cgroup.cpu
    }

    /// A count of what a limit of processor time brought about, where there is such a limit.
    fn limited(&self, value: Option<u64>) -> Option<u64> {
        self.cpu().quota.and(value)
    }

    fn memory(&self) -> &Memory {
        &self.cgroup.memory
    }

    fn processes(&self) -> Option<&Tasks> {
        matches!(self.of, Of::Container(_)).then_some(&self.cgroup.tasks)
    }

    fn page_faults(&self) -> Vec<(String, f64)> {
        let major =
            self.of.memory(|node| node.memory.major_page_faults, |memory| memory.major_page_faults.as_ref());
        let all = [("pgfault", self.memory().page_faults), ("pgmajfault", major)];
        let told = all.into_iter().filter_map(|(kind, faults)| Some((kind, faults? as f64)));
        told.map(|(kind, faults)| (labels(&[("failure_type", kind), ("scope", "hierarchy")]), faults))
            .collect()
    }

    fn devices(&self, of: fn(&Device) -> u64) -> Vec<(String, f64)> {
        let devices = self.cgroup.devices.iter();
        devices.map(|device| (labels(&[("device", &device.name)]), of(device) as f64)).collect()
    }

    fn device_operations(&self) -> Vec<(String, f64)> {
        let of = |device: &Device, operation, bytes| {
            let (major, minor) = (device.major.to_string(), device.minor.to_string());
            let device = device.name.as_str();
            (
                labels(&[("device", device), ("major", &major), ("minor", &minor), ("operation", operation)]),
                bytes as f64,
            )
        };
        let devices = self.cgroup.devices.iter();
        devices.flat_map(|d| [of(d, "Read", d.read_bytes), of(d, "Write", d.written_bytes)]).collect()
    }

    fn interfaces(&self, of: fn(&Interface) -> u64) -> Vec<(String, f64)> {
        let interfaces = self.cgroup.interfaces.iter();
        interfaces.map(|link| (labels(&[("interface", &link.name)]), of(link) as f64)).collect()
    }

    /// Of the file system on which volumes and writable layers are: only the node has one of its own.
    fn filesystem(&self, of: fn(&Filesystem) -> u64) -> Vec<(String, f64)> {
        let own = matches!(self.of, Of::Node(_)).then_some(&self.reading.node_fs);
        own.map(|fs| (labels(&[("device", self.device)]), of(fs) as f64)).into_iter().collect()
    }

    fn written(&self) -> Vec<(String, f64)> {
        let layer = self.of.disk(|layer| layer.used_bytes.as_ref());
        let layer = layer.map(|bytes| (labels(&[("device", self.device)]), bytes as f64));
        layer.into_iter().chain(self.filesystem(|fs| fs.used_bytes)).collect()
    }
}

use Figure::{Many, One};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    untimed("container_start_time_seconds", "When it started, in seconds since 1970.", One(|s| s.of.start())),
    untimed("container_spec_cpu_period", "Microseconds over which processor time is limited.", One(|s| count(s.cpu().period))),
    untimed("container_spec_cpu_quota", "Microseconds of processor time in such a period.", One(|s| count(s.cpu().quota))),
    untimed("container_spec_cpu_shares", "Share of the processor when it is short.", One(|s| count(s.cpu().shares))),
    untimed("container_spec_memory_limit_bytes", "Limit of memory; 0 without.", One(|s| count(s.memory().limit))),
    untimed("container_spec_memory_swap_limit_bytes", "Limit of swap; 0 without.", One(|s| count(s.memory().swap_limit))),
    untimed("container_spec_memory_reservation_limit_bytes", "Memory that is kept; 0 without.", One(|s| count(s.memory().reservation))),
    row("container_last_seen", GAUGE, "When it was last seen, in seconds since 1970.", One(|s| Some(s.reading.at.as_second() as f64))),
    row("container_cpu_usage_seconds_total", COUNTER, "Processor time used.", Many(|s| {
        s.of.cpu().map(|nanos| (labels(&[("cpu", "total")]), seconds(nanos))).into_iter().collect()
    })),
    row("container_cpu_user_seconds_total", COUNTER, "Processor time used outside the kernel.", One(|s| time(s.cpu().user_nanos))),
    row("container_cpu_system_seconds_total", COUNTER, "Processor time used in the kernel.", One(|s| time(s.cpu().system_nanos))),
    row("container_cpu_cfs_periods_total", COUNTER, "Periods in which it ran.", One(|s| count(s.limited(s.cpu().periods)))),
    row("container_cpu_cfs_throttled_periods_total", COUNTER, "Periods in which its limit held it back.", One(|s| count(s.limited(s.cpu().throttled_periods)))),
    row("container_cpu_cfs_throttled_seconds_total", COUNTER, "Time for which its limit held it back.", One(|s| time(s.limited(s.cpu().throttled_nanos)))),
    row("container_cpu_cfs_burst_periods_total", COUNTER, "Periods in which it used what it had saved.", One(|s| count(s.limited(s.cpu().burst_periods)))),
    row("container_cpu_cfs_burst_seconds_total", COUNTER, "Time it used of what it had saved.", One(|s| time(s.limited(s.cpu().burst_nanos)))),
    row("container_memory_cache", GAUGE, "Memory that files stand behind.", One(|s| count(s.memory().cache))),
    row("container_memory_rss", GAUGE, "Memory that no file stands behind.", One(|s| {
        count(s.of.memory(|node| node.memory.rss, |memory| memory.rss_bytes.as_ref()))
    })),
    row("container_memory_kernel_usage", GAUGE, "Memory that the kernel uses for it.", One(|s| count(s.memory().kernel))),
    row("container_memory_mapped_file", GAUGE, "Files mapped into memory.", One(|s| count(s.memory().mapped_file))),
    row("container_memory_swap", GAUGE, "Memory swapped out.", One(|s| match s.of {
        Of::Node(node) => Some(node.memory.swap_usage as f64),
        Of::Pod(_) => None,
        Of::Container(container) => count(container.swap()),
    })),
    row("container_memory_failcnt", COUNTER, "How often its limit of memory was met.", One(|s| count(s.memory().failures))),
    row("container_memory_usage_bytes", GAUGE, "Memory used, file pages included.", One(|s| {
        count(s.of.memory(|node| node.memory.usage, |memory| memory.usage_bytes.as_ref()))
    })),
    row("container_memory_max_usage_bytes", GAUGE, "The most memory used so far.", One(|s| count(s.memory().max_usage))),
    row("container_memory_working_set_bytes", GAUGE, "Memory used, without file pages not used lately.", One(|s| {
        count(s.of.memory(|node| node.memory.working_set, |memory| memory.working_set_bytes.as_ref()))
    })),
    row("container_memory_total_active_file_bytes", GAUGE, "File pages used lately.", One(|s| count(s.memory().active_file))),
    row("container_memory_total_inactive_file_bytes", GAUGE, "File pages not used lately.", One(|s| count(s.memory().inactive_file))),
    row("container_memory_failures_total", COUNTER, "Page faults.", Many(|s| s.page_faults())),
    row("container_fs_inodes_free", GAUGE, "Inodes free.", Many(|s| s.filesystem(|fs| fs.inodes_free))),
    row("container_fs_inodes_total", GAUGE, "Inodes there are.", Many(|s| s.filesystem(|fs| fs.inodes))),
    row("container_fs_limit_bytes", GAUGE, "Bytes there are.", Many(|s| s.filesystem(|fs| fs.capacity_bytes))),
    row("container_fs_usage_bytes", GAUGE, "Bytes used; of a container, beside volumes.", Many(|s| s.written())),
    row("container_fs_reads_bytes_total", COUNTER, "Bytes read.", Many(|s| s.devices(|device| device.read_bytes))),
    row("container_fs_reads_total", COUNTER, "Reads.", Many(|s| s.devices(|device| device.reads))),
    row("container_fs_writes_bytes_total", COUNTER, "Bytes written.", Many(|s| s.devices(|device| device.written_bytes))),
    row("container_fs_writes_total", COUNTER, "Writes.", Many(|s| s.devices(|device| device.writes))),
    row("container_blkio_device_usage_total", COUNTER, "Bytes that went to and came from devices.", Many(|s| s.device_operations())),
    row("container_network_receive_bytes_total", COUNTER, "Bytes received.", Many(|s| s.interfaces(|link| link.rx_bytes))),
    row("container_network_receive_packets_total", COUNTER, "Packets received.", Many(|s| s.interfaces(|link| link.rx_packets))),
    row("container_network_receive_packets_dropped_total", COUNTER, "Packets dropped while receiving.", Many(|s| s.interfaces(|link| link.rx_dropped))),
    row("container_network_receive_errors_total", COUNTER, "Errors while receiving.", Many(|s| s.interfaces(|link| link.rx_errors))),
    row("container_network_transmit_bytes_total", COUNTER, "Bytes sent.", Many(|s| s.interfaces(|link| link.tx_bytes))),
    row("container_network_transmit_packets_total", COUNTER, "Packets sent.", Many(|s| s.interfaces(|link| link.tx_packets))),
    row("container_network_transmit_packets_dropped_total", COUNTER, "Packets dropped while sending.", Many(|s| s.interfaces(|link| link.tx_dropped))),
    row("container_network_transmit_errors_total", COUNTER, "Errors while sending.", Many(|s| s.interfaces(|link| link.tx_errors))),
    row("container_processes", GAUGE, "Processes that run.", One(|s| {
        count(s.of.processes()).or(s.processes().map(|tasks| tasks.processes as f64))
    })),
    row("container_file_descriptors", GAUGE, "Files that are open.", One(|s| Some(s.processes()?.files as f64))),
    row("container_sockets", GAUGE, "Sockets that are open.", One(|s| Some(s.processes()?.sockets as f64))),
    row("container_threads_max", GAUGE, "Threads that may run; 0 without a limit.", One(|s| count(s.cgroup.tasks.threads_max))),
    row("container_threads", GAUGE, "Threads that run.", One(|s| count(s.cgroup.tasks.threads))),
    row("container_ulimits_soft", GAUGE, "Limits of the first process.", Many(|s| {
        let files = s.processes().and_then(|tasks| tasks.files_max);
        files.map(|max| (labels(&[("ulimit", "max_open_files")]), max as f64)).into_iter().collect()
    })),
    row("container_oom_events_total", COUNTER, "Processes killed for want of memory.", One(|s| count(s.memory().oom_kills))),
    row("container_pressure_cpu_stalled_seconds_total", COUNTER, "Time for which all waited for a processor.", One(|s| s.of.waited(Waited::Cpu, true))),
    row("container_pressure_cpu_waiting_seconds_total", COUNTER, "Time for which some waited for a processor.", One(|s| s.of.waited(Waited::Cpu, false))),
    row("container_pressure_memory_stalled_seconds_total", COUNTER, "Time for which all waited for memory.", One(|s| s.of.waited(Waited::Memory, true))),
    row("container_pressure_memory_waiting_seconds_total", COUNTER, "Time for which some waited for memory.", One(|s| s.of.waited(Waited::Memory, false))),
    row("container_pressure_io_stalled_seconds_total", COUNTER, "Time for which all waited for input and output.", One(|s| s.of.waited(Waited::Io, true))),
    row("container_pressure_io_waiting_seconds_total", COUNTER, "Time for which some waited for input and output.", One(|s| s.of.waited(Waited::Io, false))),
];

/// All of whom lines tell; `nothing` stands for cgroups that are gone.
fn subjects<'a>(reading: &'a Reading, told: &'a Told, nothing: &'a Cgroup) -> Vec<Subject<'a>> {
    let subject = |labels: String, of: Of<'a>, cgroup: Option<&'a Cgroup>| {
        let cgroup = cgroup.unwrap_or(nothing);
        Subject { labels, of, cgroup, device: &told.device, reading }
    };
    let mut subjects = vec![subject(labels(&[("id", "/")]), Of::Node(&reading.node), Some(&told.node))];
    for pod in &reading.pods {
        let cgroup = told.pods.get(&pod.uid);
        subjects.push(subject(pod_labels(pod, cgroup), Of::Pod(pod), cgroup));
        for container in &pod.containers {
            let cgroup = told.containers.get(&container.id);
            subjects.push(subject(
                container_labels(pod, container, cgroup),
                Of::Container(container),
                cgroup,
            ));
        }
    }
    subjects
}

fn usage(text: &mut String, reading: &Reading, told: &Told) {
    let nothing = Cgroup::default();
    let subjects = subjects(reading, told, &nothing);
    for row in ROWS {
        head(text, row.name, row.help, row.kind);
        for subject in &subjects {
            let values = match row.figure {
                One(figure) => figure(subject).map(|value| (String::new(), value)).into_iter().collect(),
                Many(figures) => figures(subject),
            };
            for (more, value) in values {
                let labels = [subject.labels.as_str(), &more].join(if more.is_empty() { "" } else { "," });
                match row.timed {
                    true => sample_at(text, row.name, &labels, value, reading.at),
                    false => sample(text, row.name, "", &labels, "", value),
                }
            }
        }
    }
}

fn write_machine(text: &mut String, reading: &Reading, machine: &Machine) {
    let Machine { machine_id, system_uuid, boot_id, .. } = machine;
    let labels = labels(&[("boot_id", boot_id), ("machine_id", machine_id), ("system_uuid", system_uuid)]);
    let node = &reading.node.memory;
    let memory = node.available.saturating_add(node.working_set);
    for (name, help, value) in [
        ("machine_cpu_cores", "Processors of this machine.", count_cpus() as f64),
        ("machine_cpu_physical_cores", "Cores of this machine.", machine.cores as f64),
        ("machine_cpu_sockets", "Sockets with processors of this machine.", machine.sockets as f64),
        ("machine_memory_bytes", "Memory of this machine.", memory as f64),
        (
            "machine_swap_bytes",
            "Swap of this machine.",
            node.swap_usage.saturating_add(node.swap_available) as f64,
        ),
    ] {
        head(text, name, help, GAUGE);
        sample(text, name, "", &labels, "", value);
    }
}

fn pod_labels(pod: &PodReading, cgroup: Option<&Cgroup>) -> String {
    labels(&[("id", path(cgroup)), ("namespace", &pod.namespace), ("pod", &pod.name)])
}

/// Where it is among the cgroups, if it is there still.
fn path(cgroup: Option<&Cgroup>) -> &str {
    cgroup.map_or("", |cgroup| &cgroup.path)
}

fn container_labels(pod: &PodReading, container: &ContainerReading, cgroup: Option<&Cgroup>) -> String {
    labels(&[
        ("container", &container.name),
        ("id", path(cgroup)),
        ("image", &container.image),
        ("name", &container.id),
        ("namespace", &pod.namespace),
        ("pod", &pod.name),
    ])
}
