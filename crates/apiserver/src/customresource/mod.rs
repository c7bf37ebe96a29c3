//! Custom resources: the kinds that CustomResourceDefinitions make at run time, served by the one pipeline.
//!
//! `registry` finds the kinds of a definition as the store has it, `version` has the rules of one of its versions, `form`
//! brings bodies into form, `conversion` leads from version to version, `settle` says which names a definition gets, and
//! `lifecycle` does what follows a definition's change later on.

mod conversion;
mod form;
mod kind;
mod lifecycle;
mod registry;
mod settle;
mod version;
mod webhook;

pub use conversion::{current, draft_of, shown, shown_entries};
pub use form::{Body, decoded, defaulted, settled};
pub use kind::CustomKind;
pub use lifecycle::run;
pub use registry::{Registered, Registry};
pub use settle::{add_finalizer, definition_written, is_definition, mark_terminating, settle_definition};
