//! A pod's own user namespace, in which root is nobody in particular on the node (`hostUsers: false`).
//!
//! A helper process makes it and, as its root, the namespaces that shall belong to it. The shim must stay the node's
//! root: it writes the id maps, joins what its containers inherit from it, and keeps a descriptor of the user namespace
//! for those that it starts.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid};

use super::spec::UserNamespace;

type Result<T> = std::result::Result<T, String>;

/// What either side sends when it has done its part; anything else is the reason why the helper has not.
const DONE: u8 = 6;
/// Longest reason read from the helper.
const REASON_BYTES_MAX: u64 = 4 << 10;

/// A user namespace and the ids that it has on the node.
pub struct Users {
    namespace: OwnedFd,
    ids: UserNamespace,
}

impl Users {
    /// Makes a user namespace and further ones in it, of which this process joins the latter. `set_up` runs in all of
    /// them as the namespace's root.
    pub fn make(ids: UserNamespace, flags: CloneFlags, set_up: impl FnOnce() -> Result<()>) -> Result<Users> {
        let (mut ours, mut theirs) = UnixStream::pair().map_err(|e| format!("make socket: {e}"))?;
        // SAFETY: this process has one thread.
        let helper = match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
            ForkResult::Child => {
                drop(ours);
                let told = match help(&mut theirs, flags, set_up) {
                    Ok(()) => wait_for_end(&mut theirs),
                    Err(reason) => theirs.write_all(reason.as_bytes()),
                };
                // SAFETY: ends this process without running the parent's exit handlers.
                unsafe { libc::_exit(i32::from(told.is_err())) }
            }
            ForkResult::Parent { child } => child,
        };
        drop(theirs);
        let namespace = adopt(&mut ours, helper, ids, flags);
        drop(ours);
        while waitpid(helper, None) == Err(Errno::EINTR) {}
        Ok(Users { namespace: namespace?, ids })
    }

    pub fn namespace(&self) -> impl AsFd + '_ {
        self.namespace.as_fd()
    }

    /// Who the namespace's root is on the node, as user and as group.
    pub fn root(&self) -> u32 {
        self.ids.first_id
    }

    /// Makes this process the namespace's root.
    pub fn enter(&self) -> Result<()> {
        setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWUSER)
            .map_err(|e| format!("join user namespace: {e}"))?;
        become_root()
    }
}

fn help(shim: &mut UnixStream, flags: CloneFlags, set_up: impl FnOnce() -> Result<()>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| format!("unshare user namespace: {e}"))?;
    shim.write_all(&[DONE]).map_err(|e| format!("tell shim: {e}"))?;
    shim.read_exact(&mut [0]).map_err(|e| format!("wait for id maps: {e}"))?;
    become_root()?;
    unshare(flags).map_err(|e| format!("unshare namespaces: {e}"))?;
    set_up()?;
    shim.write_all(&[DONE]).map_err(|e| format!("tell shim: {e}"))
}

/// The namespaces can be reached as long as the helper lives.
fn wait_for_end(shim: &mut UnixStream) -> std::io::Result<()> {
    shim.read(&mut [0]).map(drop)
}

fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).map_err(|e| format!("leave groups: {e}"))?;
    setresgid(gid, gid, gid).map_err(|e| format!("become the group root: {e}"))?;
    setresuid(uid, uid, uid).map_err(|e| format!("become root: {e}"))
}

fn adopt(socket: &mut UnixStream, helper: Pid, ids: UserNamespace, flags: CloneFlags) -> Result<OwnedFd> {
    expect_done(socket)?;
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{helper}/{file}"), format!("0 {} {}\n", ids.first_id, ids.length))
            .map_err(|e| format!("write {file}: {e}"))?;
    }
    socket.write_all(&[DONE]).map_err(|e| format!("tell helper: {e}"))?;
    expect_done(socket)?;
    let open = |name: &str| {
        File::open(format!("/proc/{helper}/ns/{name}")).map_err(|e| format!("open {name} namespace: {e}"))
    };
    for (flag, name) in [
        (CloneFlags::CLONE_NEWNET, "net"),
        (CloneFlags::CLONE_NEWUTS, "uts"),
        (CloneFlags::CLONE_NEWIPC, "ipc"),
    ] {
        if flags.contains(flag) {
            setns(open(name)?, flag).map_err(|e| format!("join {name} namespace: {e}"))?;
        }
    }
    open("user").map(OwnedFd::from)
}

fn expect_done(socket: &mut UnixStream) -> Result<()> {
    let mut first = [0];
    socket.read_exact(&mut first).map_err(|e| format!("helper of the user namespace: {e}"))?;
    if first == [DONE] {
        return Ok(());
    }
    let mut reason = first.to_vec();
    socket.take(REASON_BYTES_MAX).read_to_end(&mut reason).map_err(|e| format!("read reason: {e}"))?;
    Err(String::from_utf8_lossy(&reason).into_owned())
}
