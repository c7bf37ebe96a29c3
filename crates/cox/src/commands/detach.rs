//! `cox up -d`: the cluster runs in a child of its own session; the parent shows its progress until it is ready.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use cluster::Layout;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use crate::progress::{FAILED, NOTE, Progress, READY, STEP, WAIT};

/// Tells a child which descriptor leads to its parent.
const VARIABLE: &str = "COX_PROGRESS_FD";

/// The pipe to the parent, when this is the child. To be called before any thread exists.
pub fn pipe_from_parent() -> Option<File> {
    let fd: i32 = std::env::var(VARIABLE).ok()?.parse().ok()?;
    // SAFETY: the parent opened this descriptor for us alone and nothing else in this process knows it.
    let pipe = unsafe { OwnedFd::from_raw_fd(fd) };
    // Shims and containers must not hold it: the parent reads until all writers are gone.
    fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(pipe.into())
}

pub fn start(layout: &Layout) -> anyhow::Result<ExitCode> {
    let log_path = layout.log();
    if let Some(dir) = log_path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("{} cannot be opened", log_path.display()))?;
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, write.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
    let child = command.spawn().context("cannot start the background process")?;
    drop(write);
    follow(File::from(read), &log_path, child.id())
}

fn follow(pipe: File, log: &std::path::Path, pid: u32) -> anyhow::Result<ExitCode> {
    let progress = Progress::on_terminal();
    for line in BufReader::new(pipe).lines() {
        let line = line?;
        if let Some(text) = line.strip_prefix(STEP) {
            progress.show(text);
        } else if let Some(text) = line.strip_prefix(WAIT) {
            progress.show_waiting(&Progress::unescape(text));
        } else if let Some(text) = line.strip_prefix(NOTE) {
            eprintln!("{}", Progress::unescape(text));
        } else if line == READY {
            eprintln!("\nThe cluster runs in the background (process {pid}); its log is {}.", log.display());
            return Ok(ExitCode::SUCCESS);
        } else if let Some(why) = line.strip_prefix(FAILED) {
            bail!("{}", Progress::unescape(why));
        }
    }
    bail!("the background process ended before the cluster was ready; see {}", log.display())
}
