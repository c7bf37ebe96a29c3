//! Every Rust file belongs to some crate: it is a target's root, or reached from one by `mod` lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::workspace::Workspace;

pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut reached = BTreeSet::new();
    for target in workspace.packages.iter().flat_map(|package| &package.targets) {
        let root: &Path = target.src_path.as_ref();
        let dir = root.parent().context("a file has a folder")?;
        reach(root, dir, &mut reached)?;
    }
    let orphans = workspace.sources()?.into_iter().filter(|path| !reached.contains(path));
    Ok(orphans.map(|path| format!("{}: no `mod` line leads here", workspace.shown(&path))).collect())
}

/// Adds `file` and all its modules, which live in `dir`.
fn reach(file: &Path, dir: &Path, reached: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !reached.insert(file.to_owned()) {
        return Ok(());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for module in modules(&text) {
        let (path, below) = match module {
            Module::Named(name) if dir.join(format!("{name}.rs")).is_file() => {
                (dir.join(format!("{name}.rs")), dir.join(name))
            }
            Module::Named(name) => (dir.join(name).join("mod.rs"), dir.join(name)),
            Module::At(path) => {
                let path = file.parent().context("a file has a folder")?.join(path);
                let below = path.parent().context("a file has a folder")?.to_owned();
                (path, below)
            }
        };
        // A module may be for another platform and absent, or be declared within another; then it is not ours to find.
        if path.is_file() {
            reach(&path, &below, reached)?;
        }
    }
    Ok(())
}

enum Module<'a> {
    Named(&'a str),
    /// By a `#[path]` attribute on the line before.
    At(&'a str),
}

/// The `mod NAME;` lines of a file.
fn modules(text: &str) -> Vec<Module<'_>> {
    let mut found = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(given) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(given);
            continue;
        }
        let declared = line.strip_suffix(';').and_then(|line| match line.split_once("mod ") {
            Some((before, name)) if before.is_empty() || before.starts_with("pub") => Some(name),
            _ => None,
        });
        if let Some(name) = declared {
            found.push(path.take().map_or(Module::Named(name), Module::At));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found_whatever_their_visibility() {
        let text =
            "//! mod not;\nmod a;\npub mod b;\npub(crate) mod c;\n#[path = \"x/d.rs\"]\nmod d;\nmod e {}\n";
        let found: Vec<&str> = modules(text)
            .iter()
            .map(|module| match module {
                Module::Named(name) => *name,
                Module::At(path) => *path,
            })
            .collect();
        assert_eq!(found, ["a", "b", "c", "x/d.rs"]);
    }
}
