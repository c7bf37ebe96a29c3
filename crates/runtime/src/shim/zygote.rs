//! The process that shims are forked from.
//!
//! A large program pays for its relocations with private pages in every process that is started from it. Shims forked
//! from one process share those pages; a shim then costs little more than its own stack and heap. The zygote is started
//! as `cox runtime-shim zygote`, takes requests on its standard input (a socket) and ends when the agent does. Shims
//! outlive it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork};

use super::complain;
use super::protocol::{receive_with_descriptors, send_with_descriptors};
use super::sys;

/// The argument that asks for a zygote instead of a shim.
pub const ARGUMENT: &str = "zygote";

/// A request is the sandbox folder's path, in one packet.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// Asks a zygote for a shim; `output` becomes its standard output, where it tells that it is ready, `log` its error
/// stream.
pub fn request(zygote: &OwnedFd, sandbox_dir: &Path, output: &OwnedFd, log: &OwnedFd) -> io::Result<()> {
    let path = sandbox_dir.as_os_str().as_bytes();
    send_with_descriptors(zygote.as_raw_fd(), path, &[output.as_raw_fd(), log.as_raw_fd()]).map(drop)
}

/// Serves requests until the agent is gone.
pub fn run() -> ExitCode {
    match serve() {
        Ok(Some(sandbox_dir)) => super::run_shim(&sandbox_dir),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("zygote ends: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns the sandbox folder in a forked shim, nothing in the zygote itself once it is to end.
fn serve() -> io::Result<Option<PathBuf>> {
    prctl::set_name(c"cox-zygote")?;
    // The kernel reaps shims that end: the agent hears of it through their sockets.
    set_child_signal(SigHandler::SigIgn)?;
    sys::release_code_pages()?;
    let stdin = io::stdin();
    loop {
        let mut path = vec![0; PATH_BYTES_MAX];
        let (length, descriptors) = receive_with_descriptors(stdin.as_fd().as_raw_fd(), &mut path)?;
        if length == 0 {
            return Ok(None);
        }
        path.truncate(length);
        let Ok([output, log]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request carries two descriptors"));
        };
        // SAFETY: this process has one thread.
        if let ForkResult::Child = unsafe { fork() }? {
            set_child_signal(SigHandler::SigDfl)?;
            dup2_stdout(&output)?;
            dup2_stderr(&log)?;
            // Lets go of the agent's socket.
            dup2_stdin(std::fs::File::open("/dev/null")?)?;
            return Ok(Some(PathBuf::from(OsString::from_vec(path))));
        }
    }
}

fn set_child_signal(handler: SigHandler) -> io::Result<()> {
    // SAFETY: neither disposition runs code of ours.
    unsafe { signal(Signal::SIGCHLD, handler) }?;
    Ok(())
}
