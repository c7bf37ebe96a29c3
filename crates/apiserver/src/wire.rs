//! Between documents and bytes: bodies of requests in, responses and watch frames out, in JSON, YAML, protobuf and CBOR.
//! Documents are made as JSON; the other formats are made from it through the schema.

use std::borrow::Cow;

use apimachinery::codec::{self, Decoded, Source, Strictness, cbor, peek_type_meta, protobuf};
use apimachinery::schema::{Schema, TypeId};
use apimachinery::{Status, Value, json};
use bytes::{BufMut, Bytes, BytesMut};

use crate::draft::to_json;
use crate::negotiation::{Format, Target};
use crate::view::META_PACKAGE;

pub const STATUS_TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// A response before its format is chosen: pieces of one JSON text, and the schema's name for what it is.
pub struct Document {
    pub type_name: Cow<'static, str>,
    pub json: Vec<Bytes>,
}

impl Document {
    pub fn value(type_name: impl Into<Cow<'static, str>>, value: &Value) -> Document {
        Document { type_name: type_name.into(), json: vec![to_json(value).into()] }
    }

    pub fn status(status: &Status) -> Document {
        Document { type_name: STATUS_TYPE.into(), json: vec![to_json(status).into()] }
    }
}

/// Puts a document into the form the client wants.
pub fn render(target: Target, document: Document) -> Result<Vec<Bytes>, Status> {
    match target.format {
        Format::Json if !target.pretty => Ok(document.json),
        Format::Json => {
            let mut text = serde_json::to_vec_pretty(&parse(&document.json)?).map_err(Status::internal)?;
            text.push(b'\n');
            Ok(vec![text.into()])
        }
        Format::Yaml => {
            let value = parse(&document.json)?;
            // YAML needs no schema, so that documents without one can be had in it.
            let root = api::schema().lookup(&document.type_name).unwrap_or_default();
            Ok(vec![api::schema().encode(root, Format::Yaml, &value).map_err(Status::internal)?])
        }
        Format::Cbor => Ok(vec![cbor::encode(&parse(&document.json)?)]),
        Format::Protobuf => {
            let root = type_id(&document.type_name)?;
            let json = join(&document.json);
            Ok(vec![protobuf::from_json(api::schema(), root, &json).map_err(Status::internal)?])
        }
    }
}

/// One frame of a watch in protobuf.
pub fn protobuf_frame(event_type: &str, type_name: &str, json: &[u8]) -> Result<Bytes, Status> {
    let object = protobuf::from_json(api::schema(), type_id(type_name)?, json).map_err(Status::internal)?;
    Ok(protobuf::watch_frame_of(event_type, &object))
}

/// One frame of a watch in CBOR: an item that stands for itself, so that nothing separates it from the next.
pub fn cbor_frame(event_type: &str, json: &[u8]) -> Result<Bytes, Status> {
    let object: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    Ok(cbor::encode(&json!({"type": event_type, "object": object})))
}

pub fn type_id(name: &str) -> Result<TypeId, Status> {
    let schema: &Schema = api::schema();
    schema.lookup(name).ok_or_else(|| Status::not_acceptable("application/json"))
}

pub fn parse(pieces: &[Bytes]) -> Result<Value, Status> {
    serde_json::from_slice(&join(pieces)).map_err(Status::internal)
}

pub fn join(pieces: &[Bytes]) -> Bytes {
    if let [whole] = pieces {
        return whole.clone();
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| joined.put_slice(piece));
    joined.freeze()
}

/// What a body is expected to hold.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub type_name: &'a str,
    pub api_version: &'a str,
    pub kind: &'a str,
}

impl Expected<'_> {
    fn check(&self, api_version: &str, kind: &str) -> Result<(), Status> {
        check_type_meta(api_version, kind, self.api_version, self.kind)
    }

    /// Without its group.
    fn version(&self) -> &str {
        version_of(self.api_version)
    }
}

