//! OpenAPI documents, generated from a schema and the resources that are served: version 3 per group version, version
//! 2 for all, as JSON or as the protobuf form older kubectl asks for. Follows kube-openapi's shapes and the
//! `x-kubernetes-*` extensions.
//!
//! A document is written straight to its output, piece by piece: nothing is kept, so nothing need be evicted. The
//! hash in a version 3 URL lets clients keep what they fetched.

mod definitions;
mod merge;
mod operations;
mod protobuf;
mod render;
mod v2;
mod v3;

pub use merge::Foreign;
pub use v2::{v2, v2_protobuf};
pub use v3::{v3, v3_index};

use crate::gvk::GroupVersion;
use crate::schema::{Schema, TypeId};

/// The media types of version 2 in protobuf: what kubectl asks for, and the older spelling.
pub const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// One resource as it is served in one version.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// Where `ty` and its like are defined.
    pub schema: &'a Schema,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub plural: &'a str,
    pub namespaced: bool,
    pub verbs: &'a [&'a str],
    pub ty: TypeId,
    /// None for resources that cannot be listed.
    pub list: Option<TypeId>,
    pub subresources: Vec<Subresource<'a>>,
}

/// A path below an object.
#[derive(Clone, Debug)]
pub struct Subresource<'a> {
    pub name: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// None for those that connect (exec, log, proxy) rather than exchange objects.
    pub ty: Option<TypeId>,
    pub verbs: &'a [&'a str],
}

impl Resource<'_> {
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group, self.version)
    }
}

/// The path of a group version in URLs and in the index: `api/v1`, `apis/apps/v1`.
pub fn path(group_version: &GroupVersion) -> String {
    if group_version.group.is_empty() {
        format!("api/{}", group_version.version)
    } else {
        format!("apis/{group_version}")
    }
}

/// The hash of a document, as the index has it and as a strong ETag.
pub fn hash(document: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA512, document);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
