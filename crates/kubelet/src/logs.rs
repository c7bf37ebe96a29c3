//! Keeps container logs from filling the disk: one that has grown to its limit is renamed, the runtime goes on in a new
//! file, older ones are compressed and the oldest removed (follows `logs/container_log_manager.go`).
//!
//! A log that nobody writes to costs nothing: the kernel tells of the next write. One that grows is looked at when it
//! could be full.

pub mod files;
mod pace;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use runtime::cri;
use tokio::sync::watch;

use crate::inotify::{AddWatchFlags, Changes, WatchDescriptor};
use crate::worker::Runtime;
use pace::{Next, Pace};

/// How much a container may log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Upstream's `containerLogMaxSize`.
    pub bytes_max: u64,
    /// Upstream's `containerLogMaxFiles`, the one being written included; at least 2.
    pub files_max: usize,
}

/// The logs of running containers, written by the pods' workers.
#[derive(Debug, Default)]
pub struct Running {
    /// By pod uid: container ids with their logs.
    logs: watch::Sender<BTreeMap<String, BTreeMap<String, PathBuf>>>,
}

impl Running {
    /// Says which of a pod's containers run now.
    pub fn set(&self, pod_uid: &str, logs: BTreeMap<String, PathBuf>) {
        self.logs.send_if_modified(|known| {
            let unchanged = known.get(pod_uid).map_or(logs.is_empty(), |before| *before == logs);
            if unchanged {
                return false;
            }
            if logs.is_empty() {
                known.remove(pod_uid);
            } else {
                known.insert(pod_uid.to_owned(), logs);
            }
            true
        });
    }
}

/// Rotates logs until it is dropped.
pub async fn rotate(runtime: Runtime, limits: Limits, running: &Running) -> io::Result<()> {
    let mut logs = running.logs.subscribe();
    logs.mark_changed();
    let mut rotator = Rotator { runtime, limits, changes: Changes::new()?, logs: HashMap::new() };
    loop {
        let next_at = rotator.logs.values().filter_map(|log| log.next_at).min();
        tokio::select! {
            changed = logs.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let known = logs.borrow_and_update().values().flatten().map(|(id, path)| (id.clone(), path.clone())).collect();
                rotator.know(known);
            }
            written = rotator.changes.next() => rotator.written(&written?, Timestamp::now()),
            () = sleep_until(next_at) => {}
        }
        rotator.look(Timestamp::now()).await;
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let pause = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(pause).await;
        }
    }
}

struct Rotator {
    runtime: Runtime,
    limits: Limits,
    changes: Changes,
    /// By container id.
    logs: HashMap<String, Log>,
}

struct Log {
    path: PathBuf,
    pace: Pace,
    /// `None` while the next write is waited for.
    next_at: Option<Timestamp>,
    watch: Option<WatchDescriptor>,
}

impl Rotator {
    /// New logs are looked at at once: they may have grown while nobody looked.
    fn know(&mut self, running: HashMap<String, PathBuf>) {
        let changes = &self.changes;
        self.logs.retain(|id, log| {
            let runs = running.contains_key(id);
            if !runs && let Some(watch) = log.watch.take() {
                changes.forget(watch);
            }
            runs
        });
        for (id, path) in running.into_iter().filter(|(_, path)| path.is_absolute()) {
            let new = Log { path, pace: Pace::default(), next_at: Some(Timestamp::MIN), watch: None };
            self.logs.entry(id).or_insert(new);
        }
    }

    fn written(&mut self, watches: &[WatchDescriptor], now: Timestamp) {
        for log in
            self.logs.values_mut().filter(|log| log.watch.is_some_and(|watch| watches.contains(&watch)))
        {
            log.watch = None;
            log.next_at = Some(log.pace.written(now));
        }
    }

    async fn look(&mut self, now: Timestamp) {
        let due = |log: &Log| log.next_at.is_some_and(|at| at <= now);
        let due: Vec<String> =
            self.logs.iter().filter(|(_, log)| due(log)).map(|(id, _)| id.clone()).collect();
        for id in due {
            if let Err(error) = self.look_at(&id, now).await {
                tracing::warn!(container = id, %error, "log could not be rotated, will retry");
                if let Some(log) = self.logs.get_mut(&id) {
                    log.next_at = Some(log.pace.failed(now));
                }
            }
        }
    }

    async fn look_at(&mut self, id: &str, now: Timestamp) -> io::Result<()> {
        let Some(log) = self.logs.get_mut(id) else { return Ok(()) };
        let mut bytes = match tokio::fs::metadata(&log.path).await {
            Ok(metadata) => metadata.len(),
            // Upstream's way to mend a rotation that was broken off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                reopen(&self.runtime, id).await?;
                0
            }
            Err(error) => return Err(error),
        };
        if bytes >= self.limits.bytes_max {
            rotate_one(&self.runtime, self.limits, id, log.path.clone(), now).await?;
            bytes = 0;
        }
        log.next_at = match log.pace.looked(bytes, self.limits.bytes_max, now) {
            Next::At(at) => Some(at),
            Next::AfterWrite => {
                let once = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT;
                log.watch = Some(self.changes.watch(&log.path, once)?);
                // What was written before the watch stood would not be told of.
                let missed = tokio::fs::metadata(&log.path).await?.len() != bytes;
                missed.then(|| log.pace.written(now))
            }
        };
        Ok(())
    }
}

async fn rotate_one(
    runtime: &Runtime,
    limits: Limits,
    id: &str,
    path: PathBuf,
    now: Timestamp,
) -> io::Result<()> {
    let log = path.clone();
    let moved = tokio::task::spawn_blocking(move || {
        files::make_room(&log, limits.files_max)?;
        files::move_away(&log, now)
    });
    let moved = moved.await.map_err(io::Error::other)??;
    if let Err(error) = reopen(runtime, id).await {
        // The container still writes to the file that was moved.
        tokio::fs::rename(&moved, &path).await?;
        return Err(error);
    }
    Ok(())
}

async fn reopen(runtime: &Runtime, id: &str) -> io::Result<()> {
    let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
    let reopened = runtime.runtime.clone().reopen_container_log(request).await;
    reopened.map(drop).map_err(|status| io::Error::other(status.message().to_owned()))
}
