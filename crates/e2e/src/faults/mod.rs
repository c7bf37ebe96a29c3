//! A cluster under load, to which everything happens that can happen to a machine, and then what must be true of it:
//! what must run runs, what was acknowledged is there, and nothing is left of what is gone.

mod lives;
mod strikes;
mod workload;
mod writes;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

pub use self::lives::{Lives, live};
use self::strikes::STRIKES;
use self::writes::Writer;
use crate::random::Random;
use crate::traces::left_behind;
use crate::{Background, Cluster, Kubectl, Load, NODE_IP, Registry, SecondNode, Traces, images};

/// Between two faults, while the load goes on.
const PAUSE_MILLISECONDS: std::ops::Range<usize> = 500..3000;
/// Faults after which the whole is looked over.
const FAULTS_BETWEEN_CHECKS: usize = 12;
/// The cluster's data lies in memory, of which there is this much: to be filled up soon.
const DATA_MEGABYTES: usize = 1024;
/// A shortage of disk is over for the scheduler soon after it is over.
const FLAGS: [&str; 2] = ["--eviction-pressure-transition-period", "5s"];
/// Images of the workload. They are pinned: a full disk must not cost the node what nobody can bring back.
const IMAGES: [&str; 2] = ["busybox-1", "web-1"];
/// Requests that the load must have made for a run to mean anything.
const REQUESTS_MIN: usize = 50;
/// Open files that an agent may have more than when it began: connections of clients that have not left yet.
const DESCRIPTORS_MORE_MAX: usize = 40;

/// How long faults go on.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Each has happened once.
    EachOnce,
    After(Duration),
}

/// Runs it all; the report tells what happened.
pub fn run(seed: u64, until: Until) -> anyhow::Result<Report> {
    let world = World::make(seed)?;
    let result = world.suffer(until);
    match &result {
        Ok(report) => println!("{report}"),
        Err(error) => println!("seed {seed}: {error:#}"),
    }
    let report = result?;
    world.end()?;
    Ok(report)
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    pub faults: Vec<&'static str>,
    pub writes: usize,
    pub answered: usize,
    pub failed: usize,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} faults; {} acknowledged writes are there; {} requests answered, {} not",
            self.faults.len(),
            self.writes,
            self.answered,
            self.failed
        )?;
        for strike in &STRIKES {
            let times = self.faults.iter().filter(|name| **name == strike.name).count();
            writeln!(f, "  {times:>4} x {}", strike.name)?;
        }
        Ok(())
    }
}

/// Where the data of all clusters of the test's machine lies.
fn data_root(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    Ok(cluster.data().parent().context("a cluster's data is in the folder of all")?.to_owned())
}

/// The cluster and all that happens to it.
pub struct World {
    second: SecondNode,
    cluster: Cluster,
    kubectl: Kubectl,
    random: Mutex<Random>,
    registry: Registry,
    /// While it serves.
    serving: Mutex<Option<Background>>,
    /// Of both nodes, when the workload has gone once.
    before: [Traces; 2],
    descriptors_before: usize,
}

impl World {
    fn make(seed: u64) -> anyhow::Result<Self> {
        let cluster = Cluster::prepare()?;
        let data = data_root(&cluster)?;
        std::fs::create_dir_all(&data)?;
        let size = format!("size={DATA_MEGABYTES}m");
        let data = data.display().to_string();
        cluster.machine().run("mount", &["-t", "tmpfs", "-o", &size, "data", &data])?.success()?;
        cluster.up(&FLAGS)?;
        for name in IMAGES {
            let archive = images::archive(name)?.display().to_string();
            cluster.cox(&["image", "import"], &["--pin", &archive])?.success()?;
        }
        let (kubectl, second) = (cluster.kubectl()?, SecondNode::join(&cluster)?);
        IMAGES.iter().try_for_each(|name| second.import(name))?;
        cluster.machine().until("the second node is there", || {
            Ok(kubectl.run(&["get", "nodes", "-o", "name"])?.lines().count() == 2)
        })?;
        kubectl.run(&["wait", "nodes", "--all", "--for=condition=Ready", "--timeout=90s"])?;
        // As it is after each of its ends: it has joined already, and is not told how to.
        second.kill()?;
        second.start()?;
        let random = Mutex::new(Random::new(seed));
        // What a node makes when it first needs it stays: folders, groups of pods, the process that forks shims.
        workload::start(&kubectl)?;
        workload::remove(&kubectl)?;
        let before = [cluster.census()?, second.census()?];
        let descriptors_before = cluster.descriptors()?;
        let (registry, serving) = (Registry::plain(&cluster.scratch()?), Mutex::new(None));
        let world = World { cluster, kubectl, random, second, registry, serving, before, descriptors_before };
        world.serve_registry()?;
        world.registry.push(world.cluster.machine(), "web-1", "web:1")?;
        Ok(world)
    }

