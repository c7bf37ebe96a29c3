//! `/openapi/v2` and `/openapi/v3`, written from the catalogue, the schema and the definitions in the store when asked for.
//! Version 2 holds what extension servers say of themselves as well; of version 3 they are asked themselves. Only the hashes of the built-in kinds' version 3 documents are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::catalogue::Kind;
use apiextensions::typed::Typed;
use apimachinery::openapi::{self, Foreign, Resource, Subresource, V2_PROTOBUF};
use apimachinery::{GroupVersion, Status};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, LOCATION, VARY};
use http::{HeaderValue, Response, StatusCode};

use crate::aggregation;
use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::customresource::CustomKind;
use crate::negotiation::{Alternative, accept, alternatives};
use crate::nonresource::{cacheable, page_not_found, tagged, text};
use crate::pipeline::Payload;
use apimachinery::version::GIT_VERSION;

pub async fn serve(call: &Call, path: &[&str]) -> Result<Response<Body>, Status> {
    if let ["v3", "apis", group, version] = path
        && let Some(route) =
            call.core.aggregator.route(&call.core.store, &GroupVersion::new(*group, *version)).await
    {
        let uri = call.info.path.parse().map_err(|_| Status::path_not_found())?;
        let payload = Payload { body: body::empty(), upgrade: None };
        return aggregation::serve(call, payload, &uri, route).await;
    }
    match path {
        ["v2"] => v2(call),
        ["v3"] => {
            let hashes = all_hashes(&call.core);
            let index = openapi::v3_index(hashes.iter().map(|(version, hash)| (version, hash.as_str())));
            let mut response = text("text/plain; charset=utf-8", index.to_string())?;
            response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            Ok(response)
        }
        ["v3", "api", version] => v3(call, &GroupVersion::new("", *version)),
        ["v3", "apis", group, version] => v3(call, &GroupVersion::new(*group, *version)),
        ["v3", ..] => Ok(bare(StatusCode::NOT_FOUND)),
        _ => page_not_found(),
    }
}

fn v2(call: &Call) -> Result<Response<Body>, Status> {
    let wants = alternatives(accept(&call.headers).unwrap_or("*/*"));
    let takes = |wanted: &Alternative<'_>| match wanted.essence {
        essence if V2_PROTOBUF.contains(&essence) => Some(V2_PROTOBUF[0]),
        "application/json" | "application/*" | "*/*" => Some("application/json"),
        _ => None,
    };
    let Some(content_type) = wants.iter().find_map(takes) else {
        return v2_headers(bare(StatusCode::NOT_ACCEPTABLE));
    };
    let custom: Vec<Published> = served(&call.core).map(Published::new).collect();
    let mut resources: Vec<Resource<'_>> = call.core.built_in().map(describe).collect();
    resources.extend(custom.iter().map(Published::describe));
    let discovered = call.core.aggregator.discovered.read().clone();
    let others: Vec<&Foreign> = discovered.values().filter_map(|remote| remote.open_api()).collect();
    let mut document = Vec::new();
    if content_type == V2_PROTOBUF[0] {
        // The older spelling is asked for but is no valid media type, so that no client could read it in the answer.
        document = openapi::v2_protobuf(api::schema(), &resources, &others, GIT_VERSION);
    } else {
        openapi::v2(api::schema(), &resources, &others, GIT_VERSION, &mut document)
            .map_err(Status::internal)?;
    }
    v2_headers(cacheable(call, content_type, document)?)
}

/// An answer without any text.
fn bare(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = code;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Caches are told that the document's form is negotiated in two ways.
fn v2_headers(mut response: Response<Body>) -> Result<Response<Body>, Status> {
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// The document of a group version. Under the address that its index gives it is the same for ever; who asks under an
/// older one is sent on.
fn v3(call: &Call, group_version: &GroupVersion) -> Result<Response<Body>, Status> {
    let custom: Vec<Arc<CustomKind>> = served(&call.core).filter(|kind| is_of(kind, group_version)).collect();
    let hash = custom_hash(&custom);
    let Some(document) = v3_document(&call.core, group_version, custom)? else {
        return Ok(bare(StatusCode::NOT_FOUND));
    };
    let hash = hash.unwrap_or_else(|| openapi::hash(&document));
    let asked = call.query.text("hash");
    let mut response = tagged(call, "application/json", &hash, document.into())?;
    if asked == hash {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    } else if !asked.is_empty() {
        let location = format!("{}?hash={hash}", call.info.path);
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        *response.body_mut() = body::empty();
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).map_err(Status::internal)?);
    }
    Ok(response)
}

