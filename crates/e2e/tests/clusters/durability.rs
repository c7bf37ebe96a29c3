//! What was acknowledged stays, whatever happens to the process, and damage on disk is told, not guessed over.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Kubectl};

/// How often the process is killed.
const KILLS: usize = 3;
/// Objects that one writer makes until then, at least.
const WRITES_MIN: usize = 5;

#[test]
fn every_acknowledged_write_survives_kill_nine() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let writer = std::thread::spawn({
            let kubectl = kubectl.clone();
            move || write_until_refused(&kubectl, round)
        });
        let last = format!("configmap/round-{round}-{WRITES_MIN}");
        cluster.machine().until("enough is written", || Ok(kubectl.run(&["get", &last]).is_ok()))?;
        cluster.kill()?;
        acknowledged.extend(writer.join().expect("the writer does not panic"));
        cluster.up(&[])?;
    }
    let names = kubectl.run(&["get", "configmaps", "-o", "name"])?;
    let lost: Vec<&String> =
        acknowledged.iter().filter(|name| !names.lines().any(|line| line == name.as_str())).collect();
    ensure!(lost.is_empty(), "of {} acknowledged writes these are lost: {lost:?}", acknowledged.len());
    cluster.finish()
}

/// The names that the server has acknowledged.
fn write_until_refused(kubectl: &Kubectl, round: usize) -> Vec<String> {
    (0..)
        .map(|number| format!("round-{round}-{number}"))
        .take_while(|name| kubectl.run(&["create", "configmap", name, "--from-literal=a=b"]).is_ok())
        .map(|name| format!("configmap/{name}"))
        .collect()
}

/// The files of the store's log, oldest first.
fn log_files(cluster: &Cluster) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(cluster.data().join("store"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn a_torn_tail_is_cut_and_damage_elsewhere_stops_the_start() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    kubectl.run(&["create", "configmap", "before", "--from-literal=a=b"])?;
    cluster.kill()?;

    // As if power had gone in the midst of a write.
    let log = log_files(&cluster)?.pop().context("the store has a log")?;
    let mut bytes = fs::read(&log)?;
    bytes.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7]);
    fs::write(&log, &bytes)?;
    cluster.up(&[])?;
    kubectl.run(&["get", "configmap/before"])?;
    cluster.kill()?;

    // A single bit in the midst of what was acknowledged.
    let whole = fs::read(&log)?;
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(&log, &damaged)?;
    let said = cluster.cox(&["up", "--detach"], &[])?.failure()?;
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    ensure!(said.contains(&*name) && said.contains("is damaged at byte"), "{said}");
    ensure!(fs::read(&log)? == damaged, "what cannot be read must not be changed");

    fs::write(&log, &whole)?;
    cluster.up(&[])?;
    kubectl.run(&["get", "configmap/before"])?;
    cluster.finish()
}
