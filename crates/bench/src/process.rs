//! What processes cost, read from /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The unit of times in /proc/PID/stat. Linux shows user space 100 per second on every architecture (proc(5), USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// Which processes are the cluster's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// A process that counts with all its descendants; may be given several times
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Count every process of the host's PID namespace whose executable has this file name
    #[arg(long = "name", value_name = "EXECUTABLE")]
    name: Option<String>,
}

impl Selection {
    /// The processes that are selected right now. Those inside pods run in PID namespaces of their own and do not
    /// count by name, even when they run the same executable.
    pub fn find(&self) -> Result<BTreeSet<u32>> {
        let mut found = descendants(&self.pids, &parents()?);
        if let Some(name) = &self.name {
            found.extend(all()?.into_iter().filter(|pid| is_named(*pid, name)));
        }
        found.remove(&std::process::id());
        if found.is_empty() {
            bail!("no process is selected; name some with --pid or --name");
        }
        Ok(found)
    }
}

/// A process and everything below it, right now.
pub fn with_descendants(root: u32) -> Result<BTreeSet<u32>> {
    Ok(descendants(&[root], &parents()?))
}

fn all() -> Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

fn is_named(pid: u32, name: &str) -> bool {
    let link = |path: String| fs::read_link(path).unwrap_or_default();
    let executable = link(format!("/proc/{pid}/exe"));
    let executable = executable.to_string_lossy();
    let executable = PathBuf::from(executable.trim_end_matches(" (deleted)"));
    let same_namespace = link(format!("/proc/{pid}/ns/pid")) == link("/proc/self/ns/pid".to_owned());
    executable.file_name().is_some_and(|found| found == name) && same_namespace
}

/// The parent of each process. Processes that end while we read are left out.
fn parents() -> Result<BTreeMap<u32, u32>> {
    Ok(all()?.into_iter().filter_map(|pid| Some((pid, stat(pid).ok()?.parent))).collect())
}

/// `roots` and everything below them.
fn descendants(roots: &[u32], parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let more = parents.iter().filter(|(pid, parent)| found.contains(parent) && !found.contains(pid));
        let more: Vec<u32> = more.map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// What /proc/PID/stat tells that matters here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of all threads, those that have ended included.
    cpu: Duration,
}

fn stat(pid: u32) -> Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("cannot read the CPU time of process {pid}"))?;
    parse_stat(&text).with_context(|| format!("cannot understand /proc/{pid}/stat"))
}

/// The command stands in brackets and may itself hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

/// The CPU time these processes have used so far. Those that have ended count nothing.
pub fn cpu_time(pids: &BTreeSet<u32>) -> Duration {
    pids.iter().filter_map(|pid| stat(*pid).ok()).map(|stat| stat.cpu).sum()
}

/// The proportional set size of these processes: shared pages count in parts.
pub fn pss_bytes(pids: &BTreeSet<u32>) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        sum += kibibytes(&text, "Pss:").with_context(|| format!("no Pss in /proc/{pid}/smaps_rollup"))?;
    }
    Ok(sum)
}

/// The same after the processes have had time to give back what they no longer need.
pub async fn settled_pss_bytes(pids: &BTreeSet<u32>, rest: Duration) -> Result<u64> {
    tokio::time::sleep(rest).await;
    pss_bytes(pids)
}

/// The bytes of a line `NAME 42 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// How far the resident memory of processes rises from now on.
#[derive(Debug)]
pub struct PeakMeter {
    pids: BTreeSet<u32>,
    start: u64,
}

impl PeakMeter {
    /// Makes the kernel forget earlier peaks (proc(5), clear_refs).
    pub fn start(pids: &BTreeSet<u32>) -> Result<PeakMeter> {
        for pid in pids {
            fs::write(format!("/proc/{pid}/clear_refs"), "5")
                .with_context(|| format!("cannot reset the peak memory of process {pid}"))?;
        }
        Ok(PeakMeter { pids: pids.clone(), start: peak_bytes(pids)? })
    }

    /// None when no process was named.
    pub fn growth_bytes(&self) -> Result<Option<u64>> {
        let peak = peak_bytes(&self.pids)?;
        Ok((!self.pids.is_empty()).then(|| peak.saturating_sub(self.start)))
    }
}

fn peak_bytes(pids: &BTreeSet<u32>) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("cannot read the peak memory of process {pid}"))?;
        sum += kibibytes(&text, "VmHWM:").with_context(|| format!("no VmHWM in /proc/{pid}/status"))?;
    }
    Ok(sum)
}

/// CPU time of the server's processes from now on.
#[derive(Debug)]
pub struct CpuMeter {
    pids: BTreeSet<u32>,
    start: Duration,
}

impl CpuMeter {
    /// Fails when one of the processes is not there.
    pub fn start(pids: &BTreeSet<u32>) -> Result<CpuMeter> {
        for pid in pids {
            stat(*pid)?;
        }
        let start = cpu_time(pids);
        Ok(CpuMeter { pids: pids.clone(), start })
    }

    /// None when no process was named.
    pub fn used(&self) -> Option<Duration> {
        (!self.pids.is_empty()).then(|| cpu_time(&self.pids).saturating_sub(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 9 9 20 0 4 0 100 1000 10";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, cpu: Duration::from_secs(2) }));
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn the_proportional_set_size_is_the_line_of_that_name() {
        let rollup =
            "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 120 kB\nPss_Dirty: 8 kB\n";
        assert_eq!(kibibytes(rollup, "Pss:"), Some(120 * 1024));
        assert_eq!(kibibytes("Rss: 900 kB", "Pss:"), None);
    }

    #[test]
    fn descendants_are_found_over_several_generations() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]);
        assert_eq!(descendants(&[2, 6], &parents), BTreeSet::from([2, 3, 4, 6]));
    }

    #[test]
    fn memory_that_is_used_raises_the_peak() {
        let meter = PeakMeter::start(&BTreeSet::from([std::process::id()])).unwrap();
        let used = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(meter.growth_bytes().unwrap().unwrap() > 32 << 20);
        drop(used);
    }

    #[test]
    fn this_very_process_costs_memory() {
        let own = BTreeSet::from([std::process::id()]);
        assert!(pss_bytes(&own).unwrap() > 0);
    }
}
