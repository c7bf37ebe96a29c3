//! What volumes mount in the node's own namespace: memory for secrets, and the places that containers see by `subPath`.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Sees that `dir` is memory; one that holds files on disk already stays as it is, for containers may look at it.
pub fn memory(dir: &Path, options: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if is_mount_point(dir)? || fs::read_dir(dir)?.next().is_some() {
        return Ok(());
    }
    Ok(mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options)?)
}

/// Sees that the files of `dir` are of huge pages of this size.
pub fn huge_pages(dir: &Path, page_bytes: i64) -> io::Result<()> {
    let size = format!("pagesize={page_bytes}");
    Ok(mount(Some("nodev"), dir, Some("hugetlbfs"), MsFlags::empty(), Some(size.as_str()))?)
}

/// Whether another file system begins here.
pub fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

/// Whether something is mounted at this very place, though it may be of the same file system as what is around it.
pub fn is_mounted(place: &Path) -> bool {
    let Ok(place) = fs::canonicalize(place) else { return false };
    // A table that cannot be read says nothing: then nothing may be taken for gone.
    fs::read("/proc/self/mountinfo").map_or(true, |table| mount_points(&table).contains(&place))
}

/// Detaches everything that is mounted at or below `root`, the innermost first.
pub fn detach_below(root: &Path) -> io::Result<()> {
    // The kernel's table knows no links.
    let root = match fs::canonicalize(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let table = fs::read("/proc/self/mountinfo")?;
    let mut points = mount_points(&table);
    points.retain(|point| point.starts_with(&root));
    for point in points.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// The fifth field of each line of a mountinfo table, which stands in the order of mounting.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"1 0 0:1 / /a\\040b rw - tmpfs tmpfs rw\n2 1 0:2 / /c rw shared:1 - x y z\n";
        assert_eq!(mount_points(table), [Path::new("/a b"), Path::new("/c")]);
        assert_eq!(unescape(b"x\\"), Path::new("x\\"));
    }

    #[test]
    fn memory_is_mounted_once_and_goes_with_its_folder() {
        let root = std::env::temp_dir().join(format!("volume-memory-{}", std::process::id()));
        let dir = root.join("a");
        for _ in 0..2 {
            memory(&dir, Some("size=65536")).expect("mounts");
        }
        assert!(is_mount_point(&dir).expect("there"));
        detach_below(&root).expect("detaches");
        assert!(!is_mount_point(&dir).expect("there"));
        fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn a_folder_bound_within_its_file_system_counts_as_mounted() {
        let root = std::env::temp_dir().join(format!("volume-bound-{}", std::process::id()));
        let (from, to) = (root.join("from"), root.join("to"));
        for dir in [&from, &to] {
            fs::create_dir_all(dir).expect("makes");
        }
        let none: Option<&str> = None;
        mount(Some(&from), &to, none, MsFlags::MS_BIND, none).expect("binds");
        assert!(is_mounted(&to) && !is_mounted(&from) && !is_mounted(&root.join("absent")));
        detach_below(&root).expect("detaches");
        fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn files_on_disk_are_not_hidden_by_memory() {
        let dir = std::env::temp_dir().join(format!("volume-on-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("makes");
        fs::write(dir.join("a"), "1").expect("writes");
        memory(&dir, None).expect("leaves it");
        assert!(dir.join("a").exists());
        fs::remove_dir_all(dir).expect("removes");
    }
}
