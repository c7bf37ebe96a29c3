//! Brings the bodies of requests into form: metadata by its type, everything else by the kind's own schema.
//! Follows `schemaCoercingDecoder`, `unstructuredDefaulter` and `unstructuredNegotiatedSerializer`.

use apiextensions::{default, embedded, prune};
use apimachinery::codec::{self, Format, Strictness};
use apimachinery::field::{Error, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, Map, Status, Value};

use super::kind::CustomKind;
use crate::negotiation::Formats;
use crate::wire;

/// The type that has what every object has.
const ANY_OBJECT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

/// A body with how it is to be read.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    pub format: Format,
    pub bytes: &'a [u8],
    pub strictness: Strictness,
    /// What else it could have been sent in.
    pub formats: Formats,
}

/// The object in a body. Warnings about unknown and duplicate fields are appended to `warnings`.
pub fn decoded(custom: &CustomKind, body: Body<'_>, warnings: &mut Vec<String>) -> Result<Value, Status> {
    let (value, doubles) = untyped(custom, body)?;
    check_said_type(custom, &value, body)?;
    in_form(custom, value, doubles, body.strictness, warnings)
}

fn untyped(custom: &CustomKind, body: Body<'_>) -> Result<(Value, Vec<String>), Status> {
    if body.format == Format::Protobuf {
        return Err(Status::unsupported_media_type(&body.formats.supported_untyped()));
    }
    let unreadable = |error: codec::Error| error.to_unrecognized(custom.kind.resource.kind, body.bytes);
    codec::decode_untyped(body.format, body.bytes).map_err(unreadable)
}

/// A body must say what it is: nothing else tells the type of an object that nobody has a type for.
fn check_said_type(custom: &CustomKind, value: &Value, body: Body<'_>) -> Result<(), Status> {
    let resource = &custom.kind.resource;
    let (version, kind) = (str_at(value, &["apiVersion"]), str_at(value, &["kind"]));
    if value.is_object() && kind.is_empty() {
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body.bytes));
        return Err(codec::Error::Syntax(why).to_unrecognized(resource.kind, body.bytes));
    }
    if value.is_object() && version != resource.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            resource.api_version()
        )));
    }
    if value.is_object() && kind != resource.kind {
        let error = Error::invalid(&Path::new("kind"), kind, format!("must be {}", resource.kind));
        let name = str_at(value, &["metadata", "name"]);
        return Err(Status::invalid(&GroupKind::new(resource.group, kind), name, &[error]));
    }
    check_type(custom, value)
}

pub fn check_type(custom: &CustomKind, value: &Value) -> Result<(), Status> {
    if !value.is_object() {
        return Err(Status::bad_request("the request body is not an object"));
    }
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let resource = &custom.kind.resource;
    wire::check_type_meta(text("apiVersion"), text("kind"), &resource.api_version(), resource.kind)
}

/// Brings an object that is a value already, such as the result of a patch, into form.
pub fn settled(
    custom: &CustomKind,
    value: Value,
    strictness: Strictness,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    check_type(custom, &value)?;
    in_form(custom, value, Vec::new(), strictness, warnings)
}

fn in_form(
    custom: &CustomKind,
    mut value: Value,
    mut issues: Vec<String>,
    strictness: Strictness,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let resource = &custom.kind.resource;
    let refused = |error: &codec::Error| error.to_status(resource.version, resource.kind, resource.kind);
    issues.extend(coerce(custom, &mut value).map_err(|error| refused(&error))?);
    let unknown = prune::prune(&mut value, custom.version.schema());
    issues.extend(unknown.into_iter().map(|path| format!("unknown field {path:?}")));
    issues.truncate(codec::ISSUES_MAX);
    match strictness {
        Strictness::Strict if !issues.is_empty() => return Err(refused(&codec::Error::Strict(issues))),
        Strictness::Strict | Strictness::Ignore => {}
        Strictness::Warn => warnings.extend(issues),
    }
    value["kind"] = resource.kind.into();
    value["apiVersion"] = resource.api_version().into();
    Ok(value)
}

/// Brings metadata into its form, that of embedded objects too. Tells of fields it does not know.
fn coerce(custom: &CustomKind, value: &mut Value) -> Result<Vec<String>, codec::Error> {
    let mut issues = Vec::new();
    if let Some(metadata) = value.get_mut("metadata") {
        coerce_metadata(metadata, "", &mut issues)?;
    }
    let issues = std::cell::RefCell::new(issues);
    let form = |metadata: &mut Value, path: &str| {
        coerce_metadata(metadata, path, &mut issues.borrow_mut()).map_err(|error| error.to_string())
    };
    embedded::coerce(value, custom.version.schema(), &form).map_err(codec::Error::Type)?;
    Ok(issues.into_inner())
}

fn coerce_metadata(metadata: &mut Value, path: &str, issues: &mut Vec<String>) -> Result<(), codec::Error> {
    let mut object = Map::new();
    object.insert("metadata", metadata.take());
    let root = api::schema::type_id(ANY_OBJECT);
    let mut decoded = api::schema().decode_value(root, Value::Object(object), Strictness::Warn)?;
    *metadata = match decoded.value.get_mut("metadata") {
        Some(found) => found.take(),
        None => Value::Object(Map::new()),
    };
    if metadata.get("creationTimestamp").is_some_and(Value::is_null)
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.remove("creationTimestamp");
    }
    let dot = if path.is_empty() { "" } else { "." };
    issues.extend(decoded.warnings.into_iter().map(|text| text.replacen('"', &format!("\"{path}{dot}"), 1)));
    Ok(())
}

/// Fills in the schema's defaults.
pub fn defaulted(custom: &CustomKind, mut value: Value) -> Value {
    let schema = custom.version.schema();
    default::prune_nulls(&mut value, schema);
    default::default(&mut value, schema);
    value
}
