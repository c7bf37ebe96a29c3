//! Loop devices: block devices whose content is a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const SET_FD: libc::c_ulong = 0x4C00;
const CLR_FD: libc::c_ulong = 0x4C01;
const SET_CAPACITY: libc::c_ulong = 0x4C07;
const CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// Somebody else may take the device that was free a moment ago.
const ATTACH_TRIES_MAX: u32 = 16;

/// The device of this file, made if there is none.
pub fn attach(file: &Path) -> io::Result<PathBuf> {
    if let Some(device) = of(file)? {
        return Ok(device);
    }
    let backing = OpenOptions::new().read(true).write(true).open(file)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTACH_TRIES_MAX {
        let number = ioctl(&control, CTL_GET_FREE, 0)?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        let opened = OpenOptions::new().read(true).write(true).open(&device)?;
        match ioctl(&opened, SET_FD, backing.as_raw_fd()) {
            Ok(_) => return Ok(device),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "no loop device stays free"))
}

/// Takes the file's device away, if it has one.
pub fn detach(file: &Path) -> io::Result<()> {
    match of(file)? {
        Some(device) => ioctl(&File::open(device)?, CLR_FD, 0).map(drop),
        None => Ok(()),
    }
}

/// Has the file's device see that the file grew.
pub fn refresh_size(file: &Path) -> io::Result<()> {
    match of(file)? {
        Some(device) => ioctl(&File::open(device)?, SET_CAPACITY, 0).map(drop),
        None => Ok(()),
    }
}

/// The kernel tells the file of each device.
pub fn of(file: &Path) -> io::Result<Option<PathBuf>> {
    let file = fs::canonicalize(file)?;
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        if Path::new(backing.trim_end_matches('\n')) == file {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and none of the requests reads or writes memory.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
