//! Role-based access control: which rules a user has, and whether they allow a request or cover a grant.

mod escalation;
mod index;
mod rule;

pub use escalation::uncovered;
pub use index::RbacIndex;
pub use rule::{PolicyRule, Word};
