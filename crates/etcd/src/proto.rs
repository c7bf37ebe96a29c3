//! The messages, as `build.rs` makes them, and short ways to write the ones in use.

#![allow(clippy::all, reason = "generated")]

use bytes::Bytes;

tonic::include_proto!("etcdserverpb");

impl Compare {
    /// Whether the key was last written at this revision; 0 is a key that is not there.
    pub fn mod_revision_is(key: Bytes, revision: i64) -> Compare {
        Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Mod.into(),
            key,
            target_union: Some(compare::TargetUnion::ModRevision(revision)),
        }
    }

    /// Whether the key was written this often since it was created; 0 is a key that is not there.
    pub fn version_is(key: Bytes, version: i64) -> Compare {
        Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Version.into(),
            key,
            target_union: Some(compare::TargetUnion::Version(version)),
        }
    }

    /// Whether the key is there.
    pub fn exists(key: Bytes) -> Compare {
        Compare { result: compare::CompareResult::Greater.into(), ..Compare::version_is(key, 0) }
    }
}

impl RequestOp {
    pub fn get(key: Bytes) -> RequestOp {
        let range = RangeRequest { key, ..RangeRequest::default() };
        RequestOp { request: Some(request_op::Request::RequestRange(range)) }
    }

    pub fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
        RequestOp { request: Some(request_op::Request::RequestPut(PutRequest { key, value, lease })) }
    }

    pub fn delete(key: Bytes) -> RequestOp {
        let delete = DeleteRangeRequest { key, range_end: Bytes::new() };
        RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
    }
}

impl TxnResponse {
    /// The key that a single get in the transaction found.
    pub fn found(&self) -> Option<&KeyValue> {
        match self.responses.first()?.response.as_ref()? {
            response_op::Response::ResponseRange(range) => range.kvs.first(),
            _ => None,
        }
    }
}
