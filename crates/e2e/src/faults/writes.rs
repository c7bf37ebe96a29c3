//! Objects that are made and deleted all the time, and whether what was acknowledged is so in the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::ensure;

use crate::Kubectl;

/// Every so many objects one is deleted again.
const DELETE_EVERY: usize = 3;
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(100);
const LABEL: &str = "written-by=faults";

pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// What the server has acknowledged.
#[derive(Default)]
pub struct Written {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Writer {
    pub fn start(kubectl: Kubectl) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut written = Written::default();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                written.write(&kubectl, number);
            }
            written
        });
        Writer { stop, thread }
    }

    pub fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer does not panic")
    }
}

impl Written {
    fn write(&mut self, kubectl: &Kubectl, number: usize) {
        let name = format!("written-{number}");
        let manifest = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{{}}}}}, data: {{number: \"{number}\"}}}}",
            LABEL.replace('=', ": ")
        );
        match kubectl.attempt(&["create", "-f", "-"], &manifest) {
            Ok(finished) if finished.status.success() => drop(self.created.insert(name.clone())),
            _ => std::thread::sleep(PAUSE),
        }
        if number.is_multiple_of(DELETE_EVERY) && self.created.contains(&name) {
            // Whether one is there that nobody acknowledged to have deleted cannot be said.
            self.created.remove(&name);
            if kubectl.run(&["delete", &format!("configmap/{name}")]).is_ok() {
                self.deleted.insert(name);
            }
        }
    }

    /// Fails unless all is as acknowledged; how many writes that were.
    pub fn check(&self, kubectl: &Kubectl) -> anyhow::Result<usize> {
        let names = kubectl.run(&["get", "configmaps", "-l", LABEL, "-o", "name"])?;
        let there: BTreeSet<String> =
            names.lines().filter_map(|line| line.strip_prefix("configmap/")).map(str::to_owned).collect();
        let lost: Vec<&String> = self.created.difference(&there).collect();
        let risen: Vec<&String> = self.deleted.intersection(&there).collect();
        ensure!(
            lost.is_empty() && risen.is_empty(),
            "acknowledged and lost: {lost:?}; back again: {risen:?}"
        );
        ensure!(!self.created.is_empty(), "nothing was acknowledged");
        // One after the other, and there may be a thousand.
        kubectl.patient().run(&["delete", "configmaps", "-l", LABEL])?;
        Ok(self.created.len() + self.deleted.len())
    }
}
