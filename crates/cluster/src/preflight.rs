//! What a machine must offer before a cluster starts. Each thing that is missing is named, with what to do.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

/// Something the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    /// A sentence that says how to mend it.
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { what: what.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n    {}", self.what, self.remedy)
    }
}

/// Bytes that must be free where the data goes.
pub const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Everything that is missing, in the order in which it is best mended.
pub fn check(data: &Path, ports: &[u16]) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(root());
    problems.extend(file_systems());
    problems.extend(cgroups());
    problems.extend(kernel_features());
    problems.extend(disk(data));
    problems.extend(ports.iter().filter_map(|port| port_in_use(*port)));
    problems
}

fn root() -> Option<Problem> {
    (!nix::unistd::geteuid().is_root()).then(|| {
        Problem::new(
            "not running as root",
            "Containers, links and firewall rules need root: run it with sudo.",
        )
    })
}

fn file_systems() -> Vec<Problem> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    missing_file_systems(&known)
}

fn missing_file_systems(known: &str) -> Vec<Problem> {
    let has = |name: &str| known.lines().any(|line| line.split_whitespace().last() == Some(name));
    [("overlay", "Load it with `modprobe overlay`, or use a kernel built with CONFIG_OVERLAY_FS.")]
        .into_iter()
        .filter(|(name, _)| !has(name))
        .map(|(name, remedy)| Problem::new(format!("the kernel has no {name} file system"), remedy))
        .collect()
}

/// The controllers that pods are limited by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

fn cgroups() -> Vec<Problem> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts
        .lines()
        .any(|line| line.split_whitespace().nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
    {
        let remedy = "Mount it with `mount -t cgroup2 none /sys/fs/cgroup`.";
        return vec![Problem::new("no cgroup file system is mounted", remedy)];
    }
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    let v1 = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    missing_controllers(v2.as_deref(), &v1)
}

/// `v2` lists controllers in a line; `v1` is `/proc/cgroups`: name, hierarchy, count, enabled.
fn missing_controllers(v2: Option<&str>, v1: &str) -> Vec<Problem> {
    let enabled = |name: &str| match v2 {
        Some(list) => list.split_whitespace().any(|known| known == name),
        None => v1.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&name) && words.get(3) == Some(&"1")
        }),
    };
    CONTROLLERS
        .into_iter()
        .filter(|name| !enabled(name))
        .map(|name| {
            let remedy = format!(
                "Boot with `cgroup_enable={name}` on the kernel command line, or mount /sys/fs/cgroup."
            );
            Problem::new(format!("the {name} cgroup controller is not available"), remedy)
        })
        .collect()
}

fn kernel_features() -> Vec<Problem> {
    let namespaces = [
        ("net", "CONFIG_NET_NS"),
        ("pid", "CONFIG_PID_NS"),
        ("ipc", "CONFIG_IPC_NS"),
        ("uts", "CONFIG_UTS_NS"),
    ];
    let mut problems: Vec<Problem> = namespaces
        .into_iter()
        .filter(|(name, _)| !Path::new("/proc/self/ns").join(name).exists())
        .map(|(name, option)| {
            Problem::new(
                format!("the kernel has no {name} namespaces"),
                format!("Use a kernel built with {option}."),
            )
        })
        .collect();
    if let Err(why) = nftables() {
        let remedy = "Load it with `modprobe nf_tables`, or use a kernel built with CONFIG_NF_TABLES and CONFIG_NFT_NAT.";
        problems.push(Problem::new(format!("nftables does not answer: {why}"), remedy));
    }
    problems
}

/// Whether the kernel takes netfilter netlink at all.
fn nftables() -> Result<(), nix::errno::Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
        .map(drop)
}

fn disk(data: &Path) -> Option<Problem> {
    let existing = data.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    (free < FREE_BYTES_MIN).then(|| {
        let what = format!("only {} MiB are free at {}", free >> 20, existing.display());
        Problem::new(
            what,
            format!("Free at least {} MiB, or choose another place with --data-dir.", FREE_BYTES_MIN >> 20),
        )
    })
}

fn port_in_use(port: u16) -> Option<Problem> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).err().map(|error| {
        let remedy =
            format!("See who listens with `ss -ltnp 'sport = :{port}'` and stop it, or choose other ports.");
        Problem::new(format!("port {port} cannot be used: {error}"), remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("binds");
        let port = taken.local_addr().expect("bound").port();
        let problem = port_in_use(port).expect("it is taken");
        assert!(problem.what.starts_with(&format!("port {port} cannot be used")), "{problem}");
        drop(taken);
        assert_eq!(port_in_use(port), None);
    }

    #[test]
    fn missing_controllers_are_named_for_both_versions() {
        let v1 = "#subsys_name hierarchy num_cgroups enabled\ncpu 1 1 1\nmemory 0 1 0\npids 3 1 1\n";
        let names = |problems: Vec<Problem>| problems.into_iter().map(|p| p.what).collect::<Vec<_>>();
        assert_eq!(names(missing_controllers(None, v1)), ["the memory cgroup controller is not available"]);
        assert_eq!(names(missing_controllers(Some("cpu memory pids io"), "")), [""; 0]);
    }

    #[test]
    fn a_missing_file_system_is_named() {
        assert_eq!(missing_file_systems("nodev\tsysfs\n\text4\n").len(), 1);
        assert_eq!(missing_file_systems("nodev\toverlay\n"), []);
    }
}
