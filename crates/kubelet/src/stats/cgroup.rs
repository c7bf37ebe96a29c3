//! What the kernel tells of a cgroup beyond what the CRI carries, for `/metrics/cadvisor` (follows cAdvisor's libcontainer
//! handler). Read only when somebody asks, from the cgroups in which the runtime puts pods and containers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use runtime::cgroups::Cgroups;

use super::Reading;
use super::node::{Interface, TICK_NANOS, field, interfaces};

const NANOS_PER_MICRO: u64 = 1000;
/// From here on the kernel means that there is no limit (cAdvisor's `maxMemorySize`).
const UNLIMITED: u64 = 1 << 62;

/// By whom it is asked for: the node, pods by uid, containers by id.
#[derive(Debug, Default)]
pub struct Told {
    pub node: Cgroup,
    pub pods: HashMap<String, Cgroup>,
    pub containers: HashMap<String, Cgroup>,
    /// On which the kubelet's folder is.
    pub device: String,
}

/// What cannot be read is absent.
#[derive(Debug, Default, PartialEq)]
pub struct Cgroup {
    pub path: String,
    pub cpu: Cpu,
    pub memory: Memory,
    pub devices: Vec<Device>,
    pub tasks: Tasks,
    /// Of the network that its processes are in.
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Cpu {
    pub user_nanos: Option<u64>,
    pub system_nanos: Option<u64>,
    /// In microseconds.
    pub period: Option<u64>,
    /// In microseconds; absent without a limit.
    pub quota: Option<u64>,
    pub shares: Option<u64>,
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_nanos: Option<u64>,
    pub burst_periods: Option<u64>,
    pub burst_nanos: Option<u64>,
}

/// In bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Memory {
    pub cache: Option<u64>,
    pub kernel: Option<u64>,
    pub mapped_file: Option<u64>,
    pub max_usage: Option<u64>,
    pub active_file: Option<u64>,
    pub inactive_file: Option<u64>,
    /// How often the limit was met.
    pub failures: Option<u64>,
    pub page_faults: Option<u64>,
    pub oom_kills: Option<u64>,
    /// 0 where there is none, as the two that follow.
    pub limit: Option<u64>,
    pub reservation: Option<u64>,
    pub swap_limit: Option<u64>,
}

/// What was read from and written to a block device.
#[derive(Debug, Default, PartialEq)]
pub struct Device {
    pub name: String,
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub reads: u64,
    pub written_bytes: u64,
    pub writes: u64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Tasks {
    pub processes: u64,
    pub threads: Option<u64>,
    /// 0 where there is none.
    pub threads_max: Option<u64>,
    pub files: u64,
    pub sockets: u64,
    /// What the first process may open.
    pub files_max: Option<u64>,
}

impl Told {
    /// Of all that a reading tells of. Cgroups of pods are below `root`, what they write is in `folder`.
    pub fn read(reading: &Reading, root: &str, folder: &Path) -> Told {
        let Ok(cgroups) = Cgroups::detect() else { return Told::default() };
        let device = device_of(folder);
        let mut found = Told { node: Cgroup::read(&cgroups, "/"), device, ..Told::default() };
        found.node.interfaces = reading.node.interfaces.clone();
        for pod in &reading.pods {
            let Some(path) = of_pod(&cgroups, root, &pod.uid) else { continue };
            let mut of_pod = Cgroup::read(&cgroups, &path);
            for container in &pod.containers {
                let path = format!("{path}/{}", container.id);
                let (cgroup, first) = Cgroup::of_container(&cgroups, &path);
                if of_pod.interfaces.is_empty() && pod.usage.network.is_some() {
                    of_pod.interfaces =
                        first.map(|pid| interfaces(&text(&proc(&pid, "net/dev")))).unwrap_or_default();
                }
                found.containers.insert(container.id.clone(), cgroup);
            }
            found.pods.insert(pod.uid.clone(), of_pod);
        }
        found
    }
}

/// The pod's cgroup, in whichever tier it is.
fn of_pod(cgroups: &Cgroups, root: &str, uid: &str) -> Option<String> {
    let paths = ["", "/burstable", "/besteffort"].map(|tier| format!("{root}{tier}/pod{uid}"));
    paths.into_iter().find(|path| cgroups.dir("memory", path).is_some_and(|dir| dir.is_dir()))
}

impl Cgroup {
    fn read(cgroups: &Cgroups, path: &str) -> Cgroup {
        let files = Files { cgroups, path };
        let (cpu, memory) = if cgroups.is_v2() {
            (files.cpu_v2(), files.memory_v2())
        } else {
            (files.cpu_v1(), files.memory_v1())
        };
        let threads_max = files.text("pids", "pids.max");
        let tasks = Tasks {
            threads: files.number("pids", "pids.current"),
            threads_max: (!threads_max.is_empty()).then(|| threads_max.trim().parse().unwrap_or(0)),
            ..Tasks::default()
        };
        Cgroup { path: path.to_owned(), cpu, memory, devices: files.devices(), tasks, interfaces: Vec::new() }
    }

