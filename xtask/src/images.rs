//! Images for the end-to-end tests, made from files of Debian packages: no registry, no Dockerfile.

mod archive;
mod catalogue;
mod rootfs;

use std::fs;

use anyhow::Context as _;

use crate::workspace::Workspace;

/// An image before it is packed.
pub struct Image {
    /// Also the archive's file name: `web-1` for `test.local/web:1`.
    pub name: &'static str,
    pub tag: &'static str,
    pub files: rootfs::Rootfs,
    pub entrypoint: &'static [&'static str],
    pub command: &'static [&'static str],
    pub ports: &'static [&'static str],
    /// What asks the program to finish its work and end; the default is SIGTERM.
    pub stop_signal: Option<&'static str>,
}

/// Where image names of the tests live: no registry answers there.
const DOMAIN: &str = "test.local";

impl Image {
    fn reference(&self) -> String {
        format!("{DOMAIN}/{}:{}", self.name, self.tag)
    }
}

/// Writes one OCI archive per image into `target/images`.
pub fn make_all(workspace: &Workspace) -> anyhow::Result<()> {
    let dir = workspace.target.join("images");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for image in catalogue::images()? {
        let path = dir.join(format!("{}-{}.tar", image.name, image.tag));
        archive::write(&image, &path).with_context(|| format!("cannot make image {}", image.reference()))?;
        eprintln!("image {} is in {}", image.reference(), workspace.shown(&path));
    }
    Ok(())
}
