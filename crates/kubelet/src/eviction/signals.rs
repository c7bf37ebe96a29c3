//! Measures the node: a few small files and `statfs`, cheap enough to be read every few seconds
//! (follows `makeSignalObservations`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use runtime::cri;

use super::decide::{Observation, Observations};
use super::threshold::Signal;
use crate::worker::Runtime;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// The kubelet's own files and the pods' volumes.
    pub node_fs: PathBuf,
    /// The pods' cgroup, for example `/coxswain`.
    pub cgroup_root: String,
    /// What pods may use together.
    pub allocatable_memory_bytes: i64,
    /// Where the runtime keeps images, and where what containers write; it tells once.
    pub image_fs: Option<PathBuf>,
    pub container_fs: Option<PathBuf>,
}

impl Places {
    pub async fn ask(&mut self, runtime: &Runtime) {
        let asked = runtime.images.clone().image_fs_info(cri::ImageFsInfoRequest {}).await;
        let info = match asked {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                return tracing::warn!(error = status.message(), "runtime does not tell where images are");
            }
        };
        let place =
            |of: &[cri::FilesystemUsage]| Some(PathBuf::from(&of.first()?.fs_id.as_ref()?.mountpoint));
        self.image_fs = place(&info.image_filesystems);
        self.container_fs = place(&info.container_filesystems);
    }

    /// What cannot be read is left out.
    pub fn observe(&self) -> Observations {
        let mut found = Observations::new();
        found.extend(memory().map(|observed| (Signal::MemoryAvailable, observed)));
        found.extend(self.allocatable().map(|observed| (Signal::AllocatableMemoryAvailable, observed)));
        found.extend(processes().map(|observed| (Signal::PidAvailable, observed)));
        let disks = [
            (Some(&self.node_fs), Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
            (self.image_fs.as_ref(), Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
            (self.container_fs.as_ref(), Signal::ContainerFsAvailable, Signal::ContainerFsInodesFree),
        ];
        for (path, bytes_signal, inodes_signal) in disks {
            let Some(Ok((bytes, inodes))) = path.map(|path| disk(path)) else { continue };
            found.insert(bytes_signal, bytes);
            // Some file systems count no inodes.
            if inodes.capacity > 0 {
                found.insert(inodes_signal, inodes);
            }
        }
        found
    }

    /// Whether images have a disk of their own.
    pub fn has_dedicated_image_fs(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        self.image_fs.as_deref().and_then(device).is_some_and(|dev| Some(dev) != device(&self.node_fs))
    }

    fn allocatable(&self) -> Option<Observation> {
        let used = working_set(&self.cgroup_root)?;
        let capacity = self.allocatable_memory_bytes;
        Some(Observation { available: capacity.saturating_sub(used), capacity })
    }
}

/// Bytes, and inodes, of the disk on which a file lies. What the file system keeps from everybody is no capacity, as for
/// `df`: where much is kept, a share of the whole would never be free.
pub fn disk(path: &Path) -> io::Result<(Observation, Observation)> {
    let stat = statvfs(path)?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| number(blocks.saturating_mul(stat.fragment_size()));
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    let available = stat.blocks_available();
    let bytes = Observation { available: bytes(available), capacity: bytes(used.saturating_add(available)) };
    let inodes = Observation { available: number(stat.files_available()), capacity: number(stat.files()) };
    Ok((bytes, inodes))
}

/// What is free, or can be had by dropping file pages that nobody used lately.
fn memory() -> Option<Observation> {
    parse_memory(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(meminfo: &str) -> Option<Observation> {
    let bytes = |name| crate::node::meminfo_kib(meminfo, name).map(|kib| kib * 1024);
    let available = bytes("MemFree")? + bytes("Inactive(file)")?;
    Some(Observation { available, capacity: bytes("MemTotal")? })
}

/// Processes and threads that may still begin.
pub fn processes() -> Option<Observation> {
    let limit = |path| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let limits = [limit("/proc/sys/kernel/pid_max"), limit("/proc/sys/kernel/threads-max")];
    let capacity = limits.into_iter().flatten().min()?;
    let running = parse_running(&fs::read_to_string("/proc/loadavg").ok()?)?;
    Some(Observation { available: capacity - running, capacity })
}

/// The second number of `1/234`, the fourth field.
fn parse_running(loadavg: &str) -> Option<i64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// What a cgroup uses without file pages that nobody used lately.
fn working_set(cgroup: &str) -> Option<i64> {
    let (v1, v2) = (format!("/sys/fs/cgroup/memory{cgroup}"), format!("/sys/fs/cgroup{cgroup}"));
    let read = |dir: &str, file: &str| fs::read_to_string(format!("{dir}/{file}")).ok();
    let (usage, stat, field) = match read(&v1, "memory.usage_in_bytes") {
        Some(usage) => (usage, read(&v1, "memory.stat")?, "total_inactive_file"),
        None => (read(&v2, "memory.current")?, read(&v2, "memory.stat")?, "inactive_file"),
    };
    let inactive = stat.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<i64>().ok());
    Some(usage.trim().parse::<i64>().ok()?.saturating_sub(inactive.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_can_be_had_counts_as_free() {
        let text = "MemTotal: 100 kB\nMemFree: 10 kB\nInactive: 50 kB\nInactive(file): 5 kB\n";
        let expect = Observation { available: 15 * 1024, capacity: 100 * 1024 };
        assert_eq!(parse_memory(text), Some(expect));
        assert_eq!(parse_memory("MemTotal: 100 kB\n"), None);
    }

    #[test]
    fn processes_are_counted_with_their_threads() {
        assert_eq!(parse_running("0.1 0.2 0.3 2/345 6789\n"), Some(345));
        assert_eq!(parse_running(""), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let places = Places {
            node_fs: std::env::temp_dir(),
            cgroup_root: String::new(),
            allocatable_memory_bytes: i64::MAX,
            image_fs: None,
            container_fs: None,
        };
        let found = places.observe();
        for signal in [Signal::MemoryAvailable, Signal::NodeFsAvailable, Signal::PidAvailable] {
            let observed = found.get(&signal).unwrap_or_else(|| panic!("{signal:?} is measured"));
            assert!((0..=observed.capacity).contains(&observed.available), "{signal:?} {observed:?}");
        }
        assert!(!found.contains_key(&Signal::ImageFsAvailable));
    }
}
