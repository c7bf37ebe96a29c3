//! The group `storage.k8s.io` (follows `pkg/registry/storage` and `pkg/apis/storage`).

pub mod csidriver;
pub mod csinode;
pub mod csistoragecapacity;
pub mod storageclass;
pub mod volumeattachment;
pub mod volumeattributesclass;
