//! Which slots of a machine's addresses and ports are taken, by clusters in whatever folders.
//!
//! A file per slot names the settings of the cluster that has it. It means nothing once those are gone or name another
//! slot, so that no cluster has to give its slot back. The files do not outlive the machine's start; each cluster that
//! starts writes its own again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Addresses and ports are those of a network namespace, each of which has a folder here. No cluster's name begins so.
const OF_MACHINE: &str = "/run/lock/coxswain/.slots";
const OWN_NETWORK: &str = "/proc/self/ns/net";

/// The slots of one network.
#[derive(Clone, Debug)]
pub struct Slots {
    dir: PathBuf,
}

/// Keeps others from taking a slot while it lives.
#[derive(Debug)]
pub struct Deciding {
    _dir: File,
}

impl Slots {
    /// Those of the network that this process is in.
    pub fn of_machine() -> io::Result<Slots> {
        let network = fs::metadata(OWN_NETWORK)?.ino();
        Ok(Slots::below(&Path::new(OF_MACHINE).join(network.to_string())))
    }

    /// Those that are noted in this folder.
    pub fn below(dir: &Path) -> Slots {
        Slots { dir: dir.to_owned() }
    }

    /// Waits until nobody else decides.
    pub fn decide(&self) -> io::Result<Deciding> {
        Ok(Deciding { _dir: lock(&self.dir)? })
    }

    /// Those that others have than the cluster of these settings; `slot_of` reads settings.
    pub fn taken(&self, settings: &Path, slot_of: impl Fn(&Path) -> Option<u16>) -> io::Result<Vec<u16>> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let slot = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(slot) = slot else { continue };
            let holder = PathBuf::from(fs::read_to_string(&path)?);
            if holder != settings && slot_of(&holder) == Some(slot) {
                taken.push(slot);
            }
        }
        Ok(taken)
    }

    /// Notes that the cluster of these settings has the slot.
    pub fn note(&self, slot: u16, settings: &Path) -> io::Result<()> {
        let text = settings.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        crate::files::write(&self.dir.join(slot.to_string()), text.as_bytes(), 0o600)
    }
}

/// Locks the folder itself, so that no file stays behind.
pub fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::open(folder)?;
    file.lock()?;
    Ok(file)
}
