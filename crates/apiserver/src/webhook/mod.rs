//! Admission by those outside: webhooks that may change what is written, and webhooks that may refuse it.
//!
//! `source` has the configurations as the store has them at this moment, `call` asks one webhook, `mutating` and
//! `validating` ask all that want to be asked.

mod call;
pub mod client;
pub mod connect;
pub mod metrics;
pub mod mutating;
mod source;
pub mod validating;

use admission::rules::Matched;
use admission::webhook::Webhook;
use apimachinery::{Status, Value};

use crate::admission_review::Review;

pub use source::Source;

/// In which form a webhook wants to see this request, if it does.
fn wants(review: &Review<'_>, hook: &Webhook, object: &Value) -> Result<Option<Matched>, Status> {
    let (attributes, world) = (&review.attributes, review.core);
    let Some(matched) = hook.wants(attributes, object, review.old, world)? else { return Ok(None) };
    if !hook.has_conditions() {
        return Ok(Some(matched));
    }
    let object = review.shown(&matched.kind, object)?;
    let old = review.shown(&matched.kind, review.old.unwrap_or(&Value::Null))?;
    let meets = hook.meets_conditions(attributes, &matched, &object, &old, world)?;
    Ok(meets.then_some(matched))
}
