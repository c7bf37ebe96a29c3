//! Starting a process inside a container: two forks, namespaces, identity, `execve`.
//!
//! Following runc, a first child joins cgroups and PID namespace and forks the process proper, which the shim inherits
//! as subreaper. A close-on-exec pipe carries the process id and, if anything fails before `execve`, the reason.
//! The shim has one thread, so everything may allocate after the fork.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::stat::{Mode, fstat, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, fork, pipe2, setgroups,
    setresgid, setresuid, setsid,
};

use super::protocol::send_descriptor;
use super::spec::{ContainerSpec, PidMode, ProcessSpec, Seccomp};
use super::user_namespace::Users;
use super::{capabilities, rootfs, seccomp, sys};

type Result<T> = std::result::Result<T, String>;

/// Exit status of a process whose `execve` failed; nobody reads it, the reason goes through the pipe.
const FAILED_STATUS: i32 = 127;
/// Longest reason read back from a failed start.
const REASON_BYTES_MAX: u64 = 64 << 10;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What becomes the process's stdin, stdout and stderr.
pub enum Stdio {
    Files([OwnedFd; 3]),
    /// A terminal is opened in the container; its master is sent here.
    Console(OwnedFd),
}

impl Stdio {
    /// Lets the process open its streams by name (`/dev/stdout`), whoever it runs as.
    fn give_to(&self, uid: u32, users: Option<&Users>) -> Result<()> {
        let Stdio::Files(files) = self else { return Ok(()) };
        let uid = Uid::from_raw(users.map_or(0, Users::root).saturating_add(uid));
        for file in files {
            let kind = fstat(file).map_err(|e| format!("stat stdio: {e}"))?.st_mode & libc::S_IFMT;
            // `/dev/null` is everybody's.
            if kind != libc::S_IFCHR {
                fchown(file, Some(uid), None).map_err(|e| format!("chown stdio: {e}"))?;
            }
        }
        Ok(())
    }
}

/// What the containers of a pod share beside the shim's own namespaces.
pub struct Pod {
    /// Init of the shared PID namespace.
    pub init: Option<Pid>,
    /// None: the node's.
    pub users: Option<Users>,
}

/// Starts a container's init; returns its process id once `execve` has succeeded.
pub fn start_container(spec: &ContainerSpec, pod: &Pod, stdio: Stdio) -> Result<Pid> {
    let join = || {
        join_cgroups(&spec.process.cgroups)?;
        set_oom_score(spec.process.oom_score_adj)?;
        enter_pid_namespace(spec.pid, pod.init)
    };
    spawn(join, || {
        if !spec.node_cgroups {
            unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| format!("unshare cgroup namespace: {e}"))?;
        }
        rootfs::enter(spec, pod.users.as_ref())?;
        setsid().map_err(|e| format!("setsid: {e}"))?;
        stdio.give_to(spec.process.uid, pod.users.as_ref())?;
        if let Some(users) = &pod.users {
            users.enter()?;
            // Copied into a namespace of the pod's root, who may mount more, but take none of these away.
            unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare mount namespace: {e}"))?;
        }
        connect_stdio(stdio, &spec.process, true)?;
        run(&spec.process)
    })
}

/// Starts another process in the container whose init is `init`.
pub fn start_process(process: &ProcessSpec, init: Pid, pod: &Pod, stdio: Stdio) -> Result<Pid> {
    let target = sys::pidfd_open(init.as_raw()).map_err(|e| format!("open container process: {e}"))?;
    let join = || {
        join_cgroups(&process.cgroups)?;
        set_oom_score(process.oom_score_adj)?;
        let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
        sys::join_namespaces(target.as_fd(), namespaces).map_err(|e| format!("join namespaces: {e}"))
    };
    spawn(join, || {
        setsid().map_err(|e| format!("setsid: {e}"))?;
        stdio.give_to(process.uid, pod.users.as_ref())?;
        pod.users.as_ref().map_or(Ok(()), Users::enter)?;
        connect_stdio(stdio, process, false)?;
        run(process)
    })
}

