//! `cargo xtask test`: everything that must pass.

use std::env;
use std::process::Command;

use crate::workspace::Workspace;
use crate::{images, packages, process, tidy};

/// The package whose tests run whole clusters.
const END_TO_END: &str = "e2e";

/// Which cases property tests try, by proptest's environment variable. The same ones in every run, so that a change is
/// judged by itself; whoever sets another number tries others.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

pub fn full(workspace: &Workspace) -> anyhow::Result<()> {
    packages::install_missing()?;
    images::make_all(workspace)?;
    tidy::all(workspace)?;
    // One build for everything: the tests of `cox` make cargo build its program too, which the clusters then run.
    process::run(tests(workspace).args(["--workspace", "--no-fail-fast"]))
}

pub fn quick(workspace: &Workspace) -> anyhow::Result<()> {
    tidy::without_compiler(workspace)?;
    process::run(tests(workspace).args(["--workspace", "--no-fail-fast", "--exclude", END_TO_END]))
}

fn tests(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo("test");
    if env::var_os(SEED.0).is_none() {
        cargo.env(SEED.0, SEED.1);
    }
    cargo
}