    /// The cluster goes, and then the file system that only it had.
    fn end(mut self) -> anyhow::Result<()> {
        self.second.leave()?;
        self.cluster.cox(&["down"], &["--purge"])?.success()?;
        let data = data_root(&self.cluster)?;
        self.cluster.machine().run("umount", &[&data.display().to_string()])?.success()?;
        std::fs::remove_dir(&data)?;
        self.cluster.finish()
    }

    /// Faults one after the other while the load goes on, and then the whole looked over.
    fn suffer(&self, until: Until) -> anyhow::Result<Report> {
        let port = workload::start(&self.kubectl)?;
        let writer = Writer::start(self.kubectl.clone());
        let load = Load::start(self.cluster.machine(), format!("{NODE_IP}:{port}").parse()?, &["/"])?;
        let mut report = Report::default();
        let struck = self.strike_until(until, &mut report);
        let (load, written) = (load.stop()?, writer.stop());
        struck?;
        (report.answered, report.failed) = (load.answered, load.failures.len());
        ensure!(report.answered >= REQUESTS_MIN, "only {} requests were answered", report.answered);
        workload::is_well(&self.cluster, &self.kubectl, port)?;
        report.writes = written.check(&self.kubectl)?;
        self.nothing_is_left()?;
        Ok(report)
    }

    fn strike_until(&self, until: Until, report: &mut Report) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let mut round: Vec<usize> = (0..STRIKES.len()).collect();
            self.random().shuffle(&mut round);
            for index in round {
                let strike = &STRIKES[index];
                println!("{:>6.1} s: {}", started.elapsed().as_secs_f64(), strike.name);
                (strike.happen)(self).with_context(|| format!("when {}", strike.name))?;
                report.faults.push(strike.name);
                std::thread::sleep(self.pause());
                if report.faults.len().is_multiple_of(FAULTS_BETWEEN_CHECKS) {
                    workload::rolls_out(&self.kubectl)
                        .with_context(|| format!("after {:?}", report.faults))?;
                }
                if matches!(until, Until::After(length) if started.elapsed() >= length) {
                    return Ok(());
                }
            }
            if matches!(until, Until::EachOnce) {
                return Ok(());
            }
        }
    }

    fn random(&self) -> std::sync::MutexGuard<'_, Random> {
        self.random.lock().expect("nobody panics with it")
    }

    fn pause(&self) -> Duration {
        self.random().duration(PAUSE_MILLISECONDS)
    }

    /// The workload goes, and the node is as it was before.
    fn nothing_is_left(&self) -> anyhow::Result<()> {
        workload::remove(&self.kubectl)?;
        self.stop_registry();
        let left = left_behind(self.cluster.difference_since(&self.before[0])?);
        ensure!(left.is_empty(), "the node is not as it was:\n{}", left.join("\n"));
        let left = left_behind(self.second.difference_since(&self.before[1])?);
        ensure!(left.is_empty(), "the second node is not as it was:\n{}", left.join("\n"));
        let descriptors = self.cluster.descriptors()?;
        ensure!(
            descriptors <= self.descriptors_before + DESCRIPTORS_MORE_MAX,
            "the agent has {descriptors} open files, and had {}",
            self.descriptors_before
        );
        Ok(())
    }
}
