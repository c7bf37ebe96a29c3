//! CSINode (follows `pkg/registry/storage/csinode`).

use crate::strategy::Strategy;

pub struct CSINode;

impl Strategy for CSINode {
    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