/// Forks the init of a pod's shared PID namespace, which only reaps.
pub fn start_pod_init() -> Result<Pid> {
    let join = || unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("unshare pid namespace: {e}"));
    spawn_staying(join, |ready| {
        setsid().map_err(|e| format!("setsid: {e}"))?;
        prctl::set_name(c"cox-pod-init").map_err(|e| format!("set name: {e}"))?;
        sys::close_descriptors_on_exec().map_err(|e| e.to_string())?;
        // SAFETY: ignoring a signal installs no handler; the kernel then reaps orphans by itself.
        unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) }
            .map_err(|e| e.to_string())?;
        drop(ready);
        loop {
            nix::unistd::pause();
        }
    })
}

fn spawn(join: impl FnOnce() -> Result<()>, body: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    spawn_staying(join, |mut report| match body() {
        Err(reason) => {
            report.write_all(reason.as_bytes()).map_err(|e| e.to_string())?;
            Err(reason)
        }
    })
}

/// `body` gets the pipe on which silence means success; it closes by `execve` or by being dropped.
fn spawn_staying(
    join: impl FnOnce() -> Result<()>,
    body: impl FnOnce(File) -> Result<Infallible>,
) -> Result<Pid> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {e}"))?;
    let (pid_reader, pid_writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {e}"))?;
    // SAFETY: this process has one thread.
    let middle = match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Child => {
            drop((reader, pid_reader));
            middle_process(join, body, File::from(writer), File::from(pid_writer))
        }
        ForkResult::Parent { child } => child,
    };
    drop((writer, pid_writer));
    let pid = read_pid(File::from(pid_reader));
    let mut reason = String::new();
    let read = File::from(reader).take(REASON_BYTES_MAX).read_to_string(&mut reason);
    reap(middle);
    match (pid, read) {
        (Some(pid), Ok(0)) => Ok(pid),
        (pid, read) => {
            if let Some(pid) = pid {
                reap(pid);
            }
            Err(match read {
                Ok(0) => "process ended before it was started".to_owned(),
                Ok(_) => reason,
                Err(e) => format!("read start status: {e}"),
            })
        }
    }
}

/// The first child: joins, forks the second, tells its id, ends.
fn middle_process(
    join: impl FnOnce() -> Result<()>,
    body: impl FnOnce(File) -> Result<Infallible>,
    mut report: File,
    mut pid_writer: File,
) -> ! {
    let forked = join().and_then(|()| {
        // SAFETY: this process has one thread.
        unsafe { fork() }.map_err(|e| format!("fork: {e}"))
    });
    let status = match forked {
        Ok(ForkResult::Parent { child }) => {
            i32::from(pid_writer.write_all(&child.as_raw().to_ne_bytes()).is_err())
        }
        Ok(ForkResult::Child) => {
            drop(pid_writer);
            match body(report) {
                Err(_) => FAILED_STATUS,
            }
        }
        Err(reason) => {
            // When even this fails the shim still sees that no process id came.
            i32::from(report.write_all(reason.as_bytes()).is_err()) + 1
        }
    };
    // SAFETY: ends this process without running the parent's exit handlers.
    unsafe { libc::_exit(status) }
}

fn read_pid(mut reader: File) -> Option<Pid> {
    let mut bytes = [0; size_of::<i32>()];
    reader.read_exact(&mut bytes).ok()?;
    Some(Pid::from_raw(i32::from_ne_bytes(bytes)))
}

fn reap(pid: Pid) {
    while waitpid(pid, None) == Err(Errno::EINTR) {}
}

pub fn join_cgroups(cgroups: &[PathBuf]) -> Result<()> {
    for cgroup in cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0")
            .map_err(|e| format!("join cgroup {}: {e}", cgroup.display()))?;
    }
    Ok(())
}

/// Lowering needs CAP_SYS_RESOURCE, which a nested node lacks: then the inherited score stays.
fn set_oom_score(score: Option<i32>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => Err(format!("set oom score: {e}")),
        _ => Ok(()),
    }
}

