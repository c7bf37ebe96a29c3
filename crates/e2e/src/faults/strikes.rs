//! What can happen. Each is over when it returns: what was down is up again, though nothing may have recovered yet.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use super::workload::RECOVERY;
use super::{FLAGS, World};
use crate::{Machine, NODE_NAME, Process};

pub struct Strike {
    pub name: &'static str,
    pub happen: fn(&World) -> anyhow::Result<()>,
}

pub const STRIKES: [Strike; 11] = [
    Strike { name: "the cluster's process is killed", happen: kill_the_process },
    Strike { name: "it is killed while pods start and end", happen: kill_the_process_in_a_burst },
    Strike { name: "it is killed again while it starts", happen: kill_the_process_twice },
    Strike { name: "a shim is killed", happen: kill_a_shim },
    Strike { name: "a shim is killed while the process is away", happen: kill_a_shim_unseen },
    Strike { name: "the zygote is killed", happen: kill_the_zygote },
    Strike { name: "containers are killed", happen: kill_containers },
    Strike { name: "the disk is full", happen: fill_the_disk },
    Strike { name: "the second node is cut off", happen: cut_off },
    Strike { name: "the second node's agent is killed", happen: kill_the_agent },
    Strike { name: "the registry is down", happen: lose_the_registry },
];

/// What shims and the process that forks them call themselves.
const SHIM: &str = "cox-shim";
const ZYGOTE: &str = "cox-zygote";
/// Containers killed at a time.
const CONTAINERS: usize = 3;
/// How long the disk stays full.
const FULL_MILLISECONDS: std::ops::Range<usize> = 2000..8000;
/// How long a node is cut off: often long enough for the cluster to give it up, which takes 40 s.
const CUT_MILLISECONDS: std::ops::Range<usize> = 3000..60_000;
/// How far a start or a roll-out gets before it is disturbed.
const MIDST_MILLISECONDS: std::ops::Range<usize> = 50..1500;
/// What a file is written with to fill a disk.
const BLOCK_BYTES: usize = 1 << 20;

fn kill_the_process(world: &World) -> anyhow::Result<()> {
    world.cluster.kill()?;
    world.cluster.up(&FLAGS).map(drop)
}

fn kill_the_process_in_a_burst(world: &World) -> anyhow::Result<()> {
    world.kubectl.run(&["scale", "deployment/web", "--replicas=8"])?;
    std::thread::sleep(world.random().duration(MIDST_MILLISECONDS));
    kill_the_process(world)?;
    world.kubectl.run(&["scale", "deployment/web", "--replicas=3"])?;
    std::thread::sleep(world.random().duration(MIDST_MILLISECONDS));
    kill_the_process(world)
}

fn kill_the_process_twice(world: &World) -> anyhow::Result<()> {
    let (cluster, before) = (&world.cluster, world.cluster.pid()?);
    cluster.kill()?;
    std::thread::scope(|scope| {
        // Most often it is killed before it can say that it is up.
        scope.spawn(|| cluster.up(&FLAGS).is_ok());
        cluster.machine().until("it starts", || Ok(cluster.pid().is_ok_and(|pid| pid != before)))?;
        std::thread::sleep(world.random().duration(MIDST_MILLISECONDS));
        cluster.kill()
    })?;
    cluster.up(&FLAGS).map(drop)
}

fn kill_a_shim(world: &World) -> anyhow::Result<()> {
    kill_one(world, |process| process.name == SHIM)
}

fn kill_a_shim_unseen(world: &World) -> anyhow::Result<()> {
    world.cluster.kill()?;
    kill_a_shim(world)?;
    world.cluster.up(&FLAGS).map(drop)
}

fn kill_the_zygote(world: &World) -> anyhow::Result<()> {
    kill_one(world, |process| process.name == ZYGOTE)
}

fn kill_containers(world: &World) -> anyhow::Result<()> {
    let is_ours = |process: &Process| {
        process.command.starts_with("nginx: master") || process.command.contains("sleep 100000")
    };
    (0..CONTAINERS).try_for_each(|_| kill_one(world, is_ours))
}

/// Of all such processes on both nodes one, if there is one just now; it may end by itself before.
fn kill_one(world: &World, wanted: impl Fn(&Process) -> bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let first: &Machine = world.cluster.machine();
    for machine in [first, world.second.machine()] {
        let processes = machine.processes()?;
        found.extend(processes.into_iter().filter(&wanted).map(|process| (machine, process.pid)));
    }
    let victim = world.random().one_of(&found).copied();
    match victim {
        Some((machine, pid)) => machine.run("kill", &["-9", &pid.to_string()]).map(drop),
        None => Ok(()),
    }
}

fn cut_off(world: &World) -> anyhow::Result<()> {
    world.second.cut_off()?;
    std::thread::sleep(world.random().duration(CUT_MILLISECONDS));
    world.second.mend()
}

fn kill_the_agent(world: &World) -> anyhow::Result<()> {
    world.second.kill()?;
    std::thread::sleep(world.random().duration(MIDST_MILLISECONDS));
    world.second.start()
}

fn fill_the_disk(world: &World) -> anyhow::Result<()> {
    let path = data_seen_from_here(world)?.join("filler");
    let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let block = vec![0; BLOCK_BYTES];
    let full =
        (0..).map(|_| file.write_all(&block)).find_map(Result::err).context("it ends with an error")?;
    ensure!(full.kind() == std::io::ErrorKind::StorageFull, "filling the disk: {full}");
    // The rest of it, byte by byte.
    while file.write_all(&[0]).is_ok() {}
    std::thread::sleep(world.random().duration(FULL_MILLISECONDS));
    fs::remove_file(&path)?;
    drop(file);
    // What writes the log may have given up meanwhile, which ends the process: so be it, but not in silence.
    match world.cluster.is_running()? {
        true => Ok(()),
        false => world.cluster.up(&FLAGS).map(drop),
    }
}

/// The file system that only the test's machine has.
fn data_seen_from_here(world: &World) -> anyhow::Result<PathBuf> {
    Ok(world.cluster.machine().root().join(super::data_root(&world.cluster)?.strip_prefix("/")?))
}

fn lose_the_registry(world: &World) -> anyhow::Result<()> {
    world.stop_registry();
    let kubectl = world.kubectl.patient();
    kubectl.apply(&pulled(&world.registry.address))?;
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    kubectl.wait_for_field_of_any("pods", "--selector=app=pulled", reason, "ImagePullBackOff")?;
    world.serve_registry()?;
    kubectl.run(&["rollout", "status", "deployment/pulled", RECOVERY])?;
    kubectl.run(&["delete", "deployment/pulled", "--cascade=foreground", "--wait"]).map(drop)
}

/// A pod whose image comes from a registry every time. A controller makes it again when it is evicted, which what was
/// done to the node before may well lead to; and the scheduler keeps it away as long as the node's disk is full.
fn pulled(registry: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: pulled}}, spec: {{selector: {{matchLabels: \
           {{app: pulled}}}}, template: {{metadata: {{labels: {{app: pulled}}}}, spec: {{nodeSelector: \
           {{kubernetes.io/hostname: {NODE_NAME}}}, containers: [{{name: pulled, image: \"{registry}/web:1\", \
           imagePullPolicy: Always}}]}}}}}}}}"
    )
}

impl World {
    pub fn serve_registry(&self) -> anyhow::Result<()> {
        let served = self.registry.serve(self.cluster.machine())?;
        *self.serving.lock().expect("nobody panics with it") = Some(served);
        Ok(())
    }

    pub fn stop_registry(&self) {
        *self.serving.lock().expect("nobody panics with it") = None;
    }
}
