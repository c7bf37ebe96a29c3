//! Where the programs are that the tests run.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// Names the `cox` to test, instead of the one that cargo builds beside the tests.
const COX_BIN: &str = "COX_BIN";
/// The versions of kubectl that are tried where they stand beside `kubectl`.
const KUBECTL_VERSIONS: [&str; 3] = ["1.27", "1.30", "1.33"];

pub fn cox() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os(COX_BIN) {
        Some(path) => path.into(),
        None => profile_dir()?.join("cox"),
    };
    ensure!(path.is_file(), "{} does not exist; build it with `cargo build -p cox`", path.display());
    Ok(path)
}

/// Another program of the workspace, which cargo builds beside the tests.
pub fn beside_the_tests(name: &str) -> anyhow::Result<PathBuf> {
    let path = profile_dir()?.join(name);
    ensure!(path.is_file(), "{} does not exist; build it with `cargo build -p {name}`", path.display());
    Ok(path)
}

/// cargo's folder of this build profile, `target/debug`: programs are in it, tests in its folder `deps`.
pub fn profile_dir() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("a program is in a folder")?;
    let profile = if dir.ends_with("deps") { dir.parent() } else { Some(dir) };
    Ok(profile.context("tests are in target/PROFILE/deps")?.to_owned())
}

/// Every kubectl of this machine, by version; `kubectl` itself where there are no others.
pub fn kubectls() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let kubectl = find("kubectl").context("kubectl is not installed; `cargo xtask test` installs it")?;
    // It may be a link into the folder where all versions are.
    let dir = std::fs::canonicalize(&kubectl)?.parent().context("a program is in a folder")?.to_owned();
    let beside = KUBECTL_VERSIONS.map(|version| (version.to_owned(), dir.join(format!("kubectl.{version}"))));
    let mut found: Vec<_> = beside.into_iter().filter(|(_, path)| path.is_file()).collect();
    if found.is_empty() {
        found.push(("any".to_owned(), kubectl));
    }
    Ok(found)
}

pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