/// Decodes a request's body. Warnings about unknown and duplicate fields are appended to `warnings`.
pub fn decode_body(
    expected: Expected<'_>,
    format: Format,
    bytes: &[u8],
    strictness: Strictness,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let found = peek_type_meta(format, bytes).map_err(|error| error.to_unrecognized(expected.kind, bytes))?;
    expected.check(&found.api_version, &found.kind)?;
    let root = type_id(expected.type_name)?;
    let Decoded { value, warnings: found } = api::schema()
        .decode(root, format, bytes, strictness)
        .map_err(|error| error.to_status(expected.version(), expected.kind, expected.kind))?;
    warnings.extend(found);
    with_type(value, expected)
}

/// Brings a configuration to apply into its kind's form: as a body, but what it names it owns, empty values included.
pub fn decode_applied(expected: Expected<'_>, value: Value) -> Result<Value, Status> {
    let Decoded { value, .. } = api::schema()
        .decode_applied(type_id(expected.type_name)?, value)
        .map_err(|error| error.to_status(expected.version(), expected.kind, expected.kind))?;
    with_type(value, expected)
}

/// Prunes and normalises what a patch has made. `warnings` holds what is said of the patch itself; `refused` says how a document is refused that does not fit the kind.
pub fn decode_patched(
    expected: Expected<'_>,
    source: Source,
    value: Value,
    strictness: Strictness,
    warnings: &mut Vec<String>,
    refused: impl FnOnce(&str) -> Status,
) -> Result<Value, Status> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(why) = inconvertible(&api_version, &kind, expected.api_version, expected.kind) {
        return Err(refused(&why));
    }
    expected.check(&api_version, &kind)?;
    let decoded = api::schema().decode_from(source, type_id(expected.type_name)?, value, strictness);
    let decoded = match decoded {
        Err(codec::Error::Strict(issues)) => {
            Err(codec::Error::Strict(warnings.drain(..).chain(issues).collect()))
        }
        Ok(_) if strictness == Strictness::Strict && !warnings.is_empty() => {
            Err(codec::Error::Strict(std::mem::take(warnings)))
        }
        decoded => decoded,
    };
    let Decoded { value, warnings: mut found } = decoded.map_err(|error| refused(&error.to_string()))?;
    if source == Source::Tree {
        found.sort_unstable();
    }
    warnings.extend(found);
    with_type(value, expected)
}

/// Prunes and normalises an object that is a value already, such as the result of a patch.
pub fn decode_value(
    expected: Expected<'_>,
    value: Value,
    strictness: Strictness,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    expected.check(&text("apiVersion"), &text("kind"))?;
    let Decoded { value, warnings: found } = api::schema()
        .decode_value(type_id(expected.type_name)?, value, strictness)
        .map_err(|error| error.to_status(expected.version(), expected.kind, expected.kind))?;
    warnings.extend(found);
    with_type(value, expected)
}

fn with_type(mut value: Value, expected: Expected<'_>) -> Result<Value, Status> {
    let Some(map) = value.as_object_mut() else {
        return Err(Status::bad_request("the request body is not an object"));
    };
    map.insert("kind", expected.kind.into());
    map.insert("apiVersion", expected.api_version.into());
    Ok(value)
}

/// Refuses a body of another kind or version than its path says; a body may leave both out.
pub fn check_type_meta(
    api_version: &str,
    kind: &str,
    expected_version: &str,
    expected_kind: &str,
) -> Result<(), Status> {
    if (api_version.is_empty() || api_version == expected_version)
        && (kind.is_empty() || kind == expected_kind)
    {
        return Ok(());
    }
    let (api_version, kind) = given_or_expected(api_version, kind, expected_version, expected_kind);
    let why = inconvertible(api_version, kind, expected_version, expected_kind);
    Err(Status::bad_request(match why {
        Some(why) => {
            let version = version_of(api_version);
            format!("{kind} in version {version:?} cannot be handled as a {expected_kind}: {why}")
        }
        None => format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected_version})"
        ),
    }))
}

