//! The server's requests to itself: through the same pipeline as everybody's, under upstream's name for it.

use std::sync::Arc;

use api::Resource;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value};
use auth::UserInfo;
use auth::user::MASTERS;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};

use crate::body;
use crate::core::Core;
use crate::draft::to_json;
use crate::pipeline::{self, Peer};

/// Upstream's name for the server's requests to itself.
const LOOPBACK_USER: &str = "system:apiserver";
/// An answer longer than this is none of those expected here.
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub async fn create(core: &Arc<Core>, resource: Resource, object: &Value) -> Result<(), Status> {
    let namespace = str_at(object, &["metadata", "namespace"]);
    send(core, Method::POST, &resource.collection_path(namespace), object).await
}

pub async fn update(core: &Arc<Core>, resource: Resource, object: &Value) -> Result<(), Status> {
    send(core, Method::PUT, &path(resource, object), object).await
}

pub async fn update_status(core: &Arc<Core>, resource: Resource, object: &Value) -> Result<(), Status> {
    send(core, Method::PUT, &format!("{}/status", path(resource, object)), object).await
}

pub async fn delete(core: &Arc<Core>, resource: Resource, object: &Value) -> Result<(), Status> {
    send(core, Method::DELETE, &path(resource, object), &Value::Null).await
}

fn path(resource: Resource, object: &Value) -> String {
    resource.path(str_at(object, &["metadata", "namespace"]), str_at(object, &["metadata", "name"]))
}

async fn send(core: &Arc<Core>, method: Method, path: &str, object: &Value) -> Result<(), Status> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "kube-apiserver")
        .body(if object.is_null() { body::empty() } else { body::full(to_json(object)) })
        .map_err(Status::internal)?;
    let peer = Peer::Component(UserInfo::new(LOOPBACK_USER, [MASTERS]));
    // Boxed, since the pipeline's future is large and every part of the server's start would contain it.
    let response = Box::pin(pipeline::handle(core.clone(), request, peer)).await;
    if response.status().is_success() {
        return Ok(());
    }
    let answer = body::read_at_most(response.into_body(), ANSWER_BYTES_MAX).await?;
    Err(serde_json::from_slice(&answer).unwrap_or_else(Status::internal))
}
