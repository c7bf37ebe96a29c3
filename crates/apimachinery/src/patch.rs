//! The three patch types besides server-side apply: JSON patch, JSON merge patch, strategic merge patch.

mod json;
mod merge;
mod strategic;

pub use json::{OPERATIONS_MAX, json_patch, undecodable};
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;