    /// With the id of its first process.
    fn of_container(cgroups: &Cgroups, path: &str) -> (Cgroup, Option<String>) {
        let mut cgroup = Cgroup::read(cgroups, path);
        let processes = Files { cgroups, path }.text("memory", "cgroup.procs");
        for (nth, pid) in processes.lines().enumerate() {
            cgroup.tasks.processes += 1;
            for file in fs::read_dir(proc(pid, "fd")).into_iter().flatten().flatten() {
                cgroup.tasks.files += 1;
                let target = fs::read_link(file.path()).unwrap_or_default();
                cgroup.tasks.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
            }
            if nth == 0 {
                cgroup.tasks.files_max = files_max(&text(&proc(pid, "limits")));
            }
        }
        (cgroup, processes.lines().next().map(str::to_owned))
    }
}

/// The files of one cgroup.
struct Files<'a> {
    cgroups: &'a Cgroups,
    path: &'a str,
}

impl Files<'_> {
    fn text(&self, controller: &str, file: &str) -> String {
        self.cgroups.dir(controller, self.path).map(|dir| text(&dir.join(file))).unwrap_or_default()
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file).trim().parse().ok()
    }

    fn bytes(&self, file: &str) -> Option<u64> {
        self.number("memory", file)
    }

    /// 0 where the kernel says that there is none.
    fn limit(&self, file: &str) -> Option<u64> {
        match self.text("memory", file).trim() {
            "" => None,
            limit => Some(limit.parse().ok().filter(|limit| *limit < UNLIMITED).unwrap_or(0)),
        }
    }

    fn cpu_v1(&self) -> Cpu {
        let used = self.text("cpuacct", "cpuacct.stat");
        let nanos = |name| Some(field(&used, name)?.saturating_mul(TICK_NANOS));
        let stat = self.text("cpu", "cpu.stat");
        Cpu {
            user_nanos: nanos("user"),
            system_nanos: nanos("system"),
            period: self.number("cpu", "cpu.cfs_period_us"),
            quota: self.number("cpu", "cpu.cfs_quota_us"),
            shares: self.number("cpu", "cpu.shares"),
            periods: field(&stat, "nr_periods"),
            throttled_periods: field(&stat, "nr_throttled"),
            throttled_nanos: field(&stat, "throttled_time"),
            burst_periods: field(&stat, "nr_bursts"),
            burst_nanos: field(&stat, "burst_time"),
        }
    }

    fn cpu_v2(&self) -> Cpu {
        let stat = self.text("cpu", "cpu.stat");
        let nanos = |name| Some(field(&stat, name)?.saturating_mul(NANOS_PER_MICRO));
        let limit = self.text("cpu", "cpu.max");
        let mut limit = limit.split_whitespace();
        Cpu {
            user_nanos: nanos("user_usec"),
            system_nanos: nanos("system_usec"),
            quota: limit.next().and_then(|quota| quota.parse().ok()),
            period: limit.next().and_then(|period| period.parse().ok()),
            shares: self.number("cpu", "cpu.weight").map(shares),
            periods: field(&stat, "nr_periods"),
            throttled_periods: field(&stat, "nr_throttled"),
            throttled_nanos: nanos("throttled_usec"),
            burst_periods: field(&stat, "nr_bursts"),
            burst_nanos: nanos("burst_usec"),
        }
    }

    fn memory_v1(&self) -> Memory {
        let stat = self.text("memory", "memory.stat");
        Memory {
            cache: field(&stat, "total_cache"),
            kernel: self.bytes("memory.kmem.usage_in_bytes"),
            mapped_file: field(&stat, "total_mapped_file"),
            max_usage: self.bytes("memory.max_usage_in_bytes"),
            active_file: field(&stat, "total_active_file"),
            inactive_file: field(&stat, "total_inactive_file"),
            failures: self.bytes("memory.failcnt"),
            page_faults: field(&stat, "total_pgfault"),
            oom_kills: field(&self.text("memory", "memory.oom_control"), "oom_kill"),
            limit: self.limit("memory.limit_in_bytes"),
            reservation: self.limit("memory.soft_limit_in_bytes"),
            swap_limit: self.limit("memory.memsw.limit_in_bytes"),
        }
    }

    fn memory_v2(&self) -> Memory {
        let stat = self.text("memory", "memory.stat");
        let events = self.text("memory", "memory.events");
        Memory {
            cache: field(&stat, "file"),
            kernel: field(&stat, "kernel"),
            mapped_file: field(&stat, "file_mapped"),
            max_usage: self.bytes("memory.peak"),
            active_file: field(&stat, "active_file"),
            inactive_file: field(&stat, "inactive_file"),
            failures: field(&events, "max"),
            page_faults: field(&stat, "pgfault"),
            oom_kills: field(&events, "oom_kill"),
            limit: self.limit("memory.max"),
            reservation: self.limit("memory.low"),
            swap_limit: self.limit("memory.swap.max"),
        }
    }

    fn devices(&self) -> Vec<Device> {
        let mut devices = if self.cgroups.is_v2() {
            devices_v2(&self.text("io", "io.stat"))
        } else {
            let bytes = self.text("blkio", "blkio.throttle.io_service_bytes_recursive");
            devices_v1(&bytes, &self.text("blkio", "blkio.throttle.io_serviced_recursive"))
        };
        devices.iter_mut().for_each(|device| device.name = device_name(device.major, device.minor));
        devices
    }
}

