//! What the process takes of the machine, as every Prometheus client tells it, and which program it is.

use std::fmt::{Result, Write as _};

use jiff::Timestamp;

use crate::prometheus::{Metric, head};
use crate::version;

/// Ticks of the clock in which the kernel counts a process' time: the same on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of memory; the sizes in `/proc/self/status` are in it.
const KIB: f64 = 1024.0;

/// Figures that the kernel does not tell are left out.
pub fn write(out: &mut String, now: Timestamp) -> Result {
    write_build(out)?;
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| match value {
        Some(value) => {
            head(out, name, kind, help)?;
            writeln!(out, "{name} {value}")
        }
        None => Ok(()),
    };
    let (stat, status) = (Stat::read(), read("/proc/self/status"));
    let memory = |field: &str| Some(number(&status, field)? * KIB);
    let seconds = stat.as_ref().map(Stat::cpu_seconds);
    gauge(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        seconds,
    )?;
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", memory("VmRSS:"))?;
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory("VmSize:"))?;
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", files)?;
    let limit = number(&read("/proc/self/limits"), "Max open files");
    gauge("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit)?;
    write_start(out, now)
}

/// When the process began.
pub fn write_start(out: &mut String, now: Timestamp) -> Result {
    const NAME: &str = "process_start_time_seconds";
    let uptime = read("/proc/uptime").split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    let Some((stat, uptime)) = Stat::read().zip(uptime) else { return Ok(()) };
    let seconds = now.as_millisecond() as f64 / 1000.0 - uptime + stat.start_ticks / TICKS_PER_SECOND;
    head(out, NAME, "gauge", "Start time of the process since unix epoch in seconds.")?;
    writeln!(out, "{NAME} {seconds}")
}

fn write_build(out: &mut String) -> Result {
    const BUILD: Metric<9> = Metric {
        name: "kubernetes_build_info",
        help: "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        labels: [
            "build_date",
            "compiler",
            "git_commit",
            "git_tree_state",
            "git_version",
            "go_version",
            "major",
            "minor",
            "platform",
        ],
    };
    const VERSION: Metric<4> = Metric {
        name: "version_info",
        help: "[ALPHA] Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
        labels: ["binary", "component", "emulation", "min_compat"],
    };
    let built = version::version();
    let text = |field: &str| built[field].as_str().unwrap_or_default().to_owned();
    let fields = [
        "buildDate",
        "compiler",
        "gitCommit",
        "gitTreeState",
        "gitVersion",
        "goVersion",
        "major",
        "minor",
        "platform",
    ];
    BUILD.write(out, "gauge", [(fields.map(|field| text(field).into()), 1.0)])?;
    let emulated = format!("{}.{}", text("emulationMajor"), text("emulationMinor"));
    let compatible = format!("{}.{}", text("minCompatibilityMajor"), text("minCompatibilityMinor"));
    let binary = text("gitVersion").trim_start_matches('v').to_owned();
    VERSION.write(out, "gauge", [([binary.into(), "kube".into(), emulated.into(), compatible.into()], 1.0)])
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
    }

    #[test]
    fn a_process_tells_when_it_began_and_what_it_takes() {
        let mut text = String::new();
        write(&mut text, Timestamp::now()).expect("renders");
        for name in ["process_cpu_seconds_total ", "process_open_fds ", "process_start_time_seconds "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        }
    }
}
