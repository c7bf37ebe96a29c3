//! The three patch types besides server-side apply: JSON patch, JSON merge patch, strategic merge patch.

mod json;
mod merge;
pub(crate) mod shown;
mod strategic;

pub use json::{JsonPatchError, OPERATIONS_MAX, json_patch, json_patch_operations, undecodable};
pub use merge::merge_patch;
pub use shown::go_value;
pub use strategic::strategic_merge_patch;
