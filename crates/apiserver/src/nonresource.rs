//! Paths that are not resources: health, version, discovery, OpenAPI, metrics, and the list of all of these.

use apimachinery::{Status, Value, json};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};

use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::discovery::Served;
use crate::negotiation::{Format, Target, accept, alternatives};
use crate::wire::Document;
use crate::{health, openapi, version};

/// Where the keys of service account tokens are published.
const JWKS_PATH: &str = "/openid/v1/jwks";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub async fn serve(call: &mut Call) -> Result<Response<Body>, Status> {
    if !matches!(call.info.verb, "get" | "head") {
        return Err(apimachinery::Status::no_such_method());
    }
    let path = call.info.path.clone();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    match segments.as_slice() {
        [] => text("application/json", json!({"paths": paths(&call.core)}).to_string()),
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => health::serve(call, check, rest),
        ["version"] => text("application/json", version::version().to_string()),
        ["metrics"] => {
            let core = &call.core;
            let audit = core.config.auditor.as_ref().map(|auditor| auditor.render()).unwrap_or_default();
            let parts = [
                core.metrics.render(&core.store.statistics()),
                core.admission_metrics.render(),
                core.flow_control.render(),
                core.config.features.render(),
                audit,
            ];
            text("text/plain; version=0.0.4", parts.concat())
        }
        ["debug", "api_priority_and_fairness", what] => {
            let details = !call.query.text("includeRequestDetails").is_empty();
            let dump = call.core.flow_control.dump(what, details).ok_or_else(Status::path_not_found)?;
            text("text/plain; charset=utf-8", dump)
        }
        ["api"] => group_document(call, true),
        ["apis"] => group_document(call, false),
        ["api", version] => resource_list(call, "", version),
        ["apis", group] => {
            let group = Served::new(&call.core).group(group).ok_or_else(Status::path_not_found)?;
            document(call, "APIGroup", &group)
        }
        ["apis", group, version] => resource_list(call, group, version),
        [".well-known", "openid-configuration"] => {
            let jwks = format!("https://{}{JWKS_PATH}", call.core.config.advertise);
            text("application/json", call.core.authenticator.issuer().openid_configuration(&jwks).to_string())
        }
        ["openid", "v1", "jwks"] => {
            text("application/jwk-set+json", call.core.authenticator.issuer().jwks().to_string())
        }
        ["openapi", rest @ ..] => openapi::serve(call, rest).await,
        _ => Err(Status::path_not_found()),
    }
}

fn resource_list(call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let list = Served::new(&call.core).resource_list(group, version).ok_or_else(Status::path_not_found)?;
    document(call, "APIResourceList", &list)
}

/// `/api` and `/apis`: everything at once for clients that ask for it, else what leads to the rest.
fn group_document(call: &Call, core: bool) -> Result<Response<Body>, Status> {
    if let Some(version) = aggregated_version(call) {
        let content_type =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        return text(&content_type, Served::new(&call.core).aggregated(core, version).to_string());
    }
    if core {
        let address = call.core.config.advertise.to_string();
        return document(call, "APIVersions", &Served::new(&call.core).api_versions(&address));
    }
    document(call, "APIGroupList", &Served::new(&call.core).group_list())
}

/// The version of aggregated discovery that the client prefers to anything else, if it does.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    for alternative in alternatives(accept(&call.headers)?) {
        match (alternative.essence, alternative.parameter("as")) {
            ("application/json", Some("APIGroupDiscoveryList"))
                if alternative.parameter("g") == Some("apidiscovery.k8s.io") =>
            {
                match alternative.parameter("v") {
                    Some("v2") => return Some("v2"),
                    Some("v2beta1") => return Some("v2beta1"),
                    _ => {}
                }
            }
            ("application/json" | "*/*" | "application/*", None) => return None,
            _ => {}
        }
    }
    None
}

fn document(call: &Call, kind: &str, value: &Value) -> Result<Response<Body>, Status> {
    let document = Document::value(format!("{META}.{kind}"), value);
    let mut response = call.respond(200, document).or_else(|_| {
        let json = Target { format: Format::Json, ..call.target };
        let pieces = crate::wire::render(json, Document::value("", value))?;
        let response =
            Response::builder().header(CONTENT_TYPE, "application/json").body(body::chunks(pieces));
        response.map_err(Status::internal)
    })?;
    response.headers_mut().insert(VARY, http::HeaderValue::from_static("Accept"));
    Ok(response)
}

pub fn text(content_type: &str, text: impl Into<bytes::Bytes>) -> Result<Response<Body>, Status> {
    Response::builder()
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-cache, private")
        .header(VARY, "Accept")
        .body(body::full(text))
        .map_err(Status::internal)
}

fn paths(core: &Core) -> Vec<String> {
    let served = Served::new(core);
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    paths.extend(served.versions("").iter().map(|version| format!("/api/{}", version.name)));
    for group in served.groups() {
        paths.push(format!("/apis/{group}"));
        let versions = served.versions(group).iter();
        paths.extend(versions.map(|version| format!("/apis/{group}/{}", version.name)));
    }
    paths.extend(health::paths());
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/metrics",
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
