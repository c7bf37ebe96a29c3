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
/// noted one already. What cannot be set need not be put back.
pub fn set(key: &str, value: &str, previous: &mut Previous) -> Result<(), Error> {
    let present = read(key)?;
    if present == value {
        return Ok(());
    }
    write(key, value)?;
    previous.entry(key.into()).or_insert(present);
    Ok(())
}

/// The same for a number, unless it is that large already.
pub fn raise(key: &str, wanted: u64, previous: &mut Previous) -> Result<(), Error> {
    match read(key)?.parse::<u64>() {
        Ok(present) if present >= wanted => Ok(()),
        _ => set(key, &wanted.to_string(), previous),
    }
}

/// Puts back what [`set`] noted, where it is not so already.
pub fn restore(previous: &Previous) -> Result<(), Error> {
    previous.iter().try_for_each(|(key, value)| if read(key)? == *value { Ok(()) } else { write(key, value) })
}

fn read(key: &str) -> Result<String, Error> {
    let present = fs::read_to_string(path(key)).map_err(|source| Error::Read { key: key.into(), source })?;
    Ok(present.trim().to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lets_nobody_set_is_not_put_back() {
        const FIXED: &str = "kernel/ostype";
        let mut previous = Previous::new();
        set(FIXED, "another", &mut previous).expect_err("the kernel keeps its name");
        assert_eq!(previous, Previous::new());
        // An earlier version noted it all the same.
        restore(&[(FIXED.to_owned(), "Linux".to_owned())].into()).expect("is so already");
    }
}
