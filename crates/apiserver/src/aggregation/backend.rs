//! A group version that a part of this process serves by itself, such as `metrics.k8s.io`.

use std::future::Future;
use std::pin::Pin;

use apimachinery::GroupVersion;
use auth::UserInfo;
use bytes::Bytes;
use client::Body;
use http::{Request, Response};

pub type BackendFuture<'a> = Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>;

/// Answers the HTTP requests for one group version in place of an extension server.
///
/// The API server has authenticated the user, has checked that they may do what they ask for, and has read the body
/// before a request comes here. The path is the whole one, `/apis/GROUP/VERSION/...`. `/apis/GROUP/VERSION` itself must
/// answer an `APIResourceList`: discovery is made from it. Answers are JSON, or whatever the backend agrees on with the
/// client's `Accept`. Register one by [`crate::ApiServer::serve_group`].
pub trait Backend: Send + Sync + 'static {
    fn handle(&self, user: &UserInfo, request: Request<Bytes>) -> BackendFuture<'_>;
}

/// What a [`Backend`] serves, and how it ranks among the groups and within its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupServed {
    pub group_version: GroupVersion,
    /// From 1 to 20,000; larger ones come first (upstream's metrics server asks for 100).
    pub group_priority_minimum: i64,
    /// From 1 to 1,000; larger ones come first.
    pub version_priority: i64,
}