fn given_or_expected<'a>(
    api_version: &'a str,
    kind: &'a str,
    expected_version: &'a str,
    expected_kind: &'a str,
) -> (&'a str, &'a str) {
    let or = |given: &'a str, expected: &'a str| if given.is_empty() { expected } else { given };
    (or(api_version, expected_version), or(kind, expected_kind))
}

fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or_default()
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Why a kind cannot become the one that is expected: there is none of that name, or it is another one. Versions of one
/// kind can become each other.
fn inconvertible(
    api_version: &str,
    kind: &str,
    expected_version: &str,
    expected_kind: &str,
) -> Option<String> {
    let (api_version, kind) = given_or_expected(api_version, kind, expected_version, expected_kind);
    let scheme = scheme(group_of(expected_version));
    if !is_registered(scheme, api_version, kind) {
        return Some(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme {scheme:?}"
        ));
    }
    let [found, wanted] = [api_version, expected_version].map(|version| package(group_of(version)));
    let is_same = (found, kind) == (wanted, expected_kind);
    (!is_same).then(|| {
        let version = version_of(api_version);
        format!("converting ({version}.{kind}) to ({wanted}.{expected_kind}): unknown conversion")
    })
}

/// Whether a table knows such a kind at all, lists included.
fn is_registered(table: &str, api_version: &str, kind: &str) -> bool {
    api::catalogue::CATALOGUE.iter().chain([&api::catalogue::SCALES]).any(|row| {
        row.resource.api_version() == api_version
            && (row.resource.kind == kind || row.list_kind == kind)
            && scheme(row.resource.group) == table
    })
}

/// The name of upstream's table of a group's kinds, which its answers carry.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
        "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

/// What upstream calls the package in which a group's kinds have their own form.
fn package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or_default(),
    }
}

/// Decodes DeleteOptions, which clients send under any group's version.
pub fn decode_options(format: Format, bytes: &[u8]) -> Result<Value, Status> {
    const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
    let found =
        peek_type_meta(format, bytes).map_err(|error| error.to_unrecognized("DeleteOptions", bytes))?;
    if !matches!(found.kind.as_str(), "" | "DeleteOptions") {
        return Err(Status::bad_request(format!(
            "no kind {:?} is registered for version \"meta.k8s.io/v1\" in scheme {SCHEME:?}",
            found.kind
        )));
    }
    let root = type_id(&format!("{META_PACKAGE}.DeleteOptions"))?;
    let decoded = api::schema()
        .decode(root, format, bytes, Strictness::Ignore)
        .map_err(|error| error.to_status("v1", "", "DeleteOptions"))?;
    Ok(decoded.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(found: (&str, &str), expected: (&str, &str)) -> String {
        let checked = check_type_meta(found.0, found.1, expected.0, expected.1);
        checked.map_or_else(|status| status.message, |()| String::new())
    }

    #[test]
    fn a_body_of_another_kind_is_refused_in_upstreams_words() {
        let check = |found, expected, expect: &str| assert_eq!(refusal(found, expected), expect);
        check(("", ""), ("v1", "ConfigMap"), "");
        check(("v1", "ConfigMap"), ("v1", "ConfigMap"), "");
        check(
            ("apps/v1", "Deployment"),
            ("v1", "ConfigMap"),
            "Deployment in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Deployment) to \
             (core.ConfigMap): unknown conversion",
        );
        check(
            ("autoscaling/v1", "HorizontalPodAutoscaler"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
        );
        let crd = "CustomResourceDefinition";
        let unknown = |kind, version, table: &str| {
            format!("no kind {kind:?} is registered for version {version:?} in scheme {table:?}")
        };
        let found = refusal(("apiextensions.k8s.io/v1", crd), ("rbac.authorization.k8s.io/v1", "Role"));
        assert!(found.ends_with(&unknown(crd, "apiextensions.k8s.io/v1", scheme(""))), "{found}");
        let found = refusal(("apiextensions.k8s.io/v1", "Wrong"), ("apiextensions.k8s.io/v1", crd));
        let table = "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55";
        assert!(found.ends_with(&unknown("Wrong", "apiextensions.k8s.io/v1", table)), "{found}");
    }
}
