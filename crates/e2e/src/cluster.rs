//! A cluster of a test's own, from `cox up` to the proof that nothing of it is left.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::containerd::Containerd;
use crate::http::{self, Answer};
use crate::kubectl::Kubectl;
use crate::machine::{Machine, NODE_IP};
use crate::process::{self, Finished};
use crate::slots::Slot;
use crate::traces::{Scope, Traces};
use crate::{images, program};

/// What starting or stopping a cluster may take; a debug build on a busy machine.
pub const LIFE_DEADLINE: Duration = Duration::from_secs(120);
/// Lines of the log that a failure shows.
const LOG_LINES: usize = 150;

/// Prints namespace and name of each pod.
const POD_NAMES: &str = r#"jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}"#;

/// Tells clusters of one test program apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whose containers a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    BuiltIn,
    Containerd,
}

pub struct Cluster {
    name: String,
    /// Ends before the machine does.
    containerd: Option<Containerd>,
    machine: Arc<Machine>,
    /// Holds everything of the test: `bin`, `home`, `data`, `etc`, `run`.
    dir: PathBuf,
    before: Traces,
    /// The test reached its end: no evidence is needed.
    finished: bool,
    _slot: Slot,
}

impl Cluster {
    /// A machine with `cox` and no cluster yet.
    pub fn prepare() -> anyhow::Result<Self> {
        let slot = Slot::take()?;
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("cox-{name}"));
        for folder in ["bin", "home"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        // A file of the test's own: cargo may build the next one while this test runs.
        let (built, own) = (program::cox()?, dir.join("bin/cox"));
        if fs::hard_link(&built, &own).is_err() {
            fs::copy(&built, &own).context("cannot copy cox")?;
        }
        let machine = Arc::new(Machine::start()?);
        let before = Traces::of(&scope(&machine, &name, &dir))?;
        Ok(Cluster { name, machine, containerd: None, dir, before, finished: false, _slot: slot })
    }

    /// A running cluster with these images.
    pub fn start(image_names: &[&str]) -> anyhow::Result<Self> {
        Cluster::start_on(Runtime::BuiltIn, image_names)
    }

    pub fn start_on(runtime: Runtime, image_names: &[&str]) -> anyhow::Result<Self> {
        let mut cluster = Cluster::prepare()?;
        if runtime == Runtime::Containerd {
            let dir = cluster.scratch()?.join("containerd");
            cluster.containerd = Some(Containerd::start(&cluster.machine, &dir)?);
        }
        cluster.restart()?;
        image_names.iter().try_for_each(|name| cluster.import(name))?;
        Ok(cluster)
    }

