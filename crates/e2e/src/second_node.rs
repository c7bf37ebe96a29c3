//! A second node of a cluster: a machine at the other end of the first one's wire, with `cox agent` on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;

use crate::cluster::{Cluster, LIFE_DEADLINE};
use crate::images;
use crate::machine::{Machine, SECOND_IP, SECOND_NAME};
use crate::process::{self, Background};
use crate::traces::{Scope, Traces};

/// Drops all that comes and goes, as a cut wire does: nobody is told.
const CUT: &str = "add table inet cut
add chain inet cut in { type filter hook prerouting priority -400; }
add rule inet cut in iifname eth0 drop
add chain inet cut out { type filter hook postrouting priority 400; }
add rule inet cut out oifname eth0 drop
";

pub struct SecondNode {
    machine: Machine,
    /// The one it is wired to.
    first: Arc<Machine>,
    has_left: bool,
    /// Of the agent's cluster folders.
    name: String,
    dir: PathBuf,
    program: PathBuf,
    agent: Mutex<Option<Background>>,
}

impl SecondNode {
    /// Joins a machine to a running cluster; Ready comes later.
    pub fn join(cluster: &Cluster) -> anyhow::Result<Self> {
        let machine = Machine::beside(cluster.machine())?;
        let dir = cluster.scratch()?.join("second");
        fs::create_dir_all(dir.join("home"))?;
        let node = SecondNode {
            machine,
            first: cluster.machine().clone(),
            has_left: false,
            name: cluster.neighbour(),
            dir,
            program: cluster.program(),
            agent: Mutex::default(),
        };
        node.start_with(&Self::invitation(cluster)?)?;
        Ok(node)
    }

    /// The flags by which a machine joins this cluster.
    pub fn invitation(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
        let command = cluster.cox(&["token", "create"], &[])?.success()?;
        let flags = command.trim().strip_prefix("cox agent ");
        let flags = flags.with_context(|| format!("the command to join is {command:?}"))?;
        Ok(flags.split(' ').map(str::to_owned).collect())
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Starts the agent of a machine that has joined.
    pub fn start(&self) -> anyhow::Result<()> {
        self.start_with(&[])
    }

    fn start_with(&self, invitation: &[String]) -> anyhow::Result<()> {
        let mut command = self.machine.background_command(&self.program);
        command.arg("agent").args(self.folders()).args(invitation);
        command.args(["--node-name", SECOND_NAME, "--node-ip", SECOND_IP]);
        // However full the disk is on which the tests run.
        command.args(["--eviction-hard", "nodefs.available<1%", "--image-gc-high-threshold", "100"]);
        command.env("HOME", self.dir.join("home"));
        let agent = Background::start(command, "cox agent".to_owned())?;
        *self.agent.lock().expect("nobody panics with it") = Some(agent);
        Ok(())
    }

    /// Waits until the agent says that it serves the node; if it ended instead, tells what it printed.
    pub fn until_registered(&self) -> anyhow::Result<()> {
        let mut agent = self.agent.lock().expect("nobody panics with it");
        let agent = agent.as_mut().context("the agent was not started")?;
        agent.line_with("node is registered", LIFE_DEADLINE).map(drop)
    }

    /// Kills the agent; what it started lives on.
    pub fn kill(&self) -> anyhow::Result<()> {
        let called = format!("{} agent ", self.program.display());
        let processes = self.machine.processes()?.into_iter();
        let agents: Vec<_> = processes.filter(|process| process.command.contains(&called)).collect();
        // That ends the program that leads into the machine, and so the kernel kills the agent, in its own time.
        *self.agent.lock().expect("nobody panics with it") = None;
        agents.iter().try_for_each(|agent| self.machine.until_gone(agent.pid))
    }

    pub fn import(&self, image: &str) -> anyhow::Result<()> {
        let archive = images::archive(image)?.display().to_string();
        self.machine.until("the agent answers", || {
            Ok(self.cox(&["image", "import"], &["--pin", &archive])?.status.success())
        })
    }

    fn cox(&self, command: &[&str], rest: &[&str]) -> anyhow::Result<process::Finished> {
        let mut made = self.machine.command(&self.program, LIFE_DEADLINE);
        made.args(command).args(self.folders()).args(rest).env("HOME", self.dir.join("home"));
        process::run(made, format!("cox {} on the second node", command.join(" ")), "")
    }

    fn folders(&self) -> Vec<String> {
        let folder = |name: &str| self.dir.join(name).display().to_string();
        let (data, etc, run) = (folder("data"), folder("etc"), folder("run"));
        let flags = ["--name", &self.name, "--data-dir", &data, "--config-dir", &etc, "--run-dir", &run];
        flags.map(str::to_owned).to_vec()
    }

    /// From now on nothing passes between this node and the other.
    pub fn cut_off(&self) -> anyhow::Result<()> {
        let mut command = self.machine.command(Path::new("nft"), LIFE_DEADLINE);
        command.args(["-f", "-"]);
        process::run(command, "nft".to_owned(), CUT)?.success().map(drop)
    }

    pub fn mend(&self) -> anyhow::Result<()> {
        self.machine.run("nft", &["delete", "table", "inet", "cut"])?.success().map(drop)
    }

    pub fn census(&self) -> anyhow::Result<Traces> {
        Traces::of(&self.scope())
    }

    pub fn difference_since(&self, before: &Traces) -> anyhow::Result<Vec<String>> {
        before.difference_now(&self.scope())
    }

    fn scope(&self) -> Scope<'_> {
        let data = self.dir.join("data").join(&self.name);
        let folders = ["runtime/sandboxes", "runtime/containers", "kubelet/pods", "log/pods"];
        Scope {
            machine: &self.machine,
            cgroup: &self.name,
            folders: folders.map(|name| data.join(name)).to_vec(),
        }
    }

    /// The node goes for good.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        self.has_left = true;
        self.kill()?;
        self.cox(&["down"], &["--purge"])?.success()?;
        self.machine.unplug(&self.first)
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        // The machine takes all with it but control groups.
        if !self.has_left
            && let Err(error) = self.leave()
        {
            eprintln!("the second node: {error:#}");
        }
    }
}
