//! cgroups of pods and containers: made, limited, read and removed, on version 1 (one folder per controller) and 2.

mod bpf;
mod devices;
pub mod pressure;
mod stats;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use self::stats::Stats;
use crate::cri::LinuxContainerResources;
use crate::shim::spec::DeviceSpec;

/// Rounds of killing: a process may fork while its siblings are killed.
const KILL_ROUNDS_MAX: usize = 20;
/// The first and longest pause between tries to remove a cgroup; they double, so all take twice the longest.
const REMOVE_DELAY_MIN: Duration = Duration::from_millis(1);
const REMOVE_DELAY_MAX: Duration = Duration::from_secs(2);
/// Where systemd mounts version 2 beside version 1.
const UNIFIED: &str = "unified";
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const WEIGHT_MIN: i64 = 1;
const WEIGHT_MAX: i64 = 10_000;

/// The node's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    V1(Vec<Hierarchy>),
    V2(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    controllers: Vec<String>,
    mount: PathBuf,
}

impl Cgroups {
    pub fn detect() -> io::Result<Cgroups> {
        parse_mounts(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted"))
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Cgroups::V2(_))
    }

    /// The folders a process joins to be in the cgroup.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Cgroups::V1(hierarchies) => {
                hierarchies.iter().map(|hierarchy| hierarchy.mount.join(relative)).collect()
            }
            Cgroups::V2(mount) => vec![mount.join(relative)],
        }
    }

    pub fn exists(&self, path: &str) -> bool {
        self.dirs(path).iter().any(|dir| dir.is_dir())
    }

    /// The folders that go with a cgroup. Beside version 1, other runtimes make their cgroups in version 2 too, where it
    /// is mounted as systemd does, and leave those above them behind.
    fn dirs_to_remove(&self, path: &str) -> Vec<PathBuf> {
        let mut dirs = self.dirs(path);
        if let Cgroups::V1(hierarchies) = self {
            let beside = hierarchies.first().and_then(|hierarchy| hierarchy.mount.parent());
            dirs.extend(beside.map(|dir| dir.join(UNIFIED).join(path.trim_start_matches('/'))));
        }
        dirs
    }

    /// The folder in which a controller tells of a cgroup, if there is such a controller.
    pub fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Cgroups::V1(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
                .map(|hierarchy| hierarchy.mount.join(relative)),
            Cgroups::V2(mount) => Some(mount.join(relative)),
        }
    }

    /// Makes a cgroup with its parents.
    pub fn create(&self, path: &str) -> io::Result<()> {
        match self {
            Cgroups::V1(_) => {
                self.dirs(path).iter().try_for_each(fs::create_dir_all)?;
                self.inherit_cpuset(path)
            }
            Cgroups::V2(mount) => {
                let mut dir = mount.clone();
                for part in Path::new(path.trim_start_matches('/')) {
                    delegate_controllers(&dir)?;
                    dir.push(part);
                    match fs::create_dir(&dir) {
                        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                        _ => {}
                    }
                }
                Ok(())
            }
        }
    }

    /// A version 1 cpuset starts empty and takes no process until it is filled.
    fn inherit_cpuset(&self, path: &str) -> io::Result<()> {
        let Some(mut dir) = self.dir("cpuset", "") else { return Ok(()) };
        for part in Path::new(path.trim_start_matches('/')) {
            let child = dir.join(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(child.join(file))?.trim().is_empty() {
                    fs::write(child.join(file), fs::read_to_string(dir.join(file))?.trim())?;
                }
            }
            dir = child;
        }
        Ok(())
    }

    /// Sets the limits that are given; zero or empty leaves a limit as it is. Limits bound each other (memory and swap,
    /// quota and period), so one that is refused is tried again after the others.
    pub fn apply(&self, path: &str, resources: &LinuxContainerResources) -> io::Result<()> {
        let settings = if self.is_v2() { v2_settings(resources) } else { v1_settings(resources) };
        let refused: Vec<Setting> =
            settings.into_iter().filter(|setting| self.set(path, setting).is_err()).collect();
        refused.iter().try_for_each(|setting| self.set(path, setting))
    }

    fn set(&self, path: &str, (controller, file, value): &Setting) -> io::Result<()> {
        let Some(dir) = self.dir(controller, path) else { return Ok(()) };
        match fs::write(dir.join(file), value) {
            // Swap accounting and huge page sizes depend on the kernel.
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_optional(file) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), format!("set {file} to {value}: {e}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Lets the processes of a cgroup use these devices and the harmless ones, and no others.
    pub fn restrict_devices(&self, path: &str, devices: &[DeviceSpec]) -> io::Result<()> {
        let rules = devices::rules(devices);
        let Some(dir) = self.dir("devices", path) else { return Ok(()) };
        if self.is_v2() {
            return devices::restrict(&dir, &rules);
        }
        fs::write(dir.join("devices.deny"), "a")?;
        rules.iter().try_for_each(|rule| fs::write(dir.join("devices.allow"), rule.to_string()))
    }

    /// The file whose `oom_kill` counts processes killed for want of memory.
    pub fn oom_file(&self, path: &str) -> Option<PathBuf> {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.dir("memory", path).map(|dir| dir.join(file))
    }

    pub fn stats(&self, path: &str) -> Stats {
        match self {
            Cgroups::V1(_) => {
                let cpu = self.dir("cpuacct", path);
                stats::read_v1(
                    cpu.as_deref(),
                    self.dir("memory", path).as_deref(),
                    self.dir("pids", path).as_deref(),
                )
            }
            Cgroups::V2(mount) => stats::read_v2(&mount.join(path.trim_start_matches('/'))),
        }
    }

    /// Kills every process of a cgroup and those below it.
    pub fn kill_all(&self, path: &str) {
        for _ in 0..KILL_ROUNDS_MAX {
            let processes: Vec<i32> = self.dirs(path).iter().flat_map(|dir| processes_below(dir)).collect();
            if processes.is_empty() {
                return;
            }
            for pid in processes {
                if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    tracing::debug!(pid, %error, "process ended before it was killed");
                }
            }
        }
    }

    /// Removes a cgroup and those below it; what is not there is fine. A killed process holds its cgroup until the
    /// kernel is done with it, of which version 1 gives no notice: so this tries again, for a bounded time.
    pub async fn remove(&self, path: &str) -> io::Result<()> {
        let mut delay = REMOVE_DELAY_MIN;
        loop {
            match self.try_remove(path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && delay < REMOVE_DELAY_MAX => {
                    self.kill_all(path);
                    tokio::time::sleep(delay).await;
                    delay *= 2;
                }
                result => return result,
            }
        }
    }

    /// Removes a cgroup and those below it, if no process is in them.
    pub fn try_remove(&self, path: &str) -> io::Result<()> {
        self.dirs_to_remove(path).iter().try_for_each(|dir| remove_tree(dir))
    }

    /// Removes a cgroup if nothing is in it.
    pub fn remove_if_empty(&self, path: &str) {
        for dir in self.dirs_to_remove(path) {
            if let Err(error) = fs::remove_dir(&dir) {
                tracing::debug!(dir = %dir.display(), %error, "cgroup stays");
            }
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn processes_below(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut processes: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes.extend(processes_below(&entry.path()));
        }
    }
    processes
}

/// Lets children of this version 2 cgroup use its controllers.
fn delegate_controllers(dir: &Path) -> io::Result<()> {
    let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
    for controller in available.split_whitespace() {
        // One by one: a controller that cannot be delegated must not keep the others back.
        if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(dir = %dir.display(), controller, %error, "controller is not delegated");
        }
    }
    Ok(())
}

