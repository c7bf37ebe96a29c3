//! The shim: one small process per pod sandbox, which holds its namespaces, starts its containers, reaps them, writes
//! their logs and outlives the agent.
//!
//! It has one thread and no async runtime, because it forks and goes on working in the child. It is `cox` itself,
//! started as `cox runtime-shim FOLDER`, and learns everything from that folder and its socket there.

pub mod capabilities;
mod container;
mod launch;
mod log;
pub mod protocol;
mod rootfs;
mod seccomp;
pub mod seccomp_profile;
mod server;
pub mod spec;
pub mod sys;
mod syscalls;
mod user_namespace;
pub mod zygote;

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, chdir, dup2_stdin, dup2_stdout, sethostname, setsid};

use self::launch::Pod;
use self::server::Server;
use self::spec::SandboxSpec;
use self::user_namespace::Users;

/// What the shim prints before its process id once it serves; anything else is the reason why it does not.
pub const READY: &str = "ready";

/// The OOM killer's last choice, as containerd's shim.
const OOM_SCORE: &str = "-998";

/// Tells what went wrong. Standard error is a file, perhaps on the full disk of which one complains: where `eprintln!`
/// would panic, the words are lost.
fn complain(what: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "{what}"));
}

/// Runs the shim for the sandbox folder named by the first argument, or the zygote that shims are forked from. Call it
/// before any thread exists.
pub fn shim_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    match args.next() {
        Some(word) if word == zygote::ARGUMENT => zygote::run(),
        Some(dir) => run_shim(Path::new(&dir)),
        None => {
            complain(format_args!("usage: runtime-shim zygote|<sandbox folder>"));
            ExitCode::from(2)
        }
    }
}

fn run_shim(dir: &Path) -> ExitCode {
    let server = match set_up(dir) {
        Ok(server) => server,
        Err(reason) => {
            println!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("shim ends: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn set_up(dir: &Path) -> Result<Server, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Relative names keep the socket's path within the 107 bytes an address holds.
    chdir(dir).map_err(|e| format!("enter {}: {e}", dir.display()))?;
    let spec = fs::read(protocol::SPEC_NAME).map_err(told("read sandbox specification"))?;
    let spec: SandboxSpec =
        serde_json::from_slice(&spec).map_err(|e| format!("sandbox specification: {e}"))?;
    setsid().map_err(|e| format!("setsid: {e}"))?;
    prctl::set_child_subreaper(true).map_err(|e| format!("become subreaper: {e}"))?;
    prctl::set_name(c"cox-shim").map_err(|e| format!("set name: {e}"))?;
    lower_oom_score()?;
    launch::join_cgroups(&spec.cgroups)?;
    let signals = watch_children().map_err(|e| format!("watch children: {e}"))?;
    let users = enter_namespaces(&spec)?;
    let init = spec.shared_pid.then(launch::start_pod_init).transpose()?;
    let listener = listen().map_err(told("listen"))?;
    announce().map_err(told("announce"))?;
    server::release_code_pages();
    Ok(Server::new(listener, signals, Pod { init, users }))
}

fn lower_oom_score() -> Result<(), String> {
    match fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        // Lowering takes CAP_SYS_RESOURCE, which a nested node lacks.
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(format!("set oom score: {e}")),
        _ => Ok(()),
    }
}

fn watch_children() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn enter_namespaces(spec: &SandboxSpec) -> Result<Option<Users>, String> {
    let mut flags = CloneFlags::empty();
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    if let Some(ids) = spec.user_namespace {
        return Users::make(ids, flags, || set_up_namespaces(spec)).map(Some);
    }
    unshare(flags).map_err(|e| format!("unshare namespaces: {e}"))?;
    set_up_namespaces(spec).map(|()| None)
}

fn set_up_namespaces(spec: &SandboxSpec) -> Result<(), String> {
    if !spec.host_network {
        sys::loopback_up().map_err(|e| format!("bring loopback up: {e}"))?;
        if !spec.hostname.is_empty() {
            sethostname(&spec.hostname).map_err(|e| format!("set host name: {e}"))?;
        }
    }
    for (name, value) in &spec.sysctls {
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|e| format!("set sysctl {name}={value}: {e}"))?;
    }
    Ok(())
}

fn listen() -> io::Result<UnixListener> {
    match fs::remove_file(protocol::SOCKET_NAME) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(protocol::SOCKET_NAME)
}

/// Tells the agent that we serve, then lets its pipes go.
fn announce() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY} {}", std::process::id())?;
    stdout.flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

/// The id of the process that holds a sandbox's namespaces is the shim's own.
pub fn network_namespace(shim: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{shim}/ns/net"))
}
