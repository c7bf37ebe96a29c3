//! Many pods that live and die, and whether the node is the same afterwards.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::traces::left_behind;
use crate::{Cluster, Kubectl};

/// Pods at a time, in one Job after the other.
const AT_A_TIME: usize = 25;
/// Lives of one Job: its pods stay in the API until it is deleted.
const LIVES_PER_JOB: usize = 250;
/// Lives after which memory and open files are as they will stay.
const WARM_UP: usize = 50;
const IMAGES: [&str; 1] = ["busybox-1"];
/// Open files that the agent may have more than after the warm-up: connections that come and go.
const DESCRIPTORS_MORE_MAX: usize = 20;

/// What many lives have cost.
pub struct Lives {
    count: usize,
    took: Duration,
    descriptors: (usize, usize),
    /// PSS of the agent after the warm-up and in the end, in kilobytes.
    memory: (u64, u64),
}

impl fmt::Display for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.took.as_secs_f64() * 1e3 / self.count.max(1) as f64;
        write!(
            f,
            "{} pod lives in {:.0} s, {each:.0} ms each; open files {} then {}; PSS {} kB then {} kB; nothing is left",
            self.count,
            self.took.as_secs_f64(),
            self.descriptors.0,
            self.descriptors.1,
            self.memory.0,
            self.memory.1,
        )
    }
}

/// Lets so many pods live and die, and fails if anything is left of them.
pub fn live(count: usize) -> anyhow::Result<Lives> {
    let cluster = Cluster::start(&IMAGES)?;
    let kubectl = cluster.kubectl()?.patient();
    run_jobs(&kubectl, WARM_UP)?;
    let before = cluster.census()?;
    let (descriptors, memory) = (cluster.descriptors()?, cluster.memory_kilobytes()?);
    let started = Instant::now();
    run_jobs(&kubectl, count)?;
    let took = started.elapsed();
    let left = left_behind(cluster.difference_since(&before)?);
    ensure!(left.is_empty(), "of {count} pods there is left:\n{}", left.join("\n"));
    let descriptors = (descriptors, cluster.descriptors()?);
    ensure!(
        descriptors.1 <= descriptors.0 + DESCRIPTORS_MORE_MAX,
        "{count} pods later the agent has {} open files instead of {}",
        descriptors.1,
        descriptors.0
    );
    let lives = Lives { count, took, descriptors, memory: (memory, cluster.memory_kilobytes()?) };
    cluster.finish()?;
    Ok(lives)
}

fn run_jobs(kubectl: &Kubectl, count: usize) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        let completions = left.min(LIVES_PER_JOB);
        kubectl.apply(&job(completions))?;
        kubectl.run(&["wait", "job/lives", "--for=condition=Complete", "--timeout=590s"])?;
        kubectl.run(&["delete", "job/lives", "--cascade=foreground", "--wait"])?;
        left -= completions;
    }
    Ok(())
}

fn job(completions: usize) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: lives}}, spec: {{\
           completions: {completions}, parallelism: {AT_A_TIME}, template: {{spec: {{restartPolicy: Never, \
           volumes: [{{name: v, emptyDir: {{medium: Memory}}}}], containers: [{{name: c, image: \"test.local/busybox:1\", \
           command: [sh, -c, \"echo lived > /v/file\"], volumeMounts: [{{name: v, mountPath: /v}}]}}]}}}}}}}}"
    )
}
