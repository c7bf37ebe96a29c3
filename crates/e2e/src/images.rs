//! The images that `cargo xtask images` makes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::program;

/// The archive of an image, by the name of its file: `web-1` for `test.local/web:1`.
pub fn archive(name: &str) -> anyhow::Result<PathBuf> {
    let profile = program::profile_dir()?;
    let target = profile.parent().map(Path::to_owned).context("a profile is in the target folder")?;
    let path = target.join("images").join(format!("{name}.tar"));
    ensure!(path.is_file(), "{} does not exist; make it with `cargo xtask images`", path.display());
    Ok(path)
}