fn is_optional(file: &str) -> bool {
    file.contains("swap") || file.contains("memsw") || file.starts_with("hugetlb")
}

type Setting = (&'static str, String, String);

fn v1_settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |controller, file: &str, value: String| settings.push((controller, file.to_owned(), value));
    if resources.cpu_shares > 0 {
        set("cpu", "cpu.shares", resources.cpu_shares.to_string());
    }
    if resources.cpu_period > 0 {
        set("cpu", "cpu.cfs_period_us", resources.cpu_period.to_string());
    }
    if resources.cpu_quota != 0 {
        set("cpu", "cpu.cfs_quota_us", resources.cpu_quota.to_string());
    }
    if resources.memory_limit_in_bytes != 0 {
        set("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes.to_string());
    }
    if resources.memory_swap_limit_in_bytes != 0 {
        set("memory", "memory.memsw.limit_in_bytes", resources.memory_swap_limit_in_bytes.to_string());
    }
    shared_settings(resources, "limit_in_bytes", &mut set);
    settings
}

fn v2_settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |controller, file: &str, value: String| settings.push((controller, file.to_owned(), value));
    let limit = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if resources.cpu_shares > 0 {
        set("cpu", "cpu.weight", weight(resources.cpu_shares).to_string());
    }
    if resources.cpu_quota != 0 || resources.cpu_period > 0 {
        let quota = if resources.cpu_quota == 0 { -1 } else { resources.cpu_quota };
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { 100_000 };
        set("cpu", "cpu.max", format!("{} {period}", limit(quota)));
    }
    if resources.memory_limit_in_bytes != 0 {
        set("memory", "memory.max", limit(resources.memory_limit_in_bytes));
    }
    if resources.memory_swap_limit_in_bytes > 0 && resources.memory_limit_in_bytes > 0 {
        let swap = (resources.memory_swap_limit_in_bytes - resources.memory_limit_in_bytes).max(0);
        set("memory", "memory.swap.max", swap.to_string());
    }
    for (file, value) in resources.unified.iter().filter(|(file, _)| !file.contains('/')) {
        set("unified", file, value.clone());
    }
    shared_settings(resources, "max", &mut set);
    settings
}

