//! What an extension server says of itself: which resources it serves, and how its documents describe them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta::str_at;
use apimachinery::openapi::Foreign;
use apimachinery::{GroupVersion, Value};
use auth::UserInfo;
use auth::user::MASTERS;
use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::timeout;

use super::discovery::Described;
use super::proxy;
use super::route::{Route, Service};
use crate::core::Core;
use crate::{body, forward};

/// As whom extension servers are asked what they serve.
pub const USER: &str = "system:kube-aggregator";
/// An extension server answers its discovery within this time.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// One with many types writes its version 2 document within this time; its next check waits for that.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// A longer answer is no list of resources.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// All of upstream's own groups take less than a third of this.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

pub struct Answer {
    pub resources: Value,
    /// Of its version 3 document, if it has one.
    pub open_api_hash: Option<String>,
}

pub async fn ask(core: &Core, version: &GroupVersion) -> Result<Answer, String> {
    let service = service(core, version).await.ok_or("the APIService has changed")?;
    let path = format!("/apis/{}/{}", version.group, version.version);
    let resources = match timeout(CHECK_TIMEOUT, get(core, &service, &path)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(format!("timed out waiting for {path}")),
    };
    let index = timeout(CHECK_TIMEOUT, get(core, &service, "/openapi/v3")).await;
    let index = index.ok().and_then(Result::ok).unwrap_or_default();
    let url = str_at(&index, &["paths", path.trim_start_matches('/'), "serverRelativeURL"]);
    let open_api_hash = url.split_once("hash=").map(|(_, hash)| hash.to_owned());
    Ok(Answer { resources, open_api_hash })
}

/// What its version 2 document says; none when that is no other than what is known, or not to be had.
pub async fn describe(core: &Core, version: &GroupVersion, known: Option<&Described>) -> Option<Described> {
    let service = service(core, version).await?;
    let tag = known.and_then(|known| known.tag.clone());
    let download = fetch(core, &service, "/openapi/v2", tag, DOCUMENT_BYTES_MAX);
    let answer = timeout(DOCUMENT_TIMEOUT, download).await.ok()?.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    let tag = answer.headers().get(ETAG).cloned();
    match serde_json::from_slice::<Value>(answer.body()) {
        Ok(document) => Some(Described { tag, document: Foreign::of(&document, version) }),
        Err(error) => {
            tracing::warn!(%version, %error, "an extension server's OpenAPI document cannot be read");
            None
        }
    }
}

async fn service(core: &Core, version: &GroupVersion) -> Option<Arc<Service>> {
    match core.aggregator.route(&core.store, version).await? {
        Route::Service(service) => Some(service),
        Route::InProcess(_) => None,
    }
}

async fn get(core: &Core, service: &Service, path: &str) -> Result<Value, String> {
    let answer = fetch(core, service, path, None, ANSWER_BYTES_MAX).await?;
    let failed = |why: &dyn Display| format!("failing or missing response from {path}: {why}");
    serde_json::from_slice(answer.body()).map_err(|error| failed(&error))
}

/// An answer that went well; with a tag also that nothing has changed since.
async fn fetch(
    core: &Core,
    service: &Service,
    path: &str,
    tag: Option<HeaderValue>,
    bytes_max: usize,
) -> Result<Response<Bytes>, String> {
    let (address, sender) = proxy::connect(&core.store, service, 0).await?;
    let url = format!("https://{address}{path}");
    let failed = |why: &dyn Display| format!("failing or missing response from {url}: {why}");
    let mut request = proxy::get(address, path, "application/json", &UserInfo::new(USER, [MASTERS]))?;
    if let Some(tag) = &tag {
        request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
    }
    let response = forward::exchange(sender, (request, None)).await.map_err(|error| failed(&error))?;
    let is_unchanged = tag.is_some() && response.status() == StatusCode::NOT_MODIFIED;
    if !response.status().is_success() && !is_unchanged {
        let why = format!("bad status from {url}: {}", response.status().as_u16());
        return Err(failed(&why));
    }
    let (head, body) = response.into_parts();
    let bytes = body::read_at_most(body, bytes_max).await.map_err(|status| failed(&status.message))?;
    Ok(Response::from_parts(head, bytes))
}