    /// Starts the cluster's process, with the runtime that it began with.
    pub fn restart(&self) -> anyhow::Result<()> {
        let flags = self.containerd.as_ref().map(Containerd::flags).unwrap_or_default();
        self.up(&flags.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }

    pub fn import(&self, image: &str) -> anyhow::Result<()> {
        if let Some(containerd) = &self.containerd {
            return containerd.import(&self.machine, image);
        }
        let archive = images::archive(image)?;
        self.cox(&["image", "import"], &[&archive.display().to_string()])?.success().map(drop)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `cox` that is tested.
    pub fn program(&self) -> PathBuf {
        self.dir.join("bin/cox")
    }

    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// A folder for the test's own files.
    pub fn scratch(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join("scratch");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// What a running cluster's node holds for pods: compared before and after they lived.
    pub fn census(&self) -> anyhow::Result<Traces> {
        Traces::of(&self.census_scope())
    }

    /// What differs from an earlier census.
    pub fn difference_since(&self, before: &Traces) -> anyhow::Result<Vec<String>> {
        before.difference_now(&self.census_scope())
    }

    fn census_scope(&self) -> Scope<'_> {
        let data = self.data_on_machine();
        let kept = ["runtime/sandboxes", "runtime/containers", "runtime/tmp", "kubelet/pods", "log/pods"];
        let mut folders = kept.map(|folder| data.join(folder)).to_vec();
        folders.push(self.dir.join("run").join(&self.name).join("runtime"));
        Scope { machine: &self.machine, cgroup: &self.name, folders }
    }

    /// The data as the machine sees it, which may have mounted something there.
    pub fn data_on_machine(&self) -> PathBuf {
        let data = self.data();
        self.machine.root().join(data.strip_prefix("/").unwrap_or(&data))
    }

    /// Open files of the cluster's one process.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        let open = self.machine.root().join("proc").join(self.pid()?.to_string()).join("fd");
        Ok(fs::read_dir(open)?.count())
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data").join(&self.name)
    }

    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The name of a second cluster on the same machine.
    pub fn neighbour(&self) -> String {
        format!("{}-b", self.name)
    }

    /// `cox COMMAND --name .. --data-dir .. REST`, whatever comes of it.
    pub fn cox(&self, command: &[&str], rest: &[&str]) -> anyhow::Result<Finished> {
        self.cox_for(&self.name, command, rest)
    }

    /// As `cox`, for this cluster or its neighbour.
    pub fn cox_for(&self, name: &str, command: &[&str], rest: &[&str]) -> anyhow::Result<Finished> {
        let mut made = self.machine.command(&self.program(), LIFE_DEADLINE);
        made.args(command).args(["--name", name]);
        for (flag, folder) in [("--data-dir", "data"), ("--config-dir", "etc"), ("--run-dir", "run")] {
            made.arg(flag).arg(self.dir.join(folder));
        }
        made.args(rest).env("HOME", self.home()).env_remove("KUBECONFIG");
        process::run(made, format!("cox {} {}", command.join(" "), rest.join(" ")), "")
    }

    pub fn up(&self, flags: &[&str]) -> anyhow::Result<String> {
        self.cox(&["up", "--detach"], flags)?.success_with_stderr()
    }

    /// Ends the cluster's one process as a power cut would.
    pub fn kill(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        self.machine.kill(pid)?;
        self.machine.until_gone(pid)
    }

    /// PSS of the cluster's one process.
    pub fn memory_kilobytes(&self) -> anyhow::Result<u64> {
        let path = self.machine.root().join("proc").join(self.pid()?.to_string()).join("smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("it tells the PSS")?;
        line.trim().trim_end_matches(" kB").parse().context("the PSS is a number")
    }

    pub fn is_running(&self) -> anyhow::Result<bool> {
        self.machine.runs(self.pid()?)
    }

    /// The cluster's one process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let path = self.dir.join("run").join(&self.name).join("lock");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.trim().parse().context("the lock names a process")
    }

    /// The newest `kubectl` of this machine, with the kubeconfig that `cox up` left in the home folder.
    pub fn kubectl(&self) -> anyhow::Result<Kubectl> {
        let (_, program) = program::kubectls()?.pop().context("at least one is there")?;
        let cache = self.scratch()?.join("kubectl-cache");
        Ok(Kubectl::new(self.machine.clone(), program, self.home(), cache))
    }

    /// Asks a port of the node.
    pub fn get(&self, port: u16, path: &str) -> anyhow::Result<Answer> {
        self.get_from(SocketAddr::new(NODE_IP.parse()?, port), path)
    }

    /// Waits until a port of the node is served: pods are Ready before the node has heard that a Service leads to them.
    pub fn until_served(&self, port: u16) -> anyhow::Result<()> {
        self.machine.until("the Service answers", || Ok(self.get(port, "/").is_ok()))
    }

    pub fn get_from(&self, address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
        self.machine.in_network(|| http::get(address, path))?
    }

    /// What differs from before the cluster was made.
    pub fn left_behind(&self) -> anyhow::Result<Vec<String>> {
        self.before.difference_now(&scope(&self.machine, &self.name, &self.dir))
    }

    /// Stops the cluster; fails if anything of it is left.
    pub fn finish(mut self) -> anyhow::Result<()> {
        // Older versions of kubectl cache in the home folder, whatever they are told.
        remove_dir(&self.home().join(".kube/cache"))?;
        self.cox(&["down"], &["--purge"])?.success()?;
        let mut left = self.left_behind()?;
        // What another runtime and its plugins leave is theirs, and goes with the machine; control groups would not.
        left.retain(|line| self.containerd.is_none() || line.starts_with("cgroups"));
        ensure!(left.is_empty(), "`cox down --purge` left the machine different:\n{}", left.join("\n"));
        self.finished = true;
        Ok(())
    }

    /// What a person would look at first.
    fn show_evidence(&self) {
        eprintln!("=== evidence from cluster {}", self.name);
        if let Ok(kubectl) = self.kubectl() {
            let looks: [&[&str]; 4] = [
                &["get", "all", "-A", "-o", "wide"],
                &["get", "nodes", "-o", "wide"],
                &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
                &["describe", "pods", "-A"],
            ];
            looks.iter().for_each(|look| show(&kubectl, look));
            let pods = kubectl.run(&["get", "pods", "-A", "-o", POD_NAMES]).unwrap_or_default();
            for (namespace, name) in pods.lines().filter_map(|line| line.split_once(' ')) {
                show(&kubectl.in_namespace(namespace), &["logs", name, "--all-containers", "--tail=20"]);
            }
        }
        match self.machine.processes() {
            Ok(processes) => {
                processes.iter().for_each(|process| eprintln!("{:>7} {}", process.pid, process.command))
            }
            Err(error) => eprintln!("{error:#}"),
        }
        let log = fs::read_to_string(self.data_on_machine().join("log/cox.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("--- the last {LOG_LINES} lines of cox.log");
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| eprintln!("{line}"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.finished {
            self.show_evidence();
            for name in [&self.name, &self.neighbour()] {
                match self.cox_for(name, &["down"], &["--purge"]) {
                    Ok(finished) if finished.status.success() => {}
                    Ok(finished) => eprintln!("{finished}"),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        }
        if let Err(error) = remove_dir(&self.dir) {
            eprintln!("{error:#}");
        }
    }
}

fn show(kubectl: &Kubectl, look: &[&str]) {
    match kubectl.attempt(&[look, &["--request-timeout=10s"]].concat(), "") {
        Ok(finished) => eprintln!("{finished}"),
        Err(error) => eprintln!("{error:#}"),
    }
}

fn scope<'a>(machine: &'a Machine, name: &'a str, dir: &Path) -> Scope<'a> {
    let folders = ["home", "data", "etc", "run"].map(|folder| dir.join(folder)).to_vec();
    Scope { machine, cgroup: name, folders }
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
