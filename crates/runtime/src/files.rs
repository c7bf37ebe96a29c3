//! Small files that are there whole or not at all, and the names given to new things.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of randomness in an id; containerd's ids have as many.
const ID_BYTES: usize = 32;

/// Replaces a file: written beside, flushed, renamed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&partial, path)
}

/// Removes a folder with all it holds; one that is not there is fine.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// 64 random hexadecimal digits.
pub fn random_id() -> String {
    let mut bytes = [0; ID_BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
