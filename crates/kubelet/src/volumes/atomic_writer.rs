//! Writes a set of files so that readers see all of the old or all of the new (follows upstream's `AtomicWriter`):
//! the files live in a timestamped directory, `..data` links to it, and is swapped by rename.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

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

/// Makes `dir` show exactly `payload`; nothing is touched when it does already. `group` owns the files, if given.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    if let Some(bad) = payload.keys().find(|path| !is_plain(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {bad:?} leaves the volume")));
    }
    fs::create_dir_all(dir)?;
    if shows(dir, payload) {
        // The names are made after the data is swapped, and we may have died in between.
        return link_names(dir, payload);
    }
    let stamped = unused_name(dir)?;
    fs::create_dir(dir.join(&stamped))?;
    fs::set_permissions(dir.join(&stamped), fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
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

fn unused_name(dir: &Path) -> io::Result<String> {
    (0u32..)
        .map(|n| format!("..{n:06}"))
        .find(|name| !dir.join(name).exists())
        .ok_or_else(|| io::Error::other("every directory name is taken"))
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.bytes)?;
    // A group that must read gets to read (upstream: files of a volume with fsGroup are group-readable).
    let mode = if group.is_some() { file.mode | (file.mode & 0o400) >> 3 } else { file.mode };
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
    use super::*;

    #[test]
    fn what_others_put_there_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &payload(&[("a", "1"), ("b", "1")]), None).expect("writes");
        fs::create_dir_all(dir.path().join("no/key")).expect("a folder");
        write(dir.path(), &payload(&[("a", "2")]), None).expect("writes beside it");
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
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None).expect("writes");
        assert_eq!(fs::read_to_string(dir.join("d/b")).expect("there"), "2");
        let before = fs::read_link(dir.join(DATA)).expect("a link");
        write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None).expect("writes nothing");
        assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), before);
        write(&dir, &payload(&[("a", "3")]), None).expect("writes");
        assert_eq!(fs::read_to_string(dir.join("a")).expect("there"), "3");
        assert!(!dir.join("d").exists() && !dir.join(before).exists());
        fs::remove_dir_all(dir).expect("removable");
    }

    #[test]
    fn names_that_an_interrupted_write_left_out_are_made_up_for() {
        let dir = scratch("interrupted");
        write(&dir, &payload(&[("a", "1"), ("b", "2")]), None).expect("writes");
        fs::remove_file(dir.join("b")).expect("removable");
        write(&dir, &payload(&[("a", "1"), ("b", "2")]), None).expect("links");
        assert_eq!(fs::read_to_string(dir.join("b")).expect("there"), "2");
        fs::remove_dir_all(dir).expect("removable");
    }

    #[test]
    fn a_path_cannot_leave_the_volume() {
        let dir = scratch("escape");
        for bad in ["../a", "/a", "a/../../b", ""] {
            assert!(write(&dir, &payload(&[(bad, "x")]), None).is_err(), "{bad}");
        }
        assert!(!dir.exists());
    }
}
