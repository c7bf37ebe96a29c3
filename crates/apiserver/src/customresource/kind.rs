//! One version of a custom kind.

use api::catalogue::Kind;

/// A row made at run time, with what only custom kinds need.
#[derive(Debug)]
pub struct CustomKind {
    pub kind: Kind,
}
