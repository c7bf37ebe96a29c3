//! Writes a set of files so that readers see all of the old or all of the new (follows upstream's `AtomicWriter`):
//! the files live in a timestamped directory, `..data` links to it, and is swapped by rename.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// The user to whom it belongs, if not to root.
    pub owner: Option<u32>,
}

/// Relative paths to what they hold.
pub type Payload = BTreeMap<PathBuf, File>;

/// Of a volume, within which pods' users may do what the mount lets them (as upstream's emptyDir, of which it is made).
const VOLUME_MODE: u32 = 0o777;
const DIRECTORY_MODE: u32 = 0o755;
/// What a group that a volume is given to has of its directories and files (upstream: `roMask`, `execMask`).
const GROUP_OF_DIRECTORY: u32 = 0o2550;
const GROUP_OF_FILE: u32 = 0o440;

/// Makes `dir` show exactly `payload`; nothing is touched when it does already. `group` owns all of it, if given.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> io::Result<()> {
    if let Some(bad) = payload.keys().find(|path| !is_plain(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {bad:?} leaves the volume")));
    }
    fs::create_dir_all(dir)?;
    if shows(dir, payload) {
        // The names are made after the data is swapped, and we may have died in between.
        return link_names(dir, payload);
    }
    // A file system in memory has this bit from the kernel.
    let sticky = fs::metadata(dir)?.permissions().mode() & 0o1000;
    own_directory(dir, VOLUME_MODE | sticky, group)?;
    let stamped = unused_name(dir, now);
    make_directory(&dir.join(&stamped), group)?;
    for (path, file) in payload {
        let below = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        for above in below.collect::<Vec<_>>().into_iter().rev() {
            make_directory(&dir.join(&stamped).join(above), group)?;
        }
        write_file(&dir.join(&stamped).join(path), file, group)?;
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    remove_if_there(&dir.join(DATA_NEW))?;
    symlink(&stamped, dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), dir.join(DATA))?;
    link_names(dir, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn is_plain(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|c| matches!(c, Component::Normal(_)))
}

fn shows(dir: &Path, payload: &Payload) -> bool {
    let data = dir.join(DATA);
    payload.iter().all(|(path, file)| fs::read(data.join(path)).is_ok_and(|bytes| bytes == file.bytes))
        && count_files(&data).is_ok_and(|count| count == payload.len())
}

fn count_files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// The time, to the second as upstream writes it, and digits that no directory has yet.
fn unused_name(dir: &Path, now: Timestamp) -> String {
    let second = now.strftime("%Y_%m_%d_%H_%M_%S");
    let digits = u64::try_from(now.subsec_nanosecond()).unwrap_or(0)..;
    let names = digits.map(|digits| format!("..{second}.{digits}"));
    names.into_iter().find(|name| !dir.join(name).exists()).expect("there are fewer directories than numbers")
}

fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    own_directory(path, DIRECTORY_MODE, group)
}

fn own_directory(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    let mode = if group.is_some() { mode | GROUP_OF_DIRECTORY } else { mode };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    fs::write(path, &file.bytes)?;
    let mode = if group.is_some() { file.mode | GROUP_OF_FILE } else { file.mode };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if group.is_some() || file.owner.is_some() {
        chown(path, file.owner, group)?;
    }
    Ok(())
}

/// The visible names: links through `..data`, so that one rename changes them all.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: std::collections::BTreeSet<&Path> = payload
        .keys()
        .filter_map(|path| path.components().next())
        .map(|c| Path::new(c.as_os_str()))
        .collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::read_link(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        // Others may have put something here, such as the folder of a `subPath` that is no key.
        let is_ours = fs::read_link(dir.join(&name)).is_ok_and(|target| target.starts_with(DATA));
        if is_ours && !wanted.contains(name.as_path()) {
            remove_if_there(&dir.join(name))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 5);

    #[test]
    fn a_group_owns_all_of_a_volume_and_what_is_made_there_later() {
        const GROUP: u32 = 4321;
        let dir = tempfile::tempdir().expect("a directory");
        let secret = File { bytes: b"1".to_vec(), mode: 0o600, owner: None };
        let payload = Payload::from([(PathBuf::from("d/a"), secret)]);
        write(dir.path(), &payload, Some(GROUP), NOW).expect("writes");
        let stamped = "..2023_11_14_22_13_20.5";
        assert_eq!(fs::read_link(dir.path().join(DATA)).expect("a link"), Path::new(stamped));
        let of = |path: &str| fs::metadata(dir.path().join(stamped).join(path)).expect("there");
        let volume = fs::metadata(dir.path()).expect("there");
        for (found, mode) in [(volume, 0o2777), (of(""), 0o2755), (of("d"), 0o2755), (of("d/a"), 0o640)] {
            assert_eq!((found.gid(), found.mode() & 0o7777), (GROUP, mode));
        }
    }

    #[test]
    fn what_others_put_there_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &payload(&[("a", "1"), ("b", "1")]), None, NOW).expect("writes");
        fs::create_dir_all(dir.path().join("no/key")).expect("a folder");
        write(dir.path(), &payload(&[("a", "2")]), None, NOW).expect("writes beside it");
        assert!(dir.path().join("no/key").is_dir());
        assert!(!dir.path().join("b").exists());
    }

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| {
                (PathBuf::from(path), File { bytes: text.as_bytes().to_vec(), mode: 0o644, owner: None })
            })
            .collect()
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("atomic-writer-{}-{name}", std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("removable");
        }
        dir
    }

    #[test]
    fn files_appear_change_and_go_together() {
        let dir = scratch("swap");
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None, NOW).expect("writes");
        assert_eq!(fs::read_to_string(dir.join("d/b")).expect("there"), "2");
        let before = fs::read_link(dir.join(DATA)).expect("a link");
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None, NOW).expect("writes nothing");
        assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), before);
        write(&dir, &payload(&[("a", "3")]), None, NOW).expect("writes");
        assert_eq!(fs::read_to_string(dir.join("a")).expect("there"), "3");
        assert!(!dir.join("d").exists() && !dir.join(before).exists());
        fs::remove_dir_all(dir).expect("removable");
    }

    #[test]
    fn names_that_an_interrupted_write_left_out_are_made_up_for() {
        let dir = scratch("interrupted");
        write(&dir, &payload(&[("a", "1"), ("b", "2")]), None, NOW).expect("writes");
        fs::remove_file(dir.join("b")).expect("removable");
        write(&dir, &payload(&[("a", "1"), ("b", "2")]), None, NOW).expect("links");
        assert_eq!(fs::read_to_string(dir.join("b")).expect("there"), "2");
        fs::remove_dir_all(dir).expect("removable");
    }

    #[test]
    fn a_path_cannot_leave_the_volume() {
        let dir = scratch("escape");
        for bad in ["../a", "/a", "a/../../b", ""] {
            assert!(write(&dir, &payload(&[(bad, "x")]), None, NOW).is_err(), "{bad}");
        }
        assert!(!dir.exists());
    }
}