/// None when the group version is not served.
fn v3_document(
    core: &Core,
    group_version: &GroupVersion,
    custom: Vec<Arc<CustomKind>>,
) -> Result<Option<Vec<u8>>, Status> {
    let custom: Vec<Published> = custom.into_iter().map(Published::new).collect();
    let mut resources: Vec<Resource<'_>> =
        core.built_in().map(describe).filter(|r| r.group_version() == *group_version).collect();
    resources.extend(custom.iter().map(Published::describe));
    if resources.is_empty() {
        return Ok(None);
    }
    let mut document = Vec::new();
    openapi::v3(api::schema(), &resources, GIT_VERSION, &mut document).map_err(Status::internal)?;
    Ok(Some(document))
}

/// The custom kinds that can be asked for.
fn served(core: &Core) -> impl Iterator<Item = Arc<CustomKind>> {
    let definitions = core.customresources.all(&core.store);
    definitions.into_iter().flat_map(|definition| definition.served().cloned().collect::<Vec<_>>())
}

fn is_of(kind: &CustomKind, group_version: &GroupVersion) -> bool {
    kind.kind.resource.group == group_version.group && kind.kind.resource.version == group_version.version
}

/// Tells a document with custom kinds from what it was before, without writing it; none without such kinds.
fn custom_hash(kinds: &[Arc<CustomKind>]) -> Option<String> {
    let states: Vec<String> =
        kinds.iter().map(|kind| format!("{}@{}", kind.shared.name, kind.shared.since)).collect();
    (!states.is_empty()).then(|| openapi::hash(format!("{GIT_VERSION} {}", states.join(" ")).as_bytes()))
}

fn all_hashes(core: &Core) -> BTreeMap<GroupVersion, String> {
    let mut hashes: BTreeMap<GroupVersion, String> =
        core.open_api_hashes.get_or_init(|| hashes(core)).iter().cloned().collect();
    let mut custom: BTreeMap<GroupVersion, Vec<Arc<CustomKind>>> = BTreeMap::new();
    for kind in served(core) {
        custom.entry(kind.kind.resource.gvr().group_version()).or_default().push(kind);
    }
    for (version, remote) in core.aggregator.discovered.read().iter() {
        if let Some(hash) = &remote.open_api.hash {
            hashes.insert(version.clone(), hash.clone());
        }
    }
    hashes.extend(custom.into_iter().filter_map(|(version, kinds)| Some((version, custom_hash(&kinds)?))));
    hashes
}

fn hashes(core: &Core) -> Vec<(GroupVersion, String)> {
    let mut versions: Vec<GroupVersion> =
        core.built_in().map(|kind| kind.resource.gvr().group_version()).collect();
    versions.sort();
    versions.dedup();
    let hashed = versions.into_iter().filter_map(|version| {
        let document = v3_document(core, &version, Vec::new()).ok()??;
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

/// A custom kind with the types that its documents refer to, which last as long as the documents are written.
struct Published {
    kind: Arc<CustomKind>,
    typed: Typed,
}

impl Published {
    fn new(kind: Arc<CustomKind>) -> Published {
        let row = &kind.kind;
        let gvk = row.resource.gvk();
        let definitions = apiextensions::openapi::definitions(&kind.version.open_api_schema(), &gvk);
        let typed = Typed::published(row.type_name, &gvk, row.list_kind, definitions, api::schema());
        Published { kind, typed }
    }

    fn describe(&self) -> Resource<'_> {
        let row = &self.kind.kind;
        let subresources = row.subresources.iter().map(|sub| Subresource {
            name: sub.name,
            group: sub.group,
            version: sub.version,
            kind: sub.kind,
            ty: self.typed.schema.lookup(sub.type_name),
            verbs: sub.verbs,
        });
        Resource {
            schema: &self.typed.schema,
            group: row.resource.group,
            version: row.resource.version,
            kind: row.resource.kind,
            plural: row.resource.plural,
            namespaced: row.resource.namespaced,
            verbs: row.verbs,
            ty: self.typed.root,
            list: Some(self.typed.list),
            subresources: subresources.collect(),
        }
    }
}
