//! What the workspace consists of: packages, their targets and edges, and source files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::{MetadataCommand, Package};

/// Folders that hold crates.
const SOURCE_ROOTS: [&str; 2] = ["crates", "xtask"];

pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    /// Members only.
    pub packages: Vec<Package>,
}

impl Workspace {
    pub fn find() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
        Ok(Workspace {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            packages: metadata.packages,
        })
    }

    /// Every Rust file, sorted.
    pub fn sources(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for root in SOURCE_ROOTS {
            collect(&self.root.join(root), &mut found)?;
        }
        found.sort();
        Ok(found)
    }

    /// How a file is named in a finding.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// A `cargo` command at the workspace's root, by the same toolchain that runs this program.
    pub fn cargo(&self, command: &str) -> std::process::Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut made = std::process::Command::new(cargo);
        made.arg(command).current_dir(&self.root);
        made
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
