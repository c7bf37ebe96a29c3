//! What a cluster may leave on a machine: links, addresses, routes, firewall rules, mounts, control groups,
//! processes and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::machine::Machine;

/// What is there that was not before; the opposite is lost.
const LEFT_BEHIND: &str = "left behind";

/// Of differences, those of what is there now. Where something was still going when it was first looked at, only these
/// matter.
pub fn left_behind(mut differences: Vec<String>) -> Vec<String> {
    differences.retain(|line| line.contains(LEFT_BEHIND));
    differences
}

/// What a process that was killed gets to disappear.
const SETTLE: Duration = Duration::from_secs(60);
const SETTLE_STEP: Duration = Duration::from_millis(100);
/// Folders within folders that are looked at below a cgroup controller.
const CGROUP_DEPTH: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeMap<&'static str, BTreeSet<String>>);

/// Where to look.
pub struct Scope<'a> {
    pub machine: &'a Machine,
    /// A part of the name of all control groups of the cluster.
    pub cgroup: &'a str,
    /// Folders that belong to the test.
    pub folders: Vec<PathBuf>,
}

impl Traces {
    pub fn of(scope: &Scope<'_>) -> anyhow::Result<Self> {
        let machine = scope.machine;
        let lines = |program, args: &[&str]| -> anyhow::Result<BTreeSet<String>> {
            Ok(machine.run(program, args)?.success()?.lines().map(str::trim_end).map(str::to_owned).collect())
        };
        let mut found = BTreeMap::new();
        let links = lines("ip", &["-o", "link", "show"])?;
        found.insert("links", links.iter().filter_map(|l| l.split(": ").nth(1)).map(str::to_owned).collect());
        found.insert("addresses", lines("ip", &["-4", "-br", "addr", "show"])?);
        found.insert("routes", lines("ip", &["-4", "route", "show", "table", "all"])?);
        found.insert("rules", lines("ip", &["rule", "show"])?);
        found.insert("firewall", lines("nft", &["list", "ruleset"])?);
        let mounts = machine.mounts()?;
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
        found.insert("mounts", places.collect());
        found.insert("cgroups", cgroups(scope.cgroup));
        found.insert("processes", processes(machine)?);
        found.insert("network namespaces", machine.networks()?);
        let mut files = BTreeSet::new();
        for folder in scope.folders.iter().filter(|folder| folder.exists()) {
            files.insert(folder.display().to_string());
            walk(folder, &mut files)?;
        }
        found.insert("files", files);
        Ok(Traces(found))
    }

    /// What is there and was not, and what was there and is not; empty if nothing changed.
    pub fn difference(&self, after: &Traces) -> Vec<String> {
        let mut found = Vec::new();
        for (what, before) in &self.0 {
            let after = &after.0[what];
            found.extend(after.difference(before).map(|line| format!("{what}: {LEFT_BEHIND}: {line}")));
            // Mounts of the real machine, which this one inherited, go when their files do.
            if *what != "mounts" {
                found.extend(before.difference(after).map(|line| format!("{what}: lost: {line}")));
            }
        }
        found
    }

    /// As `difference` with the present state, once killed processes had time to go.
    pub fn difference_now(&self, scope: &Scope<'_>) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let difference = self.difference(&Traces::of(scope)?);
            if difference.is_empty() || Instant::now() > deadline {
                return Ok(difference);
            }
            std::thread::sleep(SETTLE_STEP);
        }
    }
}

/// Each command, with how many there are of it.
fn processes(machine: &Machine) -> anyhow::Result<BTreeSet<String>> {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for process in machine.processes()? {
        *counted.entry(process.command).or_default() += 1;
    }
    Ok(counted.into_iter().map(|(command, count)| format!("{count} x {command}")).collect())
}

/// Control groups with `name` in theirs or in that of one around them, of all controllers and both versions.
fn cgroups(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            // Links lead from one controller's name to another's.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            // Of those of the name, all that is in them.
            if path.to_string_lossy().contains(name) {
                found.insert(path.display().to_string());
                open.push((path, depth));
            } else if depth < CGROUP_DEPTH {
                open.push((path, depth + 1));
            }
        }
    }
    found
}

/// Everything below a folder. What goes while one looks is not there.
fn walk(dir: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        found.insert(path.display().to_string());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, found)?,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
