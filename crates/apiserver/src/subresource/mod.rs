//! What lies below an object: parts of it that are written on their own, other kinds that stand for it, and doors to
//! the node it lives on.

mod binding;
mod eviction;
mod proxy;
pub mod scale;
mod token;

pub use binding::bind;

use apimachinery::Status;
use http::{Method, Response, Uri};

use crate::body::{self, Body};
use crate::call::Call;
use crate::kind::KindRef;
use crate::part::Part;
use crate::pipeline::Payload;
use crate::{patch, resource};

pub async fn serve(
    call: &mut Call,
    kind: &KindRef,
    payload: Payload,
    uri: Uri,
) -> Result<Response<Body>, Status> {
    let sub = kind.subresource(&call.info.subresource).ok_or_else(|| match kind.custom() {
        Some(_) => Status::not_found(&kind.resource.group_resource(), &call.info.name),
        None => Status::path_not_found(),
    })?;
    // OPTIONS has no verb of its own, and is for what is proxied to answer.
    let is_for_another = sub.name == "proxy" && call.method == Method::OPTIONS;
    if !is_for_another && !sub.verbs.contains(&call.info.verb) {
        return Err(apimachinery::Status::no_such_method());
    }
    if let Some(part) = Part::of_subresource(sub.name) {
        return match call.info.verb {
            "get" => resource::get(call, kind).await,
            "patch" => patch::patch(call, kind, part, &body::read(payload.body).await?).await,
            _ => resource::replace(call, kind, part, &body::read(payload.body).await?).await,
        };
    }
    match sub.name {
        "scale" => scale::serve(call, kind, &body::read(payload.body).await?).await,
        "binding" => bind(call, &body::read(payload.body).await?).await,
        "eviction" => eviction::evict(call, kind, &body::read(payload.body).await?).await,
        "token" => token::request(call, kind, &body::read(payload.body).await?).await,
        _ => proxy::serve(call, kind, payload, uri).await,
    }
}
