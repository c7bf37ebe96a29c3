//! Keeps the certificates of a running cluster good: each is made anew before it ends and handed to whoever uses it, without
//! a restart.

use std::sync::Arc;
use std::time::Duration;

use client::CancellationToken;
use cluster::pki::{Identity, Leaf, Pki};
use jiff::Timestamp;

/// Timers stand still while a machine sleeps and know nothing of a clock that is set, so the clock is read this often.
const CLOCK_CHECK: Duration = Duration::from_secs(3600);
/// After a failure, such as a full disk.
const RETRY: Duration = Duration::from_secs(60);

type Replace = Box<dyn Fn(&Identity) -> anyhow::Result<()> + Send>;

struct Kept {
    pki: Arc<Pki>,
    leaf: Leaf,
    renew_at: Timestamp,
    replace: Replace,
}

impl Kept {
    fn renew(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let identity = self.pki.identity(&self.leaf, now)?;
        (self.replace)(&identity)?;
        self.renew_at = identity.renew_at().unwrap_or(now);
        tracing::info!(certificate = self.leaf.file, again = %self.renew_at, "renewed a certificate");
        Ok(())
    }
}

/// All that is kept good.
#[derive(Default)]
pub struct Keeper(Vec<Kept>);

impl Keeper {
    /// The identity as it is now. `replace` gets each that takes its place.
    pub fn keep(
        &mut self,
        pki: &Arc<Pki>,
        leaf: Leaf,
        now: Timestamp,
        replace: impl Fn(&Identity) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Identity> {
        let identity = pki.identity(&leaf, now)?;
        let renew_at = identity.renew_at().unwrap_or(now);
        self.0.push(Kept { pki: pki.clone(), leaf, renew_at, replace: Box::new(replace) });
        Ok(identity)
    }

    /// Renews what is due, and says how long to wait until something is again.
    fn turn(&mut self, now: Timestamp) -> Duration {
        let mut wait = CLOCK_CHECK;
        for kept in &mut self.0 {
            if now > kept.renew_at
                && let Err(error) = kept.renew(now)
            {
                let error = format!("{error:#}");
                tracing::error!(certificate = kept.leaf.file, error, "a certificate was not renewed");
                wait = wait.min(RETRY);
            }
            let left = Duration::try_from(kept.renew_at.duration_since(now)).unwrap_or_default();
            wait = if left.is_zero() { wait } else { wait.min(left + Duration::from_secs(1)) };
        }
        wait
    }

    pub async fn run(mut self, clock: impl Fn() -> Timestamp, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let wait = self.turn(clock());
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::SignedDuration;

    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    #[test]
    fn a_certificate_is_handed_over_when_it_is_due_and_not_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let start = Timestamp::now();
        let pki = Arc::new(Pki::open(dir.path(), "c", start).expect("an authority"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut keeper, told) = (Keeper::default(), seen.clone());
        let replace = move |identity: &Identity| {
            told.lock().expect("no panic").push(identity.clone());
            Ok(())
        };
        let leaf = Leaf::client("admin", "admin", &[]);
        let first = keeper.keep(&pki, leaf, start, replace).expect("is made");
        assert_eq!(keeper.turn(start), CLOCK_CHECK);
        let due = first.renew_at().expect("is a certificate");
        let minute = Duration::from_secs(60);
        assert_eq!(keeper.turn(due - SignedDuration::from_mins(1)), minute + Duration::from_secs(1));
        assert!(seen.lock().expect("no panic").is_empty());
        // The machine has slept for years.
        let woken = start + DAY * 730;
        keeper.turn(woken);
        keeper.turn(woken);
        let seen = seen.lock().expect("no panic");
        assert_eq!(seen.len(), 1);
        assert_ne!(seen[0], first);
        assert!(seen[0].renew_at() > Some(woken));
    }

    #[test]
    fn a_failure_is_tried_again_soon() {
        let dir = tempfile::tempdir().expect("a folder");
        let start = Timestamp::now();
        let pki = Arc::new(Pki::open(dir.path(), "c", start).expect("an authority"));
        let mut keeper = Keeper::default();
        let leaf = Leaf::client("admin", "admin", &[]);
        keeper.keep(&pki, leaf, start, |_| anyhow::bail!("no disk")).expect("is made");
        assert_eq!(keeper.turn(start + DAY * 365), RETRY);
    }
}
