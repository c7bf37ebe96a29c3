//! Mounts of volumes where the kubelet wants them.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NONE: Option<&str> = None;

/// Shows `from`, a folder or a device, at `to`; once, however often it is asked for.
pub fn bind(from: &Path, to: &Path, is_read_only: bool) -> io::Result<()> {
    if is_mounted(to)? {
        return Ok(());
    }
    if fs::metadata(from)?.is_dir() {
        fs::create_dir_all(to)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(to)?;
    }
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)?;
    if is_read_only {
        mount(NONE, to, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)?;
    }
    Ok(())
}

/// Takes away what is shown at `place`, and the place.
pub fn unbind(place: &Path) -> io::Result<()> {
    match umount2(place, MntFlags::empty()) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let removed = match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => fs::remove_dir(place),
        Ok(_) => fs::remove_file(place),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The kernel's table has a line for each mount, with the place in its fifth field.
fn is_mounted(place: &Path) -> io::Result<bool> {
    let Ok(place) = fs::canonicalize(place) else { return Ok(false) };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == place)))
}
