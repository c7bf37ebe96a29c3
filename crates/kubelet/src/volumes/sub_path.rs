//! `subPath`: a place below a volume that a container sees alone. A container may change its volume while the next one
//! starts, so the kernel resolves each step beneath the volume, and what it found is mounted where no container can
//! reach (follows upstream's `subpath.Interface`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fchmod, mkdirat};

/// Each try loses only to a mount or rename within the same microseconds.
const RESOLVE_TRIES_MAX: u32 = 1000;

/// Shows the place `sub_path` of `volume`, made if it is missing, at `at`.
pub fn mount_at(volume: &Path, sub_path: &str, at: &Path) -> Result<PathBuf, String> {
    let said = |what: &dyn std::fmt::Display| {
        format!("failed to prepare subPath for volumeMount: subPath {sub_path:?}: {what}")
    };
    let plain =
        Path::new(sub_path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(said(&"must be a relative path without '..'"));
    }
    let place = open_or_make(volume, Path::new(sub_path)).map_err(|errno| match errno {
        Errno::EXDEV => said(&"leads out of its volume"),
        other => said(&other.desc()),
    })?;
    bind(&place, at).map_err(|e| said(&e))?;
    Ok(at.to_owned())
}

/// What is made may be used by whom the volume may be used by (upstream: `SafeMakeDir`).
fn open_or_make(volume: &Path, sub_path: &Path) -> nix::Result<OwnedFd> {
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let mode = fs::metadata(volume).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?.mode();
    let mut walked = PathBuf::from(".");
    let mut place = beneath(&root, &walked)?;
    for component in sub_path.components() {
        walked.push(component);
        place = match beneath(&root, &walked) {
            Err(Errno::ENOENT) => {
                match mkdirat(&place, component.as_os_str(), Mode::from_bits_truncate(0o750)) {
                    // Another container made it meanwhile, or it is a link to nothing.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let made = readable(beneath(&root, &walked)?)?;
                fchmod(&made, Mode::from_bits_truncate(mode & 0o7777))?;
                made
            }
            found => found?,
        };
    }
    Ok(place)
}

/// The same place, opened so that its mode can be changed.
fn readable(place: OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&descriptor(&place), flags, Mode::empty())
}

fn beneath(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..RESOLVE_TRIES_MAX {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            result => return result,
        }
    }
    openat2(root, path, how)
}

fn descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A container that starts again may find another place under the same name: what was shown before goes.
fn bind(place: &OwnedFd, at: &Path) -> io::Result<()> {
    match umount2(at, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let source = descriptor(place);
    let is_dir = fs::metadata(&source)?.is_dir();
    match fs::symlink_metadata(at) {
        Ok(before) if before.is_dir() && !is_dir => fs::remove_dir(at)?,
        Ok(before) if !before.is_dir() && is_dir => fs::remove_file(at)?,
        _ => {}
    }
    if is_dir {
        fs::create_dir_all(at)?;
    } else {
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(at)?;
    }
    let none: Option<&str> = None;
    Ok(mount(Some(&source), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A volume, a place outside of it, and where things are shown; gone with their mounts at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("sub-path-{name}-{}", std::process::id()));
            for dir in ["volume", "outside"] {
                fs::create_dir_all(root.join(dir)).expect("makes");
            }
            Scratch(root)
        }

        fn show(&self, sub_path: &str) -> Result<PathBuf, String> {
            mount_at(&self.0.join("volume"), sub_path, &self.0.join("shown"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            super::super::mounts::detach_below(&self.0).expect("detaches");
            fs::remove_dir_all(&self.0).expect("removes");
        }
    }

    #[test]
    fn a_place_is_made_shown_and_may_be_used_as_the_volume_may() {
        let scratch = Scratch::new("made");
        let volume = scratch.0.join("volume");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).expect("opens");
        let shown = scratch.show("a/b").expect("made");
        fs::write(shown.join("x"), "1").expect("writes");
        assert_eq!(fs::read_to_string(volume.join("a/b/x")).expect("the same place"), "1");
        for dir in ["a", "a/b"] {
            assert_eq!(fs::metadata(volume.join(dir)).expect("there").mode() & 0o7777, 0o2777);
        }
    }

    #[test]
    fn a_file_and_then_a_folder_may_be_shown_at_the_same_place() {
        let scratch = Scratch::new("again");
        fs::write(scratch.0.join("volume/file"), "1").expect("writes");
        assert_eq!(fs::read_to_string(scratch.show("file").expect("shown")).expect("a file"), "1");
        let folder = scratch.show("folder").expect("shown");
        assert!(folder.is_dir());
        assert_eq!(fs::read_to_string(scratch.show("file").expect("shown")).expect("a file"), "1");
    }

    #[test]
    fn no_link_leads_out_and_nothing_is_made_outside() {
        let scratch = Scratch::new("out");
        let (volume, outside) = (scratch.0.join("volume"), scratch.0.join("outside"));
        symlink(&outside, volume.join("out")).expect("links");
        symlink("../outside", volume.join("relative")).expect("links");
        symlink(outside.join("new"), volume.join("dangling")).expect("links");
        for bad in ["../x", "/etc", "out", "out/new", "relative/new", "dangling", "dangling/x", "a/../../x"] {
            assert!(scratch.show(bad).is_err(), "{bad}");
        }
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 0);
    }

    #[test]
    fn links_within_the_volume_are_followed() {
        let scratch = Scratch::new("within");
        fs::create_dir(scratch.0.join("volume/real")).expect("makes");
        fs::write(scratch.0.join("volume/real/x"), "1").expect("writes");
        symlink("real", scratch.0.join("volume/link")).expect("links");
        assert_eq!(fs::read_to_string(scratch.show("link/x").expect("shown")).expect("a file"), "1");
    }
}