fn enter_pid_namespace(mode: PidMode, pod_init: Option<Pid>) -> Result<()> {
    let target = match mode {
        PidMode::Node => return Ok(()),
        PidMode::Container => {
            return unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("unshare pid namespace: {e}"));
        }
        PidMode::Pod => pod_init.ok_or("the pod has no shared pid namespace")?.as_raw(),
        PidMode::Target(pid) => pid,
    };
    let namespace =
        File::open(format!("/proc/{target}/ns/pid")).map_err(|e| format!("open pid namespace: {e}"))?;
    setns(namespace, CloneFlags::CLONE_NEWPID).map_err(|e| format!("join pid namespace: {e}"))
}

fn connect_stdio(stdio: Stdio, process: &ProcessSpec, is_init: bool) -> Result<()> {
    let [stdin, stdout, stderr] = match stdio {
        Stdio::Files(files) => files,
        Stdio::Console(socket) => {
            let terminal = open_console(&socket, is_init)?;
            fchown(&terminal, Some(Uid::from_raw(process.uid)), None)
                .map_err(|e| format!("chown terminal: {e}"))?;
            let copy = || terminal.try_clone().map_err(|e| format!("copy terminal: {e}"));
            [copy()?, copy()?, copy()?]
        }
    };
    dup2_stdin(&stdin).map_err(|e| format!("connect stdin: {e}"))?;
    dup2_stdout(&stdout).map_err(|e| format!("connect stdout: {e}"))?;
    dup2_stderr(&stderr).map_err(|e| format!("connect stderr: {e}"))
}

/// Opens a terminal of the container's own devpts, sends its master away and makes it ours.
fn open_console(socket: &OwnedFd, is_init: bool) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).map_err(|e| format!("open /dev/ptmx: {e}"))?;
    nix::pty::unlockpt(&master).map_err(|e| format!("unlock terminal: {e}"))?;
    let name = nix::pty::ptsname_r(&master).map_err(|e| format!("name terminal: {e}"))?;
    let terminal = open(name.as_str(), flags, Mode::empty()).map_err(|e| format!("open {name}: {e}"))?;
    send_descriptor(socket, &master).map_err(|e| format!("send terminal: {e}"))?;
    sys::set_controlling_terminal(&terminal).map_err(|e| format!("set controlling terminal: {e}"))?;
    if is_init {
        File::create("/dev/console").map_err(|e| format!("create /dev/console: {e}"))?;
        let none: Option<&str> = None;
        nix::mount::mount(Some(name.as_str()), "/dev/console", none, nix::mount::MsFlags::MS_BIND, none)
            .map_err(|e| format!("bind /dev/console: {e}"))?;
    }
    Ok(terminal)
}

/// Takes the process's identity and becomes its program.
fn run(process: &ProcessSpec) -> Result<Infallible> {
    rootfs::enter_working_directory(&process.cwd)?;
    sys::close_descriptors_on_exec().map_err(|e| format!("close descriptors: {e}"))?;
    confine(process)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().map_err(|e| format!("set no_new_privs: {e}"))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    reset_signals()?;
    // Without no_new_privs a filter may only be installed by who holds SYS_ADMIN: before the identity changes.
    if !process.no_new_privileges {
        install_seccomp(process)?;
    }
    take_identity(process)?;
    let program = find_program(process)?;
    let program_text = program.display().to_string();
    let program = c_string(&program_text)?;
    let args = process.args.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>>>()?;
    let env = environment(process)?;
    if process.no_new_privileges {
        install_seccomp(process)?;
    }
    execve(&program, &args, &env).map_err(|e| format!("exec {program_text:?}: {}", describe(e)))
}

/// Has the kernel hold the process to its AppArmor profile from `execve` on.
fn confine(process: &ProcessSpec) -> Result<()> {
    let Some(profile) = &process.apparmor else { return Ok(()) };
    fs::write("/proc/thread-self/attr/apparmor/exec", format!("exec {profile}"))
        .map_err(|e| format!("apply AppArmor profile {profile:?}: {e}"))
}

