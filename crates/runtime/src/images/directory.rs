//! A folder of archives: images that a node has without any registry. Those that have changed are imported, the
//! others are known by size and time of change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, ImageRef, Result, Store, import};
use crate::files::write_atomically;

/// What an archive's name ends with.
const EXTENSIONS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
/// Beside the store's own folders.
const LEDGER: &str = "imported.json";

/// An archive as it was when it was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// Ids of its images.
    images: Vec<String>,
}

type Ledger = BTreeMap<PathBuf, Known>;

/// What became of an archive that had changed.
pub struct Imported {
    pub archive: PathBuf,
    pub result: Result<Vec<ImageRef>>,
}

/// Imports every archive of the folder that is new, has changed, or whose images are gone from the store. The images
/// are pinned: nothing would bring them back.
pub fn import_changed(store: &Store, dir: &Path) -> Result<Vec<Imported>> {
    let path = store.dir().join(LEDGER);
    let before = read_ledger(&path)?;
    let (mut ledger, mut found) = (Ledger::new(), Vec::new());
    for (archive, mut state) in archives(dir)? {
        if let Some(known) = before.get(&archive).filter(|known| known.is_unchanged(&state, store)) {
            ledger.insert(archive, known.clone());
            continue;
        }
        let result = import_pinned(store, &archive);
        if let Ok(images) = &result {
            state.images = images.iter().map(|image| image.id.clone()).collect();
            ledger.insert(archive.clone(), state);
        }
        found.push(Imported { archive, result });
    }
    if ledger != before {
        let bytes =
            serde_json::to_vec(&ledger).map_err(|e| Error::malformed("list of imported archives", e))?;
        write_atomically(&path, &bytes).map_err(Error::io("write", &path))?;
    }
    Ok(found)
}

impl Known {
    fn is_unchanged(&self, now: &Known, store: &Store) -> bool {
        (self.size, self.modified) == (now.size, now.modified)
            && self.images.iter().all(|id| store.get(id).is_some())
    }
}

/// The archives of a folder, in the order of their names, with no images yet.
fn archives(dir: &Path) -> Result<Vec<(PathBuf, Known)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !EXTENSIONS.iter().any(|extension| name.ends_with(extension)) {
            continue;
        }
        // A file may be gone by now; a link counts as what it leads to.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() {
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            found.push((path, Known { size: metadata.size(), modified, images: Vec::new() }));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

fn import_pinned(store: &Store, archive: &Path) -> Result<Vec<ImageRef>> {
    let images = import(store, File::open(archive).map_err(Error::io("open", archive))?)?;
    images.iter().try_for_each(|image| store.set_pinned(&image.id, true))?;
    Ok(images)
}

/// An absent or damaged list only means that all is imported again.
fn read_ledger(path: &Path) -> Result<Ledger> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ledger::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
