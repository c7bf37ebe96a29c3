//! Admission by policies: `source` has them and their bindings as the store has them at this moment, `kinds` finds
//! their parameters and shows objects as they want to see them. What they mean is `admission::policy`'s.

mod kinds;
mod source;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use admission::policy::{Check, Meter, mutating, validating};
use admission::rounds::Rounds;
use apimachinery::{Status, Value};

use crate::admission_review::Review;
use crate::core::Core;

pub use source::Source;

/// One round of MutatingAdmissionPolicies. Returns whether those who come after should be asked again.
pub fn mutate(review: &Review<'_>, object: &mut Value, rounds: &mut Rounds) -> Result<bool, Status> {
    let core = review.core;
    let (policies, bindings) = core.policies.mutating(&core.store);
    mutating::mutate(&as_asked(review), object, &policies, &bindings, rounds)
}

/// All ValidatingAdmissionPolicies.
pub fn validate(review: &Review<'_>, object: &Value) -> Result<(), Status> {
    let core = review.core;
    let (policies, bindings) = core.policies.validating(&core.store);
    validating::validate(&as_asked(review), object, &policies, &bindings)
}

impl Meter for Core {
    fn elapsed(&self) -> Duration {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGINNING.elapsed()
    }

    fn checked(&self, check: &Check<'_>) {
        self.metrics.policies.checked(check);
    }
}

fn as_asked<'a>(review: &'a Review<'a>) -> admission::policy::Review<'a> {
    admission::policy::Review {
        request: &review.attributes,
        old: review.old,
        world: review.core,
        kinds: review,
        notes: review.notes,
        meter: review.core,
    }
}