fn install_seccomp(process: &ProcessSpec) -> Result<()> {
    let installed = match &process.seccomp {
        Seccomp::Unconfined => return Ok(()),
        Seccomp::RuntimeDefault => seccomp::install_default(process.capabilities),
        Seccomp::Profile(profile) => profile.install(),
    };
    installed.map_err(|e| format!("seccomp: {e}"))
}

fn reset_signals() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { sigaction(signal, &default) }.map_err(|e| format!("reset {signal}: {e}"))?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|e| format!("unblock signals: {e}"))
}

fn take_identity(process: &ProcessSpec) -> Result<()> {
    for capability in (0..capabilities::COUNT).filter(|number| process.capabilities & (1 << number) == 0) {
        sys::drop_bounding(capability).map_err(|e| format!("drop capability {capability}: {e}"))?;
    }
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).map_err(|e| format!("setgroups: {e}"))?;
    let gid = Gid::from_raw(process.gid);
    setresgid(gid, gid, gid).map_err(|e| format!("setgid {gid}: {e}"))?;
    prctl::set_keepcaps(true).map_err(|e| format!("keep capabilities: {e}"))?;
    let uid = Uid::from_raw(process.uid);
    setresuid(uid, uid, uid).map_err(|e| format!("setuid {uid}: {e}"))?;
    // The agent may itself lack some capability that a container asks for.
    let held = process.capabilities & own_bounding_set()?;
    sys::capset(held, held, held & process.ambient).map_err(|e| format!("set capabilities: {e}"))?;
    prctl::set_keepcaps(false).map_err(|e| format!("let capabilities go: {e}"))?;
    for capability in (0..capabilities::COUNT).filter(|number| held & process.ambient & (1 << number) != 0) {
        sys::raise_ambient(capability).map_err(|e| format!("raise ambient capability {capability}: {e}"))?;
    }
    Ok(())
}

fn own_bounding_set() -> Result<u64> {
    const PERMITTED: &str = "CapPrm:";
    let status =
        fs::read_to_string("/proc/thread-self/status").map_err(|e| format!("read own capabilities: {e}"))?;
    let set = status.lines().find_map(|line| line.strip_prefix(PERMITTED)).map(str::trim);
    set.and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or_else(|| "read own capabilities".to_owned())
}

/// Looks the program up in the container's `PATH`; the texts are those Kubernetes users know.
fn find_program(process: &ProcessSpec) -> Result<PathBuf> {
    let name = process.args.first().filter(|name| !name.is_empty()).ok_or("no command specified")?;
    if name.contains('/') {
        return match fs::metadata(name) {
            Ok(metadata) if metadata.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                Err(format!("exec: {name:?}: permission denied"))
            }
            Ok(_) => Ok(PathBuf::from(name)),
            Err(e) => Err(format!("exec: {name:?}: stat {name}: {}", describe_io(&e))),
        };
    }
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

/// The environment with what every process may expect: `PATH`, and `HOME` from the container's passwd file.
fn environment(process: &ProcessSpec) -> Result<Vec<CString>> {
    let has = |name: &str| process.env.iter().any(|entry| entry.split('=').next() == Some(name));
    let mut env = process.env.iter().map(|entry| c_string(entry)).collect::<Result<Vec<_>>>()?;
    if !has("PATH") {
        env.push(c_string(&format!("PATH={DEFAULT_PATH}"))?);
    }
    if process.tty && !has("TERM") {
        env.push(c_string("TERM=xterm")?);
    }
    if !has("HOME") {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        env.push(c_string(&format!("HOME={}", home_of(&passwd, process.uid)))?);
    }
    Ok(env)
}

fn home_of(passwd: &str, uid: u32) -> &str {
    let uid = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && fields[2] == uid)
        .map(|fields| fields[5])
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| format!("{text:?} contains a zero byte"))
}

fn describe(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

fn describe_io(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| describe(Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_passwd_or_is_the_root() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\nodd:x:7\n";
        assert_eq!(home_of(passwd, 0), "/root");
        assert_eq!(home_of(passwd, 1000), "/srv/app");
        assert_eq!(home_of(passwd, 7), "/");
        assert_eq!(home_of("", 5), "/");
    }
}
