//! `cox down`: stops everything and leaves nothing but the data folder.

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cluster::lock::{self, Lock};
use cluster::{Layout, files, kubeconfig, kubelet_root};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cli::DownArgs;
use crate::progress::Progress;
use crate::services::node;

/// What the running process gets to stop by itself.
const STOP_TIMEOUT_MS: u16 = 30_000;

/// What was changed outside the cluster's own folders and must be undone.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traces {
    /// `~/.kube` did not exist before.
    made_kube_folder: bool,
}

impl Traces {
    /// To be called before the user's kubeconfig is written.
    pub fn note_kube_folder(layout: &Layout, user_config: &Path) -> anyhow::Result<()> {
        let mut traces = Traces::load(layout);
        traces.made_kube_folder |= user_config.parent().is_some_and(|dir| !dir.exists());
        Ok(files::write(&layout.traces(), &serde_json::to_vec(&traces)?, 0o600)?)
    }

    fn load(layout: &Layout) -> Self {
        let bytes = std::fs::read(layout.traces()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

pub fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    let layout = args.cluster.layout()?;
    if !nix::unistd::geteuid().is_root() {
        bail!("stopping a cluster needs root: run it with sudo");
    }
    if !layout.data().exists() && !layout.run().exists() {
        eprintln!("There is no cluster {:?} on this machine.", layout.name());
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::on_terminal();
    stop_process(&layout)?;
    progress.step("control plane is stopped");
    {
        let _locks = lock::of_node(&layout)?;
        super::block_on_here(node::remove_pods(&layout)).context("pods could not be removed")?;
        kubelet::unmount_volumes(&layout.kubelet()).context("volumes of pods could not be unmounted")?;
        progress.step("pods are removed");
        remove_network(&layout)?;
        progress.step("links, routes and firewall rules are removed");
        remove_kubeconfigs(&layout)?;
    }
    files::remove(&layout.run())?;
    files::remove_if_empty(&layout.roots().run)?;
    if args.purge {
        kubelet_root::remove(&layout)?;
        files::remove(&layout.data())?;
        files::remove_if_empty(&layout.roots().data)?;
        progress.step("data is removed");
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the running process to stop and waits until it has.
fn stop_process(layout: &Layout) -> anyhow::Result<()> {
    let Some(pid) = Lock::holder(&layout.lock()).filter(|pid| *pid != 0) else { return Ok(()) };
    let raw = i32::try_from(pid).context("process id")?;
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, raw, 0) };
    if fd < 0 {
        return Ok(());
    }
    let fd = i32::try_from(fd).context("process descriptor")?;
    // SAFETY: the kernel just gave us this descriptor.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    kill(Pid::from_raw(raw), Signal::SIGTERM)
        .with_context(|| format!("process {pid} cannot be told to stop"))?;
    let mut ended = [PollFd::new(std::os::fd::AsFd::as_fd(&process), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::from(STOP_TIMEOUT_MS))? == 0 {
        bail!("process {pid} does not stop; end it with `kill -9 {pid}` and run `cox down` again");
    }
    Ok(())
}

fn remove_network(layout: &Layout) -> anyhow::Result<()> {
    network::proxy::teardown(layout.name())?;
    network::policy::teardown(layout.name())?;
    network::pod_network::teardown(layout.name(), &node::network_state(layout))?;
    Ok(())
}

fn remove_kubeconfigs(layout: &Layout) -> anyhow::Result<()> {
    files::remove(&layout.kubeconfig())?;
    files::remove_if_empty(&layout.roots().config)?;
    if let Some(path) = kubeconfig::user_path() {
        if let Err(error) = kubeconfig::unmerge(&path, &layout.context()) {
            eprintln!("warning: {error}");
        }
        if let Some(folder) = path.parent().filter(|_| Traces::load(layout).made_kube_folder) {
            files::remove_if_empty(folder)?;
        }
    }
    files::remove(&layout.traces())?;
    Ok(())
}
