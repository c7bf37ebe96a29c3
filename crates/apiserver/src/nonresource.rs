//! Paths that are not resources: health, version, discovery, OpenAPI, metrics, and the list of all of these.

use apimachinery::{Status, Value, json, openapi};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};

use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::discovery::Served;
use crate::metrics::Metrics;
use crate::negotiation::{Alternative, Format, Target, accept, alternatives};
use crate::wire::Document;
use crate::{debug, health, version};

/// Where the keys of service account tokens are published.
const JWKS_PATH: &str = "/openid/v1/jwks";

/// The text form of Prometheus.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The form in which all groups, versions and resources come at once.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// `body` is what a request that sets something brings.
pub async fn serve(call: &mut Call, body: Body) -> Result<Response<Body>, Status> {
    let path = call.info.path.clone();
    if path.contains("//") {
        return page_not_found();
    }
    if let Some(page) = call.core.pages.at(&path) {
        let paths = paths(&call.core);
        let paths = paths.iter().map(String::as_str);
        return Ok(uncached(call.core.pages.answer(page, paths, &call.headers, call.now)));
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    if path.ends_with('/') && !takes_slash(&segments) {
        return match segments.as_slice() {
            ["openapi", "v3", ..] => crate::openapi::serve(call, &["v3", ""]).await,
            _ => page_not_found(),
        };
    }
    let answer = page(call, &segments, body).await?;
    if is_document(&segments) && call.method != Method::GET && answer.status() != StatusCode::NOT_FOUND {
        return Err(Status::no_such_method());
    }
    Ok(answer)
}

/// What upstream serves as it serves resources: to be read by GET alone, with a slash at its end or without.
fn is_document(segments: &[&str]) -> bool {
    matches!(
        segments,
        ["api"] | ["api", _] | ["apis", _, _] | ["version"] | [".well-known", _] | ["openid", ..]
    )
}

/// Whether a path may end with a slash.
fn takes_slash(segments: &[&str]) -> bool {
    matches!(segments, [] | ["apis"] | ["apis", _] | ["debug", ..]) || is_document(segments)
}

/// What there is at a path; all methods but those of [`is_document`] are as good as GET.
async fn page(call: &mut Call, segments: &[&str], body: Body) -> Result<Response<Body>, Status> {
    match segments {
        [] | ["index.html"] => text("application/json", indented(&json!({"paths": paths(&call.core)}))),
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => health::serve(call, check, rest).await,
        ["version"] => text("application/json", indented(&version::version())),
        ["metrics"] => {
            let core = &call.core;
            let audit = core.config.auditor.as_ref().map(|auditor| auditor.render()).unwrap_or_default();
            let parts = [
                Metrics::render(core, call.now),
                core.admission_metrics.render(),
                core.flow_control.render(),
                core.config.features.render(),
                audit,
            ];
            let mut page = parts.concat();
            core.config.components.iter().for_each(|component| component.write(&mut page));
            text(METRICS_CONTENT_TYPE, page)
        }
        ["metrics", "slis"] => text(METRICS_CONTENT_TYPE, call.core.health.render(call.now)),
        ["debug", ..]
            if !matches!(call.info.verb, "get" | "head") && !debug::takes(&call.info.path, &call.method) =>
        {
            Err(Status::no_such_method())
        }
        ["debug", rest @ ..] => debug::serve(call, rest, body).await,
        ["api"] => group_document(call, true),
        ["apis"] => group_document(call, false),
        ["api", version] => resource_list(call, "", version),
        ["apis", group] => match Served::new(&call.core).group(group) {
            Some(group) => document(call, "APIGroup", &group),
            None => page_not_found(),
        },
        ["apis", group, version] => resource_list(call, group, version),
        [".well-known", "openid-configuration"] => {
            let jwks = format!("https://{}{JWKS_PATH}", call.core.config.advertise);
            let document = call.core.authenticator.issuer().openid_configuration(&jwks);
            keys(call, "application/json", &document)
        }
        ["openid", "v1", "jwks"] => {
            keys(call, "application/jwk-set+json", &call.core.authenticator.issuer().jwks())
        }
        ["openapi", rest @ ..] => crate::openapi::serve(call, rest).await,
        _ => page_not_found(),
    }
}

/// What relying parties may keep for a while (upstream: `cacheControl` of `OpenIDMetadataServer`).
fn keys(call: &Call, content_type: &str, document: &Value) -> Result<Response<Body>, Status> {
    let produced = Some(content_type);
    let takes = |wanted: &Alternative<'_>| {
        matches!(wanted.essence, "*/*" | "application/*") || Some(wanted.essence) == produced
    };
    if !alternatives(accept(&call.headers).unwrap_or("*/*")).iter().any(takes) {
        return Err(Status::no_representation(content_type));
    }
    let mut response = text(content_type, document.to_string())?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

fn resource_list(call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let served = Served::new(&call.core);
    match served.resource_list(group, version) {
        Some(list) => document(call, "APIResourceList", &list),
        None if served.versions(group).is_empty() => page_not_found(),
        None => Err(Status::path_not_found()),
    }
}

/// What is said of a path that leads nowhere, rather than to a resource that is not there.
pub fn page_not_found() -> Result<Response<Body>, Status> {
    let mut response = text("text/plain; charset=utf-8", "404 page not found\n")?;
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// As upstream writes what is not an object of a kind.
fn indented(document: &Value) -> String {
    format!("{document:#}")
}

/// `/api` and `/apis`: everything at once for clients that ask for it, else what leads to the rest.
fn group_document(call: &Call, core: bool) -> Result<Response<Body>, Status> {
    if wants_aggregated(call) {
        let document = call.core.discovery.aggregated(&call.core, core);
        let mut response = tagged(call, AGGREGATED, &document.tag, document.bytes)?;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        return Ok(response);
    }
    let (served, formats) = (Served::new(&call.core), call.core.config.formats);
    Target::negotiate(&call.headers, formats).map_err(|_| Status::not_acceptable(&formats.supported()))?;
    if core {
        let address = call.core.config.advertise.to_string();
        return document(call, "APIVersions", &served.api_versions(&address));
    }
    document(call, "APIGroupList", &served.group_list())
}

/// Whether the client prefers aggregated discovery to anything else.
fn wants_aggregated(call: &Call) -> bool {
    let alternatives = alternatives(accept(&call.headers).unwrap_or_default());
    let decides = alternatives.iter().find_map(|wanted| match (wanted.essence, wanted.parameter("as")) {
        ("application/json", Some("APIGroupDiscoveryList")) => {
            let is_ours =
                (wanted.parameter("g"), wanted.parameter("v")) == (Some("apidiscovery.k8s.io"), Some("v2"));
            is_ours.then_some(true)
        }
        ("application/json" | "*/*" | "application/*", None) => Some(false),
        _ => None,
    });
    decides.unwrap_or_default()
}

/// A document that clients keep, and ask for again only if it has changed.
pub fn cacheable(
    call: &Call,
    content_type: &str,
    document: impl Into<Bytes>,
) -> Result<Response<Body>, Status> {
    let document = document.into();
    let tag = openapi::hash(&document);
    tagged(call, content_type, &tag, document)
}

/// As [`cacheable`], of a document that a tag tells from what it was before.
pub fn tagged(call: &Call, content_type: &str, tag: &str, document: Bytes) -> Result<Response<Body>, Status> {
    let tag = format!("\"{tag}\"");
    let known = call.headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
    let is_known = known.split(',').any(|known| known.trim() == tag);
    let mut response = text(content_type, if is_known { Bytes::new() } else { document })?;
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    }
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(Status::internal)?);
    Ok(response)
}

