//! Has the kernel tell when memory nears a threshold, so that nobody has to look for it often
//! (follows `threshold_notifier_linux.go`; on cgroups version 2, where upstream only looks, by the pressure on memory).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::decide::Observations;
use super::threshold::{Signal, Threshold};

/// A stall of any task on memory for this long within the window is told, in microseconds. A window of two seconds is
/// the least that needs no privilege.
const PRESSURE_TRIGGER: &str = "some 100000 2000000";

/// The memory of one cgroup.
pub enum Notifier {
    /// Version 1: told when the use rises, or falls, past what was armed last.
    Usage { dir: PathBuf, armed: Option<AsyncFd<OwnedFd>> },
    /// Version 2.
    Pressure(AsyncFd<File>),
}

impl Notifier {
    /// Of a cgroup such as `/coxswain`, or of the whole machine where it is empty.
    pub fn of(cgroup: &str) -> io::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory").join(cgroup.trim_start_matches('/'));
        if v1.join("cgroup.event_control").exists() {
            return Ok(Notifier::Usage { dir: v1, armed: None });
        }
        let path = match cgroup {
            "" => PathBuf::from("/proc/pressure/memory"),
            _ => Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')).join("memory.pressure"),
        };
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.write_all(PRESSURE_TRIGGER.as_bytes())?;
        // SAFETY: the file owns its descriptor, which never changes while it lives.
        Ok(Notifier::Pressure(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?))
    }

    /// Has it told when `headroom` more bytes are used; nothing is told of what is short already.
    pub fn arm(&mut self, headroom: Option<i64>) -> io::Result<()> {
        let Notifier::Usage { dir, armed } = self else { return Ok(()) };
        *armed = match headroom {
            None => None,
            Some(headroom) => Some(watch_usage(dir, headroom)?),
        };
        Ok(())
    }

    /// Returns when there is reason to look.
    pub async fn heard(&self) -> io::Result<()> {
        match self {
            Notifier::Usage { armed: None, .. } => std::future::pending().await,
            Notifier::Usage { armed: Some(event), .. } => event.readable().await.map(drop),
            Notifier::Pressure(trigger) => {
                trigger.ready(Interest::PRIORITY).await?.clear_ready();
                Ok(())
            }
        }
    }
}

/// Readable once the cgroup's use has passed what it is now and `headroom` more.
fn watch_usage(dir: &Path, headroom: i64) -> io::Result<AsyncFd<OwnedFd>> {
    let usage = dir.join("memory.usage_in_bytes");
    let used: i64 = fs::read_to_string(&usage)?.trim().parse().map_err(io::Error::other)?;
    let event = OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let usage = File::open(usage)?;
    let row = format!("{} {} {}", event.as_raw_fd(), usage.as_raw_fd(), used.saturating_add(headroom));
    fs::write(dir.join("cgroup.event_control"), row)?;
    // SAFETY: the event owns its descriptor, which never changes while it lives.
    Ok(unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) }?)
}

/// How much more may be used of what a signal measures until the next threshold is met. Pure.
pub fn headroom(thresholds: &[Threshold], observations: &Observations, signal: Signal) -> Option<i64> {
    let observed = observations.get(&signal)?;
    let of_signal = thresholds.iter().filter(|threshold| threshold.signal == signal);
    let left =
        of_signal.map(|threshold| observed.available.saturating_sub(threshold.amount.of(observed.capacity)));
    left.filter(|left| *left > 0).min()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use runtime::Cgroups;

    use super::*;
    use crate::eviction::decide::Observation;
    use crate::eviction::threshold::Amount;

    #[test]
    fn the_next_threshold_is_the_one_that_is_met_first() {
        let threshold = |amount| Threshold {
            signal: Signal::MemoryAvailable,
            amount: Amount::Units(amount),
            grace_period: None,
            minimum_reclaim: None,
        };
        let thresholds = [threshold(100), threshold(300), threshold(900)];
        let check = |available, expect| {
            let observed = Observation { available, capacity: 1000 };
            let observations = [(Signal::MemoryAvailable, observed)].into();
            assert_eq!(headroom(&thresholds, &observations, Signal::MemoryAvailable), expect, "{available}");
        };
        check(1000, Some(100));
        check(500, Some(200));
        check(301, Some(1));
        check(200, Some(100));
        check(50, None);
        assert_eq!(headroom(&thresholds, &Observations::new(), Signal::MemoryAvailable), None);
    }

    /// A cgroup that goes with the test.
    struct Cgroup {
        path: String,
        /// Where its memory is counted and limited.
        memory: PathBuf,
        cgroups: Cgroups,
    }

    impl Cgroup {
        fn new() -> Self {
            let cgroups = Cgroups::detect().expect("cgroups");
            let path = format!("/eviction-notifier-{}", std::process::id());
            cgroups.create(&path).expect("makes a cgroup");
            let usage = if cgroups.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
            let dirs = cgroups.dirs(&path);
            let memory = dirs.into_iter().find(|dir| dir.join(usage).exists()).expect("memory is counted");
            Cgroup { path, memory, cgroups }
        }

        /// What the kernel is to tell of: a little more use, or little that may be used before one has to wait.
        fn arm(&self, notifier: &mut Notifier) {
            if self.cgroups.is_v2() {
                fs::write(self.memory.join("memory.high"), "1048576").expect("makes memory scarce");
            }
            notifier.arm(Some(20 << 20)).expect("arms");
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_when_memory_nears_what_was_armed_or_is_waited_for() {
        let cgroup = Cgroup::new();
        let mut notifier = Notifier::of(&cgroup.path).expect("a notifier");
        cgroup.arm(&mut notifier);
        let script = format!(
            "echo $$ > {}; head -c 40000000 /dev/zero | tail -c 40000000 | wc -c",
            cgroup.memory.join("cgroup.procs").display()
        );
        let mut hog = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().expect("starts");
        notifier.heard().await.expect("it is told");
        notifier.arm(None).expect("disarms");
        cgroup.cgroups.kill_all(&cgroup.path);
        hog.wait().expect("ends");
        cgroup.cgroups.remove(&cgroup.path).await.expect("removes the cgroup");
    }
}
