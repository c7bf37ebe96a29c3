//! Kernel settings under `/proc/sys`: set, remembering what was there, and put back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

/// What reading or writing a setting can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read sysctl {key}: {source}")]
    Read { key: String, source: io::Error },
    #[error("write sysctl {key}={value}: {source}")]
    Write { key: String, value: String, source: io::Error },
}

/// Settings that we changed, with the values they had before.
pub type Previous = BTreeMap<String, String>;

/// Sets `key` (such as `net/ipv4/ip_forward`) and notes its former value, unless an earlier run
/// noted one already.
pub fn set(key: &str, value: &str, previous: &mut Previous) -> Result<(), Error> {
    let present = fs::read_to_string(path(key)).map_err(|source| Error::Read { key: key.into(), source })?;
    let present = present.trim();
    if present == value {
        return Ok(());
    }
    previous.entry(key.into()).or_insert_with(|| present.into());
    write(key, value)
}

/// The same for a number, unless it is that large already.
pub fn raise(key: &str, wanted: u64, previous: &mut Previous) -> Result<(), Error> {
    let present = fs::read_to_string(path(key)).map_err(|source| Error::Read { key: key.into(), source })?;
    match present.trim().parse::<u64>() {
        Ok(present) if present >= wanted => Ok(()),
        _ => set(key, &wanted.to_string(), previous),
    }
}

/// Puts back what [`set`] noted.
pub fn restore(previous: &Previous) -> Result<(), Error> {
    previous.iter().try_for_each(|(key, value)| write(key, value))
}

/// Sets what goes away with the link that it is of.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    fs::write(path(key), value).map_err(|source| Error::Write {
        key: key.into(),
        value: value.into(),
        source,
    })
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
