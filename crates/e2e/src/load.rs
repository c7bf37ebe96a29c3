//! Constant HTTP load from within a machine's network, and whether every single request was answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

use crate::http;
use crate::machine::Machine;

/// Between two requests of one worker: a constant load, not as much as the machine can bear.
const PACE: Duration = Duration::from_millis(10);

pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<anyhow::Result<Report>>>,
}

/// What became of all requests.
#[derive(Debug, Default)]
pub struct Report {
    pub answered: usize,
    /// When after the start, and why.
    pub failures: Vec<String>,
}

impl Load {
    /// One worker per path, each asking all the time.
    pub fn start(machine: &Machine, address: SocketAddr, paths: &[&'static str]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for path in paths {
            let (network, stop, path) = (machine.network()?, stop.clone(), *path);
            workers.push(std::thread::spawn(move || {
                setns(network, CloneFlags::CLONE_NEWNET).context("cannot enter the network")?;
                Ok(work(address, path, &stop))
            }));
        }
        Ok(Load { stop, workers })
    }

    pub fn stop(self) -> anyhow::Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Report::default();
        for worker in self.workers {
            let report = worker.join().expect("workers do not panic")?;
            sum.answered += report.answered;
            sum.failures.extend(report.failures);
        }
        Ok(sum)
    }
}

impl Report {
    /// Fails unless every request was answered, and there were at least `count`.
    pub fn all_answered(&self, count: usize) -> anyhow::Result<()> {
        let all = self.answered + self.failures.len();
        ensure!(
            self.failures.is_empty(),
            "{} of {all} requests failed:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        ensure!(all >= count, "only {all} requests were made: that is no constant load");
        Ok(())
    }
}

fn work(address: SocketAddr, path: &str, stop: &AtomicBool) -> Report {
    let started = Instant::now();
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        let asked = started.elapsed();
        let problem = match http::get(address, path) {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("status {}: {}", answer.status, answer.body.trim())),
            Err(error) => Some(format!("{error:#}")),
        };
        match problem {
            None => report.answered += 1,
            Some(why) => report.failures.push(format!("{path} after {:.3} s: {why}", asked.as_secs_f64())),
        }
        std::thread::sleep(PACE);
    }
    report
}