/// Lines `8:0 Read 4096`.
fn devices_v1(bytes: &str, operations: &str) -> Vec<Device> {
    let mut devices: BTreeMap<(u32, u32), Device> = BTreeMap::new();
    for (table, is_bytes) in [(bytes, true), (operations, false)] {
        for line in table.lines() {
            let mut words = line.split_whitespace();
            let (Some(number), Some(operation), Some(count)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Some((major, minor)), Ok(count)) = (device_number(number), count.parse()) else { continue };
            let device =
                devices.entry((major, minor)).or_insert(Device { major, minor, ..Device::default() });
            match (operation, is_bytes) {
                ("Read", true) => device.read_bytes = count,
                ("Write", true) => device.written_bytes = count,
                ("Read", false) => device.reads = count,
                ("Write", false) => device.writes = count,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn devices_v2(table: &str) -> Vec<Device> {
    let parse = |line: &str| {
        let (number, counters) = line.split_once(' ')?;
        let (major, minor) = device_number(number)?;
        let counters: BTreeMap<&str, u64> = counters
            .split_whitespace()
            .filter_map(|counter| counter.split_once('='))
            .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
            .collect();
        let of = |name| counters.get(name).copied().unwrap_or(0);
        let (read_bytes, reads, written_bytes, writes) = (of("rbytes"), of("rios"), of("wbytes"), of("wios"));
        Some(Device { name: String::new(), major, minor, read_bytes, reads, written_bytes, writes })
    };
    table.lines().filter_map(parse).collect()
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `/dev/sda`, or nothing where the kernel knows no name.
fn device_name(major: u32, minor: u32) -> String {
    let event = text(Path::new(&format!("/sys/dev/block/{major}:{minor}/uevent")));
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(|name| format!("/dev/{name}")).unwrap_or_default()
}

/// The device on which a path is.
fn device_of(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    let number = metadata.dev();
    let small = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    device_name(small(nix::sys::stat::major(number)), small(nix::sys::stat::minor(number)))
}

/// What a weight of version 2 is in version 1 (KEP-2254's formula, turned round as cAdvisor does).
fn shares(weight: u64) -> u64 {
    2 + weight.saturating_sub(1).saturating_mul(262_142) / 9999
}

fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn proc(pid: &str, file: &str) -> PathBuf {
    Path::new("/proc").join(pid).join(file)
}

/// What is gone tells nothing.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_what_went_to_devices() {
        let bytes = "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\nTotal 4608\n";
        let operations = "8:0 Read 2\n8:0 Write 1\n";
        let expect = [Device {
            major: 8,
            read_bytes: 4096,
            reads: 2,
            written_bytes: 512,
            writes: 1,
            ..Device::default()
        }];
        assert_eq!(devices_v1(bytes, operations), expect);
        assert_eq!(devices_v2("8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n"), expect);
        assert_eq!(devices_v2("8:0\nnonsense x=1\n"), []);
    }

    #[test]
    fn a_weight_is_the_share_that_it_was_made_of() {
        assert_eq!([1, 100, 10_000].map(shares), [2, 2597, 262_144]);
    }

    #[test]
    fn the_own_cgroup_of_this_machine_can_be_read() {
        let cgroups = Cgroups::detect().expect("cgroups");
        let node = Cgroup::read(&cgroups, "/");
        assert!(node.memory.cache.is_some() && node.cpu.user_nanos > Some(0), "{node:?}");
        let (_, first) = Cgroup::of_container(&cgroups, "/");
        assert!(first.is_some());
    }

    #[test]
    fn what_a_process_may_open_is_told_first() {
        let limits = "Limit Soft Limit Hard Limit Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(files_max(limits), Some(1024));
        assert_eq!(
            files_max("Max open files            unlimited            unlimited            files\n"),
            None
        );
    }
}
