//! StorageClass (follows `pkg/registry/storage/storageclass`).

use crate::strategy::Strategy;

pub struct StorageClass;

impl Strategy for StorageClass {}
