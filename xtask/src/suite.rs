//! `cargo xtask test`: everything that must pass.

use crate::workspace::Workspace;
use crate::{images, packages, process, tidy};

/// The package whose tests run whole clusters.
const END_TO_END: &str = "e2e";

pub fn full(workspace: &Workspace) -> anyhow::Result<()> {
    packages::install_missing()?;
    images::make_all(workspace)?;
    tidy::all(workspace)?;
    // One build for everything: the tests of `cox` make cargo build its program too, which the clusters then run.
    process::run(workspace.cargo("test").args(["--workspace", "--no-fail-fast"]))
}

pub fn quick(workspace: &Workspace) -> anyhow::Result<()> {
    tidy::without_compiler(workspace)?;
    process::run(workspace.cargo("test").args(["--workspace", "--no-fail-fast", "--exclude", END_TO_END]))
}