fn document(call: &Call, kind: &str, value: &Value) -> Result<Response<Body>, Status> {
    Target::negotiate(&call.headers, call.core.config.formats)?;
    let document = Document::value(format!("{META}.{kind}"), value);
    call.respond(200, document).or_else(|_| {
        let json = Target { format: Format::Json, ..call.target };
        let pieces = crate::wire::render(json, Document::value("", value))?;
        let response = Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .body(body::full(crate::wire::join(&pieces)));
        response.map_err(Status::internal)
    })
}

pub fn text(content_type: &str, text: impl Into<bytes::Bytes>) -> Result<Response<Body>, Status> {
    Response::builder()
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-cache, private")
        .body(body::full(text))
        .map_err(Status::internal)
}

/// As the answer of a server of this crate, which nobody is to keep.
pub fn uncached(response: Response<Bytes>) -> Response<Body> {
    let mut response = response.map(body::full);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn paths(core: &Core) -> Vec<String> {
    let served = Served::new(core);
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    paths.extend(served.versions("").iter().map(|version| format!("/api/{}", version.name)));
    for group in served.groups() {
        paths.push(format!("/apis/{group}"));
        let versions = served.versions(group).iter();
        paths.extend(versions.map(|version| format!("/apis/{group}/{}", version.name)));
    }
    paths.extend(health::paths(core));
    paths.extend(core.pages.served().map(|page| page.path().to_owned()));
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            JWKS_PATH,
            "/version",
        ]
        .map(str::to_owned),
    );
    paths.sort();
    paths
}
