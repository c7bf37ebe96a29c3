//! What every `Cargo.toml` says alike: versions and lints come from the workspace, and nothing there is unused.

use std::collections::BTreeSet;
use std::path::Path;

use crate::workspace::Workspace;

/// Keys a package takes from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for package in &workspace.packages {
        let path: &Path = package.manifest_path.as_ref();
        let text = std::fs::read_to_string(path)?;
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        if folder != package.name.as_str() {
            findings.push(format!("{}: the folder is not called {}", workspace.shown(path), package.name));
        }
        let shown = workspace.shown(path).to_string();
        findings.extend(of_package(&text).into_iter().map(|finding| format!("{shown}: {finding}")));
        used.extend(dependencies(&text).map(|(name, _)| name.to_owned()));
    }
    let root = std::fs::read_to_string(workspace.root.join("Cargo.toml"))?;
    for (name, _) in section(&root, "workspace.dependencies") {
        if !used.contains(name) {
            findings.push(format!("Cargo.toml: no crate uses workspace dependency {name}"));
        }
    }
    Ok(findings)
}

fn of_package(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for key in INHERITED {
        if !section(text, "package").any(|(name, _)| name == format!("{key}.workspace")) {
            findings.push(format!("{key} does not come from the workspace"));
        }
    }
    if !section(text, "lints").any(|line| line == ("workspace", "true")) {
        findings.push("lints do not come from the workspace".to_owned());
    }
    for (name, value) in dependencies(text) {
        // A version fixed to the digit is a matter of one crate: its sources are read, not its interface used.
        if !value.contains("workspace = true") && value != "true" && !value.contains("\"=") {
            findings.push(format!("dependency {name} does not come from the workspace"));
        }
    }
    findings
}

/// Names and values in all sections of dependencies, `NAME.workspace = true` among them.
fn dependencies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    entries(text)
        .filter(|(header, _, _)| header.ends_with("dependencies"))
        .map(|(_, key, value)| (key.strip_suffix(".workspace").unwrap_or(key), value))
}

fn section<'a>(text: &'a str, wanted: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    entries(text).filter(move |(header, _, _)| *header == wanted).map(|(_, key, value)| (key, value))
}

/// Every `KEY = VALUE` line with the section it stands in.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut header = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            header = name;
            return None;
        }
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        Some((header, key.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_from_the_workspace_is_named() {
        let text = "[package]\nname = \"x\"\nversion.workspace = true\nedition.workspace = true\n\
                    rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
                    [lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n\
                    http = { workspace = true, features = [\"a\"] }\nother = \"1\"\n\
                    [target.'cfg(any())'.dependencies]\ntexts = \"=0.5.0\"\n";
        assert_eq!(of_package(text), ["dependency other does not come from the workspace"]);
    }
}
