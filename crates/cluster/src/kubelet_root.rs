//! The folder of the kubelet: its pods, and the sockets of plugins. The manifests of CSI drivers and device plugins name
//! upstream's, so the machine's default cluster takes that one where it is free; any other keeps its own with its data.
//!
//! Where it lies elsewhere, a link among the data leads there, by which whoever comes later finds it.

use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::layout::{Layout, Roots};

/// Upstream's `--root-dir`.
const UPSTREAM: &str = "/var/lib/kubelet";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is not empty; another kubelet may be using it: give another --root-dir, or empty it", .0.display())]
    Taken(PathBuf),
    #[error(
        "this node's pods are in {}, which --root-dir cannot change; run `cox down --purge` first", .0.display()
    )]
    Settled(PathBuf),
    #[error("cannot use {} as the kubelet's folder", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Makes the folder, the one that is wanted if any is, and returns its real path.
pub fn settle(layout: &Layout, wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let by_default = layout.is_default() && layout.roots().data == Roots::default().data;
    settle_or(layout, wanted, Some(Path::new(UPSTREAM)).filter(|_| by_default))
}

/// `hoped` is taken only where it is free.
fn settle_or(layout: &Layout, wanted: Option<&Path>, hoped: Option<&Path>) -> Result<PathBuf, Error> {
    let link = layout.kubelet();
    if link.symlink_metadata().is_ok() {
        let settled = real(&link)?;
        return match wanted.map(real).transpose()? {
            Some(wanted) if wanted != settled => Err(Error::Settled(settled)),
            _ => Ok(settled),
        };
    }
    let root = match (wanted, hoped) {
        (Some(wanted), _) => real(wanted)?,
        (None, Some(hoped)) if !hoped.exists() || is_free(hoped)? => real(hoped)?,
        _ => return real(&link),
    };
    if link.exists() {
        return Ok(root);
    }
    if !is_free(&root)? {
        return Err(Error::Taken(root));
    }
    let made = std::fs::create_dir_all(layout.data()).and_then(|()| std::os::unix::fs::symlink(&root, &link));
    made.map_err(|error| Error::Io(link, error))?;
    Ok(root)
}

/// Removes the folder with everything in it, wherever it lies.
pub fn remove(layout: &Layout) -> io::Result<()> {
    let Ok(root) = std::fs::canonicalize(layout.kubelet()) else { return Ok(()) };
    for entry in std::fs::read_dir(&root)? {
        files::remove(&entry?.path())?;
    }
    files::remove_if_empty(&root)?;
    files::remove(&layout.kubelet())
}

/// The path without links of a folder, which is made.
fn real(path: &Path) -> Result<PathBuf, Error> {
    // A link to what is not there any more is followed too.
    let target = std::fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let made = std::fs::create_dir_all(target).and_then(|()| std::fs::canonicalize(path));
    made.map_err(|error| Error::Io(path.to_owned(), error))
}

fn is_free(folder: &Path) -> Result<bool, Error> {
    let mut entries = std::fs::read_dir(folder).map_err(|error| Error::Io(folder.to_owned(), error))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layout below a folder of its own, and that folder.
    fn layout(test: &str) -> (Layout, PathBuf) {
        let root = std::env::temp_dir().join(format!("kubelet-root-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a folder");
        let root = std::fs::canonicalize(root).expect("a folder");
        let at = |name: &str| root.join(name);
        let roots = Roots { data: at("data"), config: at("config"), run: at("run") };
        (Layout::new("c", roots).expect("a layout"), root)
    }

    #[test]
    fn a_node_keeps_the_folder_that_it_began_with() {
        let (layout, root) = layout("keeps");
        let wanted = root.join("kubelet");
        assert_eq!(settle_or(&layout, Some(&wanted), None).expect("settles"), wanted);
        std::fs::write(layout.kubelet().join("pod"), "").expect("writes");
        assert!(wanted.join("pod").exists());
        assert_eq!(settle_or(&layout, None, None).expect("is settled"), wanted);
        assert_eq!(settle_or(&layout, Some(&wanted), None).expect("is settled"), wanted);
        let other = settle_or(&layout, Some(&root.join("other")), None);
        assert!(matches!(other, Err(Error::Settled(at)) if at == wanted));
        remove(&layout).expect("removes");
        assert!(!wanted.exists() && layout.kubelet().symlink_metadata().is_err());
        std::fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn the_folder_among_the_data_may_be_named_too() {
        let (layout, root) = layout("named");
        assert_eq!(settle_or(&layout, Some(&layout.kubelet()), None).expect("settles"), layout.kubelet());
        std::fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn the_folder_of_another_kubelet_is_left_alone() {
        let (layout, root) = layout("taken");
        let taken = root.join("kubelet");
        std::fs::create_dir_all(taken.join("pods")).expect("makes");
        assert!(matches!(settle_or(&layout, Some(&taken), None), Err(Error::Taken(at)) if at == taken));
        assert_eq!(settle_or(&layout, None, Some(&taken)).expect("takes its own"), layout.kubelet());
        remove(&layout).expect("removes");
        assert!(taken.join("pods").exists() && !layout.kubelet().exists());
        std::fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn a_folder_that_was_emptied_is_made_again() {
        let (layout, root) = layout("again");
        let wanted = root.join("kubelet");
        settle_or(&layout, None, Some(&wanted)).expect("settles");
        std::fs::remove_dir_all(&wanted).expect("removes");
        assert_eq!(settle_or(&layout, None, None).expect("settles again"), wanted);
        std::fs::remove_dir_all(root).expect("removes");
    }
}