fn shared_settings(
    resources: &LinuxContainerResources,
    hugetlb_limit: &str,
    set: &mut impl FnMut(&'static str, &str, String),
) {
    if !resources.cpuset_cpus.is_empty() {
        set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    }
    if !resources.cpuset_mems.is_empty() {
        set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    }
    for huge in &resources.hugepage_limits {
        // Both what is used and what is reserved by mapping it.
        for counted in ["", "rsvd."] {
            let file = format!("hugetlb.{}.{counted}{hugetlb_limit}", huge.page_size);
            set("hugetlb", &file, huge.limit.to_string());
        }
    }
}

/// Shares (2..262144) as weight (1..10000), as runc does it for containers: 1024 of the one are 100 of the other, each the
/// default of its version (`ConvertCPUSharesToCgroupV2Value`).
fn weight(shares: i64) -> i64 {
    match shares {
        ..=SHARES_MIN => WEIGHT_MIN,
        SHARES_MAX.. => WEIGHT_MAX,
        shares => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as i64
        }
    }
}

fn parse_mounts(table: &str) -> Option<Cgroups> {
    let mut hierarchies = Vec::new();
    let mut unified = None;
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mount) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut after = after.split(' ');
        match after.next() {
            Some("cgroup") => {
                let controllers = after.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
                hierarchies.push(Hierarchy { controllers, mount });
            }
            Some("cgroup2") => unified = Some(mount),
            _ => {}
        }
    }
    // With both mounted (hybrid) the controllers are on version 1.
    if hierarchies.iter().any(|hierarchy| hierarchy.controllers.iter().any(|name| name == "memory")) {
        return Some(Cgroups::V1(hierarchies));
    }
    unified.map(Cgroups::V2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 1 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_node_uses_version_1() {
        let cgroups = parse_mounts(HYBRID).unwrap();
        assert!(!cgroups.is_v2());
        assert_eq!(cgroups.dir("cpuacct", "/a/b").unwrap(), Path::new("/sys/fs/cgroup/cpu/a/b"));
        assert_eq!(cgroups.oom_file("/a").unwrap(), Path::new("/sys/fs/cgroup/memory/a/memory.oom_control"));
    }

    #[test]
    fn a_unified_node_uses_version_2() {
        let cgroups = parse_mounts("31 30 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
        assert_eq!(cgroups.dirs("/a"), [Path::new("/sys/fs/cgroup/a")]);
    }

    #[test]
    fn shares_become_weights_as_runtimes_compute_them() {
        let weights = [0, 2, 3, 102, 512, 1024, 2048, 262_143, 262_144].map(weight);
        assert_eq!(weights, [1, 1, 2, 17, 59, 100, 174, 10_000, 10_000]);
    }

    #[test]
    fn limits_not_given_are_left_alone() {
        assert!(v1_settings(&LinuxContainerResources::default()).is_empty());
        assert!(v2_settings(&LinuxContainerResources::default()).is_empty());
    }
}
