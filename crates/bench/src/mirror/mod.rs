//! The mirror: one text of requests, played against two API servers side by side, whose answers must be the same.
//!
//! A script names no server, no uid and no version: what only a server can know is captured from its answers, and what may
//! differ by nature (times, uids, versions, addresses) is made the same before the comparison. What still differs is a bug
//! of one of the two, or stands in the list of explained differences with its reason.

mod body;
mod compare;
mod explained;
mod kinds;
mod normalize;
mod play;
mod script;

pub use compare::differences;
pub use explained::Explained;
pub use kinds::{Kind, parse as parse_kinds};
pub use play::Player;
pub use script::Script;
