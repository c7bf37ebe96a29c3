//! `/openapi/v2` and `/openapi/v3`, written from the catalogue and the schema when asked for. Only the hashes of the
//! version 3 documents are kept.

use std::sync::OnceLock;

use api::catalogue::{CATALOGUE, Kind};
use apimachinery::openapi::{self, Resource, Subresource, V2_PROTOBUF};
use apimachinery::{GroupVersion, Status};
use http::header::ETAG;
use http::{HeaderValue, Response};

use crate::body::Body;
use crate::call::Call;
use crate::negotiation::{accept, alternatives};
use crate::nonresource::text;
use apimachinery::version::GIT_VERSION;

/// The URL and the document's hash of every group version.
static HASHES: OnceLock<Vec<(GroupVersion, String)>> = OnceLock::new();

pub fn serve(call: &Call, path: &[&str]) -> Result<Response<Body>, Status> {
    match path {
        ["v2"] => v2(call),
        ["v3"] => {
            let hashes = HASHES.get_or_init(hashes);
            let index = openapi::v3_index(hashes.iter().map(|(version, hash)| (version, hash.as_str())));
            text("application/json", index.to_string())
        }
        ["v3", "api", version] => v3(&GroupVersion::new("", *version)),
        ["v3", "apis", group, version] => v3(&GroupVersion::new(*group, *version)),
        _ => Err(Status::path_not_found()),
    }
}

fn v2(call: &Call) -> Result<Response<Body>, Status> {
    let resources: Vec<Resource<'_>> = CATALOGUE.iter().map(describe).collect();
    let wants = alternatives(accept(&call.headers).unwrap_or_default());
    if wants.first().is_some_and(|first| V2_PROTOBUF.contains(&first.essence)) {
        // The older spelling is asked for but is no valid media type, so that no client could read it in the answer.
        return text(V2_PROTOBUF[0], openapi::v2_protobuf(api::schema(), &resources, GIT_VERSION));
    }
    let mut document = Vec::new();
    openapi::v2(api::schema(), &resources, GIT_VERSION, &mut document).map_err(Status::internal)?;
    text("application/json", document)
}

fn v3(group_version: &GroupVersion) -> Result<Response<Body>, Status> {
    let document = v3_document(group_version)?.ok_or_else(Status::path_not_found)?;
    let etag = format!("\"{}\"", openapi::hash(&document));
    let mut response = text("application/json", document)?;
    response.headers_mut().insert(ETAG, HeaderValue::from_str(&etag).map_err(Status::internal)?);
    Ok(response)
}

/// None when the group version is not served.
fn v3_document(group_version: &GroupVersion) -> Result<Option<Vec<u8>>, Status> {
    let resources: Vec<Resource<'_>> =
        CATALOGUE.iter().map(describe).filter(|r| r.group_version() == *group_version).collect();
    if resources.is_empty() {
        return Ok(None);
    }
    let mut document = Vec::new();
    openapi::v3(api::schema(), &resources, GIT_VERSION, &mut document).map_err(Status::internal)?;
    Ok(Some(document))
}

fn hashes() -> Vec<(GroupVersion, String)> {
    let mut versions: Vec<GroupVersion> =
        CATALOGUE.iter().map(|kind| kind.resource.gvr().group_version()).collect();
    versions.sort();
    versions.dedup();
    let hashed = versions.into_iter().filter_map(|version| {
        let document = v3_document(&version).ok()??;
        let hash = openapi::hash(&document);
        Some((version, hash))
    });
    hashed.collect()
}

/// A row of the catalogue, as documents describe it.
fn describe(kind: &'static Kind) -> Resource<'static> {
    let schema = api::schema();
    let subresources = kind.subresources.iter().map(|sub| Subresource {
        name: sub.name,
        group: sub.group,
        version: sub.version,
        kind: sub.kind,
        ty: schema.lookup(sub.type_name).filter(|_| !sub.kind.ends_with("Options")),
        verbs: sub.verbs,
    });
    Resource {
        schema,
        group: kind.resource.group,
        version: kind.resource.version,
        kind: kind.resource.kind,
        plural: kind.resource.plural,
        namespaced: kind.resource.namespaced,
        verbs: kind.verbs,
        ty: api::schema::type_id(kind.type_name),
        list: schema.lookup(&format!("{}List", kind.type_name)).filter(|_| kind.supports("list")),
        subresources: subresources.collect(),
    }
}
