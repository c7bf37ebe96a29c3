//! What the whole node uses, from the texts of `/proc`, which are the same with both versions of cgroups.

use std::fs;

use jiff::Timestamp;
use runtime::cgroups::pressure;
use runtime::cri;

use crate::node::meminfo_kib;

/// The kernel counts processor time in these for user space, on every architecture it runs on (`USER_HZ`).
pub const TICK_NANOS: u64 = 10_000_000;
/// Of the counters in `/proc/stat`, those in which a processor works: guests are counted in `user` already.
const BUSY_FIELDS: [usize; 6] = [0, 1, 2, 5, 6, 7];

/// What cannot be read is zero or absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReading {
    pub booted_at: Timestamp,
    pub cpu_nanos: u64,
    pub memory: Memory,
    pub interfaces: Vec<Interface>,
    /// Of processor, memory and input and output.
    pub pressure: [Option<cri::PsiStats>; 3],
    pub processes_max: Option<u64>,
    pub processes: Option<u64>,
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    pub working_set: u64,
    pub available: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_usage: u64,
    pub swap_available: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl NodeReading {
    pub fn read() -> NodeReading {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let limit = |path: &str| text(path).trim().parse::<u64>().ok();
        let stat = text("/proc/stat");
        let limits = [limit("/proc/sys/kernel/pid_max"), limit("/proc/sys/kernel/threads-max")];
        NodeReading {
            booted_at: booted_at(&stat),
            cpu_nanos: cpu_nanos(&stat),
            memory: memory(&text("/proc/meminfo"), &text("/proc/vmstat")),
            interfaces: interfaces(&text("/proc/net/dev")),
            pressure: ["cpu", "memory", "io"]
                .map(|what| pressure::parse(&text(&format!("/proc/pressure/{what}")))),
            processes_max: limits.into_iter().flatten().min(),
            processes: running(&text("/proc/loadavg")),
        }
    }
}

/// The number behind a name at the beginning of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn booted_at(stat: &str) -> Timestamp {
    let seconds = field(stat, "btime").and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn cpu_nanos(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let counters: Vec<u64> = line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect();
    let busy = BUSY_FIELDS.iter().filter_map(|field| counters.get(*field)).sum::<u64>();
    busy.saturating_mul(TICK_NANOS)
}

fn memory(meminfo: &str, vmstat: &str) -> Memory {
    let bytes = |name| {
        let kib = meminfo_kib(meminfo, name).and_then(|kib| u64::try_from(kib).ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    let usage = bytes("MemTotal").saturating_sub(bytes("MemFree"));
    let working_set = usage.saturating_sub(bytes("Inactive(file)"));
    let swap_available = bytes("SwapFree");
    Memory {
        usage,
        working_set,
        available: bytes("MemTotal").saturating_sub(working_set),
        rss: bytes("AnonPages"),
        page_faults: field(vmstat, "pgfault").unwrap_or(0),
        major_page_faults: field(vmstat, "pgmajfault").unwrap_or(0),
        swap_usage: bytes("SwapTotal").saturating_sub(swap_available),
        swap_available,
    }
}

pub fn interfaces(table: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied().unwrap_or(0);
        let name = name.trim().to_owned();
        Some(Interface {
            name,
            rx_bytes: at(0),
            rx_packets: at(1),
            rx_errors: at(2),
            rx_dropped: at(3),
            tx_bytes: at(8),
            tx_packets: at(9),
            tx_errors: at(10),
            tx_dropped: at(11),
        })
    };
    table.lines().filter_map(parse).filter(|interface| !is_ignored(&interface.name)).collect()
}

/// Loopback and the ends of links to containers, of which these tell themselves (cAdvisor's `isIgnoredDevice`, and the links
/// of the built-in pod network: `cox` with twelve hexadecimal digits).
fn is_ignored(name: &str) -> bool {
    const LINK_DIGITS: usize = 12;
    let is_link = |digits: &str| digits.len() == LINK_DIGITS && digits.chars().all(|c| c.is_ascii_hexdigit());
    name == "lo"
        || ["veth", "docker", "nerdctl"].iter().any(|prefix| name.starts_with(prefix))
        || name.strip_prefix("cox").is_some_and(is_link)
}

/// The second number of `1/234`, the fourth field.
fn running(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_guests_are_not_counted_again() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 9 0\ncpu0 1 1 1 1\nbtime 1700000000\n";
        assert_eq!(cpu_nanos(stat), (10 + 1 + 5 + 2 + 3 + 4) * TICK_NANOS);
        assert_eq!(booted_at(stat).as_second(), 1_700_000_000);
    }

    #[test]
    fn file_pages_that_nobody_used_lately_are_available() {
        let meminfo = "MemTotal: 100 kB\nMemFree: 10 kB\nInactive(file): 5 kB\nAnonPages: 40 kB\nSwapTotal: 8 kB\nSwapFree: 6 kB\n";
        let found = memory(meminfo, "pgfault 7\npgmajfault 2\n");
        assert_eq!((found.usage, found.working_set, found.available), (90 << 10, 85 << 10, 15 << 10));
        assert_eq!((found.rss, found.page_faults, found.major_page_faults), (40 << 10, 7, 2));
        assert_eq!((found.swap_usage, found.swap_available), (2 << 10, 6 << 10));
    }

    #[test]
    fn links_to_containers_are_not_the_nodes() {
        let line = |name: &str| format!("{name}: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n");
        let table: String = ["lo", "eth0", "veth12", "cox545fb1459aa5", "cox-au0"].map(line).concat();
        let names: Vec<String> = interfaces(&table).into_iter().map(|interface| interface.name).collect();
        assert_eq!(names, ["eth0", "cox-au0"]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let found = NodeReading::read();
        assert!(found.cpu_nanos > 0 && found.memory.working_set > 0 && found.processes > Some(0));
    }
}
