//! A machine of a test's own, made of namespaces: network with one address, mounts, processes, host name.
//!
//! Its first process waits for the test: when the test ends, however it ends, the kernel removes all that ran there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, Background, Finished};

/// The address of the machine, on a link that leads nowhere.
pub const NODE_IP: &str = "10.199.0.2";
/// The machine's host name, and so the node's.
pub const NODE_NAME: &str = "e2e-node";
/// The same of a second machine beside it.
pub const SECOND_IP: &str = "10.199.0.3";
pub const SECOND_NAME: &str = "e2e-second";
/// What one command gets, unless it is given more.
pub const COMMAND_SECONDS: u64 = 120;

/// Between two looks at what no watch tells.
const UNTIL_STEP: Duration = Duration::from_millis(50);

/// Run by the first process. `cat` ends when the test does; the shell stays to reap orphans meanwhile.
const BOOT: &str = "set -e
hostname \"$1\"
ip link set lo up
if [ -n \"$2\" ]; then
ip link add eth0 type veth peer name wire
ip addr add \"$2/24\" dev eth0
ip link set eth0 up
ip link set wire up
ip route add default via 10.199.0.1
fi
echo ready
cat > /dev/null
:";

/// What makes the other end of a machine's wire the network of one that has none yet.
const PLUG_IN: &str = "set -e
ip link set wire name eth0
ip addr add \"$1/24\" dev eth0
ip link set eth0 up
ip route add default via 10.199.0.1";

pub struct Machine {
    /// `unshare`, the first process's parent; its standard input keeps the machine alive.
    holder: Child,
    /// The first process, as this side sees it.
    init: u32,
}

/// A process of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// As the machine sees it.
    pub pid: u32,
    /// What it calls itself.
    pub name: String,
    pub command: String,
}

impl Machine {
    pub fn start() -> anyhow::Result<Self> {
        Machine::boot(NODE_NAME, NODE_IP)
    }

    /// A second machine, at the other end of the first one's wire.
    pub fn beside(first: &Machine) -> anyhow::Result<Self> {
        let second = Machine::boot(SECOND_NAME, "")?;
        first.hand_wire_to(&second)?;
        second.run("sh", &["-c", PLUG_IN, "sh", SECOND_IP])?.success()?;
        Ok(second)
    }

    /// Gives the wire back, without which the first machine would lose its own end of it too.
    pub fn unplug(&self, first: &Machine) -> anyhow::Result<()> {
        self.run("sh", &["-c", "ip link set eth0 down && ip link set eth0 name wire"])?.success()?;
        self.hand_wire_to(first)?;
        first.run("ip", &["link", "set", "wire", "up"])?.success().map(drop)
    }

    fn hand_wire_to(&self, other: &Machine) -> anyhow::Result<()> {
        // Into the network only: the process is named as this side sees it.
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net", "--", "ip", "link", "set", "wire"]);
        command.args(["netns", &other.init.to_string()]);
        process::run(command, "ip link set wire netns".to_owned(), "")?.success().map(drop)
    }

    /// A machine with this address, or without a network.
    fn boot(name: &str, address: &str) -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "tests with real containers need root");
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"])
            .args(["--propagation", "private", "--", "sh", "-c", BOOT, "init", name, address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("it was piped")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "the test's machine did not start (is iproute2 installed?)");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = fs::read_to_string(&children).with_context(|| format!("cannot read {children}"))?;
        Ok(Machine { init: init.trim().parse().context("unshare has one child")?, holder })
    }

    /// A program on the machine, with a deadline.
    pub fn command(&self, program: &Path, deadline: Duration) -> Command {
        let mut command = self.enter();
        let seconds = deadline.as_secs().to_string();
        command.args(["timeout", "--foreground", "--kill-after=5", seconds.as_str()]).arg(program);
        command
    }

    /// A program that ends when this side of it is killed.
    pub fn background_command(&self, program: &Path) -> Command {
        let mut command = self.enter();
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.to_string(),
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--",
        ]);
        command
    }

    /// Runs a program of the machine's own, such as `ip`.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<Finished> {
        let mut command = self.command(Path::new(program), Duration::from_secs(COMMAND_SECONDS));
        command.args(args);
        process::run(command, format!("{program} {}", args.join(" ")), "")
    }

    pub fn background(&self, program: &str, args: &[&str]) -> anyhow::Result<Background> {
        let mut command = self.background_command(Path::new(program));
        command.args(args);
        Background::start(command, format!("{program} {}", args.join(" ")))
    }

    /// Runs `work` on a thread that is in the machine's network.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let network = self.network()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(network, CloneFlags::CLONE_NEWNET).context("cannot enter the network")?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub fn network(&self) -> anyhow::Result<File> {
        Ok(File::open(format!("/proc/{}/ns/net", self.init))?)
    }

    /// The machine's file system, seen from here.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    pub fn mounts(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/mountinfo", self.init))?)
    }

    /// All processes of the machine and its containers, sorted.
    pub fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let proc = self.root().join("proc");
        let mut found = Vec::new();
        for entry in fs::read_dir(&proc)? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // One may end while we look.
            let Ok(bytes) = fs::read(proc.join(&name).join("cmdline")) else { continue };
            let words = String::from_utf8_lossy(&bytes);
            let command = words.trim_end_matches('\0').replace('\0', " ");
            let name = fs::read_to_string(proc.join(&name).join("comm")).unwrap_or_default();
            found.push(Process { pid, name: name.trim_end().to_owned(), command });
        }
        found.sort();
        Ok(found)
    }

    /// Waits for what no watch tells, such as a process that ends or a port that opens.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(COMMAND_SECONDS);
        while !done()? {
            ensure!(Instant::now() < deadline, "in {COMMAND_SECONDS} s it did not happen that {what}");
            std::thread::sleep(UNTIL_STEP);
        }
        Ok(())
    }

    pub fn runs(&self, pid: u32) -> anyhow::Result<bool> {
        Ok(self.processes()?.iter().any(|process| process.pid == pid))
    }

    /// Waits for the end of a process that was killed: its locks go with it, and it takes a moment to go.
    pub fn until_gone(&self, pid: u32) -> anyhow::Result<()> {
        self.until("the process is gone", || Ok(!self.runs(pid)?))
    }

    /// The network namespaces that processes of the machine are in.
    pub fn networks(&self) -> anyhow::Result<BTreeSet<String>> {
        let proc = self.root().join("proc");
        let of = |process: Process| fs::read_link(proc.join(process.pid.to_string()).join("ns/net")).ok();
        let links = self.processes()?.into_iter().filter_map(of);
        Ok(links.map(|link| link.display().to_string()).collect())
    }

    /// Sends SIGKILL to a process of the machine.
    pub fn kill(&self, pid: u32) -> anyhow::Result<()> {
        self.run("kill", &["-9", &pid.to_string()])?.success().map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            eprintln!("the test's machine did not end: {error}");
        }
    }
}
