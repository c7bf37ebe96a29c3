//! Checks that other programs make.

use crate::process::{find, run};
use crate::workspace::Workspace;

pub fn formatting(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace.cargo("fmt").args(["--all", "--check"]))
}

pub fn lints(workspace: &Workspace) -> anyhow::Result<()> {
    let strict = ["--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    run(workspace.cargo("clippy").args(strict))
}

/// Advisories are left out: they need a network.
pub fn licences(workspace: &Workspace) -> anyhow::Result<()> {
    if find("cargo-deny").is_none() {
        eprintln!(
            "cargo-deny is not installed: licences are not checked (cargo install --locked cargo-deny)"
        );
        return Ok(());
    }
    run(workspace.cargo("deny").args(["check", "licenses", "bans", "sources"]))
}
