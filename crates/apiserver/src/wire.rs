//! Between documents and bytes: bodies of requests in, responses and watch frames out, in JSON, YAML, protobuf and CBOR.
//! Documents are made as JSON; the other formats are made from it through the schema.

use std::borrow::Cow;

use apimachinery::codec::{Decoded, Strictness, cbor, peek_type_meta, protobuf};
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

fn type_id(name: &str) -> Result<TypeId, Status> {
    let schema: &Schema = api::schema();
    schema.lookup(name).ok_or_else(|| Status::not_acceptable("application/json"))
}

pub fn parse(pieces: &[Bytes]) -> Result<Value, Status> {
    serde_json::from_slice(&join(pieces)).map_err(Status::internal)
}

fn join(pieces: &[Bytes]) -> Bytes {
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
        self.api_version.rsplit('/').next().unwrap_or_default()
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

/// Prunes and normalises what a patch has made. `refused` says how a document is refused that does not fit the kind.
pub fn decode_patched(
    expected: Expected<'_>,
    value: Value,
    strictness: Strictness,
    warnings: &mut Vec<String>,
    refused: impl FnOnce(&apimachinery::codec::Error, &Value) -> Status,
) -> Result<Value, Status> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    expected.check(&text("apiVersion"), &text("kind"))?;
    let decoded = api::schema().decode_value(type_id(expected.type_name)?, value.clone(), strictness);
    let Decoded { value, warnings: found } = decoded.map_err(|error| refused(&error, &value))?;
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
    map.insert("kind".to_owned(), expected.kind.into());
    map.insert("apiVersion".to_owned(), expected.api_version.into());
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
    let (api_version, kind) = (
        if api_version.is_empty() { expected_version } else { api_version },
        if kind.is_empty() { expected_kind } else { kind },
    );
    if !is_registered(api_version, kind) {
        return Err(not_registered(api_version, kind, expected_kind));
    }
    for (what, found, wanted) in
        [("API version", api_version, expected_version), ("kind", kind, expected_kind)]
    {
        if found != wanted {
            return Err(Status::bad_request(format!(
                "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
            )));
        }
    }
    Ok(())
}

/// Whether there is such a kind at all, lists included.
fn is_registered(api_version: &str, kind: &str) -> bool {
    api::catalogue::CATALOGUE.iter().any(|row| {
        row.resource.api_version() == api_version && (row.resource.kind == kind || row.list_kind == kind)
    })
}

/// The name of upstream's table of kinds, which its answers carry.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

fn not_registered(api_version: &str, kind: &str, expected_kind: &str) -> Status {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {expected_kind}: \
         no kind {kind:?} is registered for version {api_version:?} in scheme {SCHEME:?}"
    ))
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
