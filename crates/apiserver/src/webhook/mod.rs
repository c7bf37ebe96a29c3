//! Admission by those outside: webhooks that may change what is written, and webhooks that may refuse it.
//!
//! `source` has the configurations as the store has them at this moment, `form` shows objects in the version a webhook
//! asked for, `call` asks one webhook, `mutating` and `validating` ask all that want to be asked.

mod call;
pub mod client;
pub mod connect;
mod form;
pub mod metrics;
pub mod mutating;
mod source;
pub mod validating;

use admission::Notes;
use admission::rules::{Attributes, Matched};
use admission::webhook::Webhook;
use apimachinery::{Status, Value};

use crate::core::Core;
use crate::write::Place;

pub use source::Source;

/// A request as it is put to those outside.
pub struct Review<'a> {
    pub core: &'a Core,
    pub place: &'a Place,
    pub attributes: Attributes,
    /// The stored object, as the request's kind is judged.
    pub old: Option<&'a Value>,
    pub notes: &'a Notes,
}

/// In which form a webhook wants to see this request, if it does.
fn wants(review: &Review<'_>, hook: &Webhook, object: &Value) -> Result<Option<Matched>, Status> {
    hook.wants(&review.attributes, object, review.old, review.core)
}
