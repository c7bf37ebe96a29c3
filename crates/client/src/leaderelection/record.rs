//! What a Lease says of its holder, and what it is to say next. Decides only; follows `LeaderElector.tryAcquireOrRenew`.

use std::time::Duration;

use api::view::coordination::LeaseSpec;
use apimachinery::Value;
use jiff::Timestamp;
use serde::Deserialize as _;

use crate::error::{Error, Result};

/// By how much upstream's candidates lengthen their pauses at most (`JitterFactor`), in tenths.
const JITTER_TENTHS: u32 = 12;

/// A holder that gives up says so, and that its word holds no longer than this.
const RELEASED_SECONDS: i64 = 1;

/// How a lead is kept. The defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others believe in a holder that gives no sign.
    pub lease_duration: Duration,
    /// How long a holder tries to renew before it stops working.
    pub renew_deadline: Duration,
    /// The pause between two attempts.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error("the lease duration must be at least one second")]
    LeaseTooShort,
    #[error("the lease duration must be greater than the renew deadline")]
    LeaseWithinDeadline,
    #[error("the renew deadline must be greater than 1.2 times the retry period")]
    DeadlineWithinPeriod,
    #[error("the retry period must be greater than zero")]
    NoPeriod,
}

impl Timing {
    pub fn validate(self) -> std::result::Result<Timing, TimingError> {
        if self.retry_period.is_zero() {
            return Err(TimingError::NoPeriod);
        }
        if self.renew_deadline * 10 <= self.retry_period * JITTER_TENTHS {
            return Err(TimingError::DeadlineWithinPeriod);
        }
        if self.lease_duration <= self.renew_deadline {
            return Err(TimingError::LeaseWithinDeadline);
        }
        if self.lease_duration < Duration::from_secs(1) {
            return Err(TimingError::LeaseTooShort);
        }
        Ok(self)
    }

    /// What one request gets, so that a server that hangs leaves time for another attempt.
    pub(super) fn request_timeout(self) -> Duration {
        self.renew_deadline / 2
    }
}

/// What the Lease says now; nothing if it has just been thought of.
pub fn of(lease: &Value) -> Result<LeaseSpec> {
    let spec = Option::<LeaseSpec>::deserialize(&lease["spec"]);
    Ok(spec.map_err(|error| Error::Malformed(error.to_string()))?.unwrap_or_default())
}

/// How long the holder is believed to be there, after a sign of life: not at all if there is none, or it is oneself.
pub fn believed_for(spec: &LeaseSpec, identity: &str) -> Duration {
    match spec.holder_identity.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(holder) if holder == identity => Duration::ZERO,
        Some(_) => Duration::from_secs(
            spec.lease_duration_seconds.unwrap_or_default().try_into().unwrap_or_default(),
        ),
    }
}

/// What it says when `identity` holds it from now on, or still.
pub fn renewed(last: &LeaseSpec, identity: &str, duration: Duration, now: Timestamp) -> Result<Value> {
    let is_new_holder = last.holder_identity.as_deref() != Some(identity);
    let transitions = last.lease_transitions.unwrap_or_default();
    let is_first = last.acquire_time.is_none();
    encode(&LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(duration.as_secs().try_into().unwrap_or(i64::MAX)),
        acquire_time: if is_new_holder { Some(now) } else { last.acquire_time },
        renew_time: Some(now),
        lease_transitions: Some(if is_new_holder && !is_first { transitions + 1 } else { transitions }),
    })
}

/// What it says when its holder gives it up.
pub fn released(last: &LeaseSpec, now: Timestamp) -> Result<Value> {
    encode(&LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(RELEASED_SECONDS),
        acquire_time: Some(now),
        renew_time: Some(now),
        lease_transitions: last.lease_transitions,
    })
}

fn encode(spec: &LeaseSpec) -> Result<Value> {
    apimachinery::to_value(spec).map_err(|error| Error::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(NOW),
            renew_time: Some(NOW),
            lease_transitions: Some(3),
        }
    }

    fn check_renewed(last: &LeaseSpec, transitions: i64, acquired_second: i64) {
        let now = Timestamp::from_second(100).expect("a time");
        let lease = apimachinery::json!({"spec": renewed(last, "me", Duration::from_secs(15), now).expect("encodes")});
        let spec = of(&lease).expect("reads back");
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!(spec.lease_transitions, Some(transitions));
        assert_eq!(spec.acquire_time.expect("is set").as_second(), acquired_second);
        assert_eq!(spec.renew_time, Some(now));
    }

    #[test]
    fn who_takes_over_is_counted_and_who_renews_is_not() {
        check_renewed(&LeaseSpec::default(), 0, 100);
        check_renewed(&held_by("other"), 4, 100);
        check_renewed(&held_by("me"), 3, 0);
        let given_up = of(&apimachinery::json!({"spec": released(&held_by("other"), NOW).expect("encodes")}));
        check_renewed(&given_up.expect("reads back"), 4, 100);
    }

    #[test]
    fn a_holder_is_believed_for_as_long_as_it_said() {
        let seconds = Duration::from_secs;
        assert_eq!(believed_for(&held_by("other"), "me"), seconds(15));
        assert_eq!(believed_for(&held_by("me"), "me"), seconds(0));
        assert_eq!(believed_for(&held_by(""), "me"), seconds(0));
        assert_eq!(believed_for(&LeaseSpec::default(), "me"), seconds(0));
        assert_eq!(
            believed_for(&LeaseSpec { lease_duration_seconds: Some(-5), ..held_by("other") }, "me"),
            seconds(0)
        );
    }

    #[test]
    fn times_in_which_two_would_lead_are_refused() {
        let timing = |lease, renew, retry| {
            let [lease_duration, renew_deadline, retry_period] =
                [lease, renew, retry].map(Duration::from_secs);
            Timing { lease_duration, renew_deadline, retry_period }.validate().err()
        };
        assert_eq!(Timing::default().validate(), Ok(Timing::default()));
        assert_eq!(timing(15, 15, 2), Some(TimingError::LeaseWithinDeadline));
        assert_eq!(timing(15, 10, 9), Some(TimingError::DeadlineWithinPeriod));
        assert_eq!(timing(15, 10, 0), Some(TimingError::NoPeriod));
    }
}
