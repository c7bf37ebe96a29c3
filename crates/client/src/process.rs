//! What the process takes of the machine, as every Prometheus client tells it.

use jiff::Timestamp;

use crate::metrics::{head, sample};

/// Ticks of the clock in which the kernel counts a process' time: the same on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of memory; the sizes in `/proc/self/status` are in it.
const KIB: f64 = 1024.0;

/// Figures that the kernel does not tell are left out.
pub fn write(text: &mut String, now: Timestamp) {
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        head(text, name, help, kind);
        sample(text, name, "", "", "", value);
    };
    let (stat, status) = (Stat::read(), read("/proc/self/status"));
    let memory = |field: &str| Some(number(&status, field)? * KIB);
    let seconds = stat.as_ref().map(Stat::cpu_seconds);
    tell("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", seconds);
    tell("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", memory("VmRSS:"));
    tell("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory("VmSize:"));
    // Without a limit the largest number there is stands for it, as in every Prometheus client.
    let limit = number(&read("/proc/self/limits"), "Max address space").unwrap_or(u64::MAX as f64);
    let help = "Maximum amount of virtual memory available in bytes.";
    tell("process_virtual_memory_max_bytes", "gauge", help, Some(limit));
    let network = read("/proc/self/net/netstat");
    let octets = |field: &str| column(&network, "IpExt:", field);
    let help = "Number of bytes received by the process over the network.";
    tell("process_network_receive_bytes_total", "counter", help, octets("InOctets"));
    let help = "Number of bytes sent by the process over the network.";
    tell("process_network_transmit_bytes_total", "counter", help, octets("OutOctets"));
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    tell("process_open_fds", "gauge", "Number of open file descriptors.", files);
    let limit = number(&read("/proc/self/limits"), "Max open files");
    tell("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit);
    write_start(text, now);
}

/// When the process began.
pub fn write_start(text: &mut String, now: Timestamp) {
    const NAME: &str = "process_start_time_seconds";
    let Some(age) = age_seconds() else { return };
    let seconds = now.as_millisecond() as f64 / 1000.0 - age;
    head(text, NAME, "Start time of the process since unix epoch in seconds.", "gauge");
    sample(text, NAME, "", "", "", seconds);
}

/// For how long the process has run.
pub fn age_seconds() -> Option<f64> {
    let uptime = read("/proc/uptime").split(' ').next()?.parse::<f64>().ok()?;
    Some(uptime - Stat::read()?.start_ticks / TICKS_PER_SECOND)
}

/// What `/proc/self/stat` tells (proc_pid_stat(5)).
struct Stat {
    user_ticks: f64,
    system_ticks: f64,
    /// After the machine's start.
    start_ticks: f64,
}

impl Stat {
    fn read() -> Option<Stat> {
        Stat::parse(&read("/proc/self/stat"))
    }

    /// The name of the program, which may hold anything, ends with the last bracket.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat { user_ticks: field(14)?, system_ticks: field(15)?, start_ticks: field(22)? })
    }

    fn cpu_seconds(&self) -> f64 {
        (self.user_ticks + self.system_ticks) / TICKS_PER_SECOND
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The first number behind a label at the beginning of a line.
fn number(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The number under a heading, where a line of headings stands above one of numbers and both begin with a label.
fn column(text: &str, label: &str, heading: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(label)).map(str::split_whitespace);
    let place = lines.next()?.position(|found| found == heading)?;
    lines.next()?.nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 900 0 0";
        let stat = Stat::parse(line).expect("is one");
        assert_eq!((stat.cpu_seconds(), stat.start_ticks), (2.0, 900.0));
        assert_eq!(number("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
        assert!(Stat::parse("").is_none());
        let netstat = "TcpExt: A InOctets\nTcpExt: 1 2\nIpExt: A InOctets B\nIpExt: 3 4 5\n";
        assert_eq!(column(netstat, "IpExt:", "InOctets"), Some(4.0));
        assert_eq!(column(netstat, "IpExt:", "OutOctets"), None);
    }

    #[test]
    fn a_process_tells_when_it_began_and_what_it_takes() {
        let mut text = String::new();
        write(&mut text, Timestamp::now());
        for name in ["process_cpu_seconds_total ", "process_open_fds ", "process_start_time_seconds "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        }
    }
}
