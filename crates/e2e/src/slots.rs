//! How many clusters run at a time, over all test programs: a small machine with many is slow enough to miss
//! deadlines.

use std::fs::{self, File};

use anyhow::Context as _;

use crate::program;

/// Clusters at a time.
const SLOTS: usize = 2;

/// Held while a test has its cluster; the kernel releases it however the test ends.
pub struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits for a free one.
    pub fn take() -> anyhow::Result<Self> {
        let dir = program::profile_dir()?.join("e2e-slots");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let open = |slot: usize| File::create(dir.join(slot.to_string()));
        for slot in 0..SLOTS {
            let lock = open(slot)?;
            if lock.try_lock().is_ok() {
                return Ok(Slot { _lock: lock });
            }
        }
        // All are taken: wait for one, not always the same.
        let lock = open(std::process::id() as usize % SLOTS)?;
        lock.lock()?;
        Ok(Slot { _lock: lock })
    }
}
