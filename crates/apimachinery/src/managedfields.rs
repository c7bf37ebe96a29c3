//! Server-side apply and the tracking of who manages which field (follows `k8s.io/apimachinery/pkg/util/managedfields`
//! and structured-merge-diff).
//!
//! Objects are JSON values walked along their schema: what is granular is compared, merged and owned part by part,
//! what is atomic as a whole. Sets of fields are trees that serialise as `FieldsV1`.

mod compare;
mod conflict;
mod element;
mod entry;
mod lay;
mod manager;
mod merge;
mod remove;
mod scale;
mod set;
mod typed;
mod versions;

pub use element::{Path, PathElement, Scalar};
pub use entry::{DecodeError, Entry, ManagedFields, Operation};
pub use manager::{FieldManager, reset_fields, reset_fields_and_metadata, reset_fields_of_custom};
pub use scale::{SCALE_VERSION, ScaleHandler};
pub use set::Set;
pub use versions::{OneVersion, Versions};

#[cfg(test)]
mod tests;
