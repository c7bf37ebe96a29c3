//! What cgroups have used: cpu time, memory, processes.

use std::fs;
use std::path::Path;

/// Nanoseconds and bytes; what the kernel does not tell is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_nanos: u64,
    pub memory_usage: u64,
    /// Usage without inactive file cache: what evictions are decided by.
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

pub fn read_v1(cpu: Option<&Path>, memory: Option<&Path>, pids: Option<&Path>) -> Stats {
    let stat = memory.map(|dir| read(&dir.join("memory.stat"))).unwrap_or_default();
    let memory_usage = memory.map_or(0, |dir| number(&dir.join("memory.usage_in_bytes")));
    Stats {
        cpu_nanos: cpu.map_or(0, |dir| number(&dir.join("cpuacct.usage"))),
        memory_usage,
        memory_working_set: memory_usage.saturating_sub(field(&stat, "total_inactive_file")),
        memory_rss: field(&stat, "total_rss"),
        page_faults: field(&stat, "total_pgfault"),
        major_page_faults: field(&stat, "total_pgmajfault"),
        processes: pids.map_or(0, |dir| number(&dir.join("pids.current"))),
    }
}

pub fn read_v2(dir: &Path) -> Stats {
    const NANOS_PER_MICRO: u64 = 1000;
    let stat = read(&dir.join("memory.stat"));
    let memory_usage = number(&dir.join("memory.current"));
    Stats {
        cpu_nanos: field(&read(&dir.join("cpu.stat")), "usage_usec") * NANOS_PER_MICRO,
        memory_usage,
        memory_working_set: memory_usage.saturating_sub(field(&stat, "inactive_file")),
        memory_rss: field(&stat, "anon"),
        page_faults: field(&stat, "pgfault"),
        major_page_faults: field(&stat, "pgmajfault"),
        processes: number(&dir.join("pids.current")),
    }
}

/// A cgroup that is gone has used nothing that can still be told.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    read(path).trim().parse().unwrap_or(0)
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
