//! The way of components that live in the same process: the same requests through the same pipeline, without socket,
//! TLS or credentials, under an identity fixed beforehand.

use std::sync::Arc;

use auth::UserInfo;
use bytes::Bytes;
use client::transport::{ResponseFuture, Transport};
use http::Request;

use crate::body;
use crate::core::Core;
use crate::pipeline::{self, Peer};

pub struct InProcess {
    core: Arc<Core>,
    peer: Peer,
}

impl InProcess {
    pub fn new(core: Arc<Core>, user: UserInfo) -> InProcess {
        InProcess { core, peer: Peer::Component(user) }
    }
}

impl Transport for InProcess {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            Ok(pipeline::handle(self.core.clone(), request.map(body::full), self.peer.clone()).await)
        })
    }
}
