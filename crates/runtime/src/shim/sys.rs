//! The few Linux calls that neither std nor nix offers, each behind a safe function.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;

/// Each try loses only to a mount or rename within the same microseconds.
const RESOLVE_TRIES_MAX: u32 = 1000;

/// Attributes of a mount, see mount_setattr(2).
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens a path as if `root` were `/`: no link leads outside. The kernel gives up on `..` when anything is mounted or
/// renamed at the same time, on the whole machine, so it is asked again.
pub fn open_in_root(root: &impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..RESOLVE_TRIES_MAX {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            result => return result,
        }
    }
    openat2(root, path, how)
}

/// A detached copy of the mounts at `path`, with those below it when `recursive`.
pub fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    // SAFETY: the path is a valid C string for the length of the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached mount at the place an `O_PATH` descriptor names.
pub fn move_mount(tree: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    // SAFETY: both paths are static C strings, both descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes and, when not 0, the propagation (`MS_PRIVATE`, ..) of a mount.
pub fn mount_setattr(mount: BorrowedFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, propagation, ..MountAttr::default() };
    change_mount(mount, &attr, if recursive { libc::AT_RECURSIVE } else { 0 })
}

/// Shows the files of a detached mount as those of a user namespace's users.
pub fn map_ids(mount: BorrowedFd, user_namespace: BorrowedFd) -> io::Result<()> {
    let userns_fd = u64::try_from(user_namespace.as_raw_fd()).map_err(io::Error::other)?;
    change_mount(mount, &MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() }, 0)
}

fn change_mount(mount: BorrowedFd, attr: &MountAttr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: `attr` lives through the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Replaces this thread's effective, permitted and inheritable capabilities.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let word = |shift: u32| CapabilityData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: version 3 reads one header and two data words, which is what we pass.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Takes a capability out of the bounding set. `Ok(false)`: the kernel does not know it.
pub fn drop_bounding(capability: u32) -> io::Result<bool> {
    // SAFETY: plain integers.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) }.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Adds a capability to the ambient set.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    // SAFETY: plain integers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability as libc::c_ulong, 0, 0) }.into())
        .map(drop)
}

/// Installs a BPF program as this thread's system call filter, without forcing `no_new_privs` on.
pub fn set_seccomp_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program outlives the call; `seccompiler::sock_filter` is the kernel's layout.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Marks every descriptor above stderr to be closed by `execve`.
pub fn close_descriptors_on_exec() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: plain integers; nothing is closed yet.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Makes a terminal this process's controlling terminal.
pub fn set_controlling_terminal(terminal: &impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; the argument is an integer.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Sets a terminal's size.
pub fn set_window_size(terminal: &impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` lives through the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())
        .map(drop)
}

/// Joins several namespaces of another process at once.
pub fn join_namespaces(process: BorrowedFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is an open pidfd.
    check(unsafe { libc::setns(process.as_raw_fd(), flags) }.into()).map(drop)
}

/// A descriptor for a process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is filled in and lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Waits until one of the descriptors has an event; an interrupted wait returns with none.
pub fn poll(entries: &mut [libc::pollfd]) -> io::Result<()> {
    // SAFETY: pointer and length are those of the slice.
    match check(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) }.into()) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            entries.iter_mut().for_each(|entry| entry.revents = 0);
            Ok(())
        }
        result => result.map(drop),
    }
}

/// Makes reads and writes of this descriptor return instead of wait.
pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; the arguments are integers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into())? as libc::c_int;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK).into()).map(drop)
    }
}

/// Lets go of this program's code pages; those that are needed again come back from the page cache. The kernel maps far
/// more of a large program than it runs, and the shim waits most of the time.
pub fn release_code_pages() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions) = (fields.next().unwrap_or_default(), fields.next());
        if permissions != Some("r-xp") || fields.nth(3).map(Path::new) != Some(&program) {
            continue;
        }
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((start, end)) = range.split_once('-').and_then(|(a, b)| Some((address(a)?, address(b)?)))
        else {
            continue;
        };
        // SAFETY: the range is a mapping of the program's file that cannot be written to, so nothing is lost: its
        // pages are read again when they are next executed.
        check(unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) }.into())?;
    }
    Ok(())
}
