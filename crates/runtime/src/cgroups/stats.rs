//! What cgroups have used: cpu time, memory, processes.

use std::fs;
use std::path::Path;

use super::pressure;
use crate::cri::PsiStats;

/// Nanoseconds and bytes; what the kernel does not tell is zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    pub cpu_nanos: u64,
    pub memory_usage: u64,
    /// Usage without inactive file cache: what evictions are decided by.
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None` where the kernel does not account for swap.
    pub swap_usage: Option<u64>,
    pub processes: u64,
    /// Of processor, memory and input and output; `None` where the kernel does not tell it.
    pub pressure: [Option<PsiStats>; 3],
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
        swap_usage: find(&stat, "total_swap"),
        processes: pids.map_or(0, |dir| number(&dir.join("pids.current"))),
        pressure: [const { None }; 3],
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
        swap_usage: read(&dir.join("memory.swap.current")).trim().parse().ok(),
        processes: number(&dir.join("pids.current")),
        pressure: ["cpu", "memory", "io"]
            .map(|what| pressure::parse(&read(&dir.join(format!("{what}.pressure"))))),
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
    find(text, name).unwrap_or(0)
}

fn find(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::PsiData;

    fn recorded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("writes");
        }
        dir
    }

    #[test]
    fn version_1_tells_of_the_whole_tree_below_a_cgroup() {
        let dir = recorded(&[
            ("cpuacct.usage", "5000000000\n"),
            ("memory.usage_in_bytes", "10485760\n"),
            (
                "memory.stat",
                "rss 1\ntotal_rss 4096\ntotal_swap 512\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_inactive_file 485760\n",
            ),
            ("pids.current", "3\n"),
        ]);
        let path = Some(dir.path());
        let expect = Stats {
            cpu_nanos: 5_000_000_000,
            memory_usage: 10_485_760,
            memory_working_set: 10_000_000,
            memory_rss: 4096,
            page_faults: 7,
            major_page_faults: 2,
            swap_usage: Some(512),
            processes: 3,
            pressure: [const { None }; 3],
        };
        assert_eq!(read_v1(path, path, path), expect);
    }

    #[test]
    fn version_2_tells_time_in_microseconds() {
        let dir = recorded(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("memory.current", "8192\n"),
            ("memory.swap.current", "0\n"),
            ("memory.stat", "anon 4096\nfile 4096\ninactive_file 1024\npgfault 9\npgmajfault 1\n"),
            ("pids.current", "1\n"),
            (
                "memory.pressure",
                "some avg10=1.50 avg60=0.50 avg300=0.10 total=700\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            ),
        ]);
        let some = PsiData { avg10: 1.5, avg60: 0.5, avg300: 0.1, total: 700_000 };
        let full = PsiData { total: 7000, ..PsiData::default() };
        let memory = PsiStats { some: Some(some), full: Some(full) };
        let expect = Stats {
            cpu_nanos: 1_500_000,
            memory_usage: 8192,
            memory_working_set: 7168,
            memory_rss: 4096,
            page_faults: 9,
            major_page_faults: 1,
            swap_usage: Some(0),
            processes: 1,
            pressure: [None, Some(memory), None],
        };
        assert_eq!(read_v2(dir.path()), expect);
    }

    #[test]
    fn a_cgroup_that_is_gone_used_nothing() {
        assert_eq!(read_v2(Path::new("/nonexistent")), Stats::default());
    }
}
