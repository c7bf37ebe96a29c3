//! CSIStorageCapacity (follows `pkg/registry/storage/csistoragecapacity`).

use crate::strategy::Strategy;

pub struct CSIStorageCapacity;

impl Strategy for CSIStorageCapacity {
    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
