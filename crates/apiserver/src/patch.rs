//! The patch verb: JSON patch, merge patch, strategic merge patch, and apply. Follows `PatchResource`.

use api::catalogue::Kind;
use apimachinery::codec::{self, Format, Source, Strictness, decode_untyped};
use apimachinery::field::{self, Path};
use apimachinery::meta::str_at;
use apimachinery::patch::{go_value, json_patch, merge_patch, strategic_merge_patch, undecodable};
use apimachinery::{GroupKind, GroupVersion, Map, Status, Value};
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;

use crate::body::Body;
use crate::call::Call;
use crate::conversion;
use crate::customresource;
use crate::kind::KindRef;
use crate::negotiation::media_type;
use crate::ownership;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::resource::{check_create, defaulted};
use crate::wire::{self, Expected};
use crate::write::{self, Place, Proposal, Written};

/// Custom kinds say nothing of how to merge strategically.
const SUPPORTED_BY_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

const METADATA: &str = "metadata";
const MANAGED_FIELDS: &str = "managedFields";

const APPLY_CBOR: &str = "application/apply-patch+cbor";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A patch as it came.
pub struct Patch {
    patch_type: PatchType,
    format: Format,
    body: Bytes,
}

impl Patch {
    pub fn of_request(call: &Call, kind: &KindRef, body: &Bytes) -> Result<Patch, Status> {
        let text = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (is_custom, cbor) = (kind.custom().is_some(), call.core.config.formats.cbor);
        let (patch_type, format) = match media_type(text) {
            "application/json-patch+json" => (PatchType::Json, Format::Json),
            "application/merge-patch+json" => (PatchType::Merge, Format::Json),
            "application/strategic-merge-patch+json" if !is_custom => (PatchType::Strategic, Format::Json),
            "application/apply-patch+yaml" => (PatchType::Apply, Format::Yaml),
            APPLY_CBOR if cbor => (PatchType::Apply, Format::Cbor),
            _ if is_custom && cbor => {
                return Err(Status::unsupported_media_type(&format!("{SUPPORTED_BY_CUSTOM}, {APPLY_CBOR}")));
            }
            _ if is_custom => return Err(Status::unsupported_media_type(SUPPORTED_BY_CUSTOM)),
            _ => return Err(Status::no_such_body()),
        };
        if call.audit.is_some() {
            // One that cannot be read is refused further on.
            let sent = decode_untyped(format, body).map(|(sent, _)| sent);
            call.audit_request(&sent.unwrap_or_default());
        }
        Ok(Patch { patch_type, format, body: body.clone() })
    }

    /// The patch as an object, for the types that are one.
    fn object(&self) -> Result<Value, Status> {
        let is_strategic = self.patch_type == PatchType::Strategic;
        let object: Result<Option<Map>, String> = codec::from_json(&self.body, "map[string]interface {}");
        match object {
            Ok(Some(object)) => Ok(Value::Object(object)),
            Ok(None) if is_strategic => Ok(Value::Object(Map::new())),
            Ok(None) => Err(Status::bad_request("Invalid JSON Patch")),
            Err(why) if is_strategic => Err(Status::bad_request(why)),
            Err(why) => Err(undecodable(&why)),
        }
    }

    /// What is said of fields that stand twice in the patch itself, for the types that are an object.
    fn doubles(&self, strictness: Strictness) -> Vec<String> {
        match self.patch_type {
            PatchType::Merge | PatchType::Strategic if strictness != Strictness::Ignore => {
                decode_untyped(self.format, &self.body).map(|(_, doubles)| doubles).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Where upstream reads the patched object from.
    fn source(&self) -> Source {
        if self.patch_type == PatchType::Strategic { Source::Tree } else { Source::Text }
    }

    /// The patched document, of the expected type, not yet checked. Not for apply.
    fn patched(&self, mut document: Value, expected: Expected<'_>) -> Result<Value, Status> {
        match self.patch_type {
            PatchType::Json => json_patch(document, &self.body),
            PatchType::Merge => {
                merge_patch(&mut document, self.object()?);
                Ok(document)
            }
            PatchType::Strategic => {
                let root = api::schema::type_id(expected.type_name);
                let mut patched = strategic_merge_patch(api::schema(), root, document, self.object()?)?;
                // Nobody asks what it says it is.
                if let Some(fields) = patched.as_object_mut() {
                    for (name, own) in [("apiVersion", expected.api_version), ("kind", expected.kind)] {
                        if fields.get(name).is_none_or(Value::is_string) {
                            fields.insert(name, own.into());
                        }
                    }
                }
                Ok(patched)
            }
            PatchType::Apply => Err(Status::no_such_body()),
        }
    }

    pub fn is_apply(&self) -> bool {
        self.patch_type == PatchType::Apply
    }

    /// The patched document, for objects that are not stored themselves. Not for apply.
    pub fn apply_plain(&self, document: &Value, expected: Expected<'_>) -> Result<Value, Status> {
        let patched = self.patched(document.clone(), expected)?;
        let refused = |why: &str| match self.patched(document.clone(), expected) {
            Ok(patched) => self.refused(why, &patched),
            Err(status) => status,
        };
        wire::decode_patched(expected, self.source(), patched, Strictness::Ignore, &mut Vec::new(), refused)
    }

    /// The options that such a patch comes with.
    pub fn options(&self, call: &Call) -> Result<WriteOptions, Status> {
        let options = WriteOptions::parse(&call.query, "PatchOptions")?;
        check_options(&options, self.patch_type)?;
        Ok(options)
    }

    /// The configuration to apply to what is `expected`.
    pub fn configuration_of(
        &self,
        expected: Expected<'_>,
        strictness: Strictness,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let written = self.configuration(strictness, warnings)?;
        check_kind(&written, expected.api_version, expected.kind)?;
        Ok(written)
    }

    /// The configuration to apply, as it was written.
    fn configuration(&self, strictness: Strictness, warnings: &mut Vec<String>) -> Result<Value, Status> {
        let unreadable = |error: codec::Error| {
            Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: yaml: {error}"))
        };
        let (value, doubles) = codec::decode_untyped(self.format, &self.body).map_err(unreadable)?;
        if !value.is_object() {
            return Err(Status::bad_request("the request body is not an object"));
        }
        if doubles.is_empty() || strictness == Strictness::Ignore {
            return Ok(value);
        }
        let complaint = codec::yaml::duplicate_key(&self.body).unwrap_or_else(|| doubles.join(", "));
        if strictness == Strictness::Strict {
            return Err(Status::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {}{complaint}",
                codec::yaml::UNMARSHAL_ERRORS
            )));
        }
        warnings.push(complaint);
        Ok(value)
    }

    /// The 422 for a patched document that does not fit its kind, which shows what the patch has made, or the patch.
    fn refused(&self, why: &str, patched: &Value) -> Status {
        let shown = match self.patch_type {
            PatchType::Strategic => self.object().map_or_else(|_| String::new(), |patch| go_value(&patch)),
            _ => patched.to_string(),
        };
        let error = field::Error::invalid(&Path::new("patch"), shown, why);
        Status::invalid(&GroupKind::default(), "", &[error])
    }
}

pub async fn patch(
    call: &mut Call,
    kind: &KindRef,
    part: Part,
    body: &Bytes,
) -> Result<Response<Body>, Status> {
    let patch = Patch::of_request(call, kind, body)?;
    let options = patch.options(call)?;
    let place = Place::of(call, kind, part);
    let written = match patch.patch_type {
        PatchType::Apply => apply(call, &place, &patch, &options).await?,
        _ => change(call, &place, &patch, &options).await?,
    };
    call.respond_object(written.code(), kind, &written.bytes, None).await
}

/// Follows `ValidatePatchOptions`.
fn check_options(options: &WriteOptions, patch_type: PatchType) -> Result<(), Status> {
    let error = match patch_type {
        PatchType::Apply if options.field_manager.is_empty() => {
            field::Error::required(&Path::new("fieldManager"), "is required for apply patch")
        }
        PatchType::Json | PatchType::Merge | PatchType::Strategic if options.force.is_some() => {
            field::Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch")
        }
        _ => return Ok(()),
    };
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]))
}

async fn change(
    call: &mut Call,
    place: &Place,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let kind = &place.kind;
    let api_version = kind.resource.api_version();
    let expected =
        Expected { type_name: kind.type_name, api_version: &api_version, kind: kind.resource.kind };
    let warnings = Mutex::new(Vec::new());
    let doubles = patch.doubles(options.field_validation);
    let change = |old: &Value| {
        let patched = || patch.patched(conversion::from_stored(kind, old.clone()), expected);
        let mut found = doubles.clone();
        let strictness = options.field_validation;
        let object = match kind.custom() {
            None => {
                let refused = |why: &str| match patched() {
                    Ok(patched) => patch.refused(why, &patched),
                    Err(status) => status,
                };
                let mut patched = patched()?;
                let untouched = Untouched::take(kind, &mut patched, old);
                let mut object =
                    wire::decode_patched(expected, patch.source(), patched, strictness, &mut found, refused)?;
                untouched.put_back(&mut object);
                object
            }
            Some(custom) => customresource::settled(custom, patched()?, strictness, &mut found)?,
        };
        *warnings.lock() = found;
        Ok(Proposal { object: defaulted(kind, object), owned: false })
    };
    let before = call.warnings.len();
    let written = write::update(call, place, options, &change).await;
    // What is said about the body comes before what is said about the object.
    let about_object = call.warnings.split_off(before);
    call.warnings.extend(warnings.into_inner().into_iter().chain(about_object));
    written
}

async fn apply(
    call: &mut Call,
    place: &Place,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let kind = &place.kind;
    let api_version = kind.resource.api_version();
    let expected =
        Expected { type_name: kind.type_name, api_version: &api_version, kind: kind.resource.kind };
    let written = patch.configuration_of(expected, options.field_validation, &mut call.warnings)?;
    let config = match kind.custom() {
        None => {
            ownership::check_declared(place, &written)?;
            wire::decode_applied(expected, written)?
        }
        Some(_) => written,
    };
    let now = call.now;
    let merged = |live: Option<&Value>| {
        let object = ownership::applied(place, live, &config, options, now)?;
        let object = match kind.custom() {
            None => wire::decode_value(expected, object, Strictness::Ignore, &mut Vec::new())?,
            Some(custom) => customresource::settled(custom, object, Strictness::Ignore, &mut Vec::new())?,
        };
        Ok(Proposal { object: defaulted(kind, object), owned: true })
    };
    if place.part == Part::Main && call.core.store.get(&place.key).is_none() {
        check_create(call).await?;
        let proposal: Proposal = merged(None)?;
        match write::create(call, kind, proposal, options).await {
            Err(status) if status.is_already_exists() => {}
            result => return result,
        }
    }
    write::update(call, place, options, &|old: &Value| merged(Some(old))).await
}

/// What a patch has left of a stored object as it was. It is in form already, so that only the rest needs to be brought
/// into form: of a status patch that is little.
#[derive(Default)]
struct Untouched {
    fields: Map,
    managed_fields: Option<Value>,
}

impl Untouched {
    fn take(kind: &Kind, patched: &mut Value, old: &Value) -> Untouched {
        let (Some(object), Some(old)) = (patched.as_object_mut(), old.as_object()) else {
            return Untouched::default();
        };
        if !conversion::is_stored_version(kind) {
            return Untouched::default();
        }
        let mut fields = Map::new();
        let is_large = |value: &Value| value.is_object() || value.is_array();
        for (name, before) in old.iter().filter(|(name, value)| *name != METADATA && is_large(value)) {
            if object.get(name) == Some(before) {
                fields.extend(object.remove(name).map(|value| (name.clone(), value)));
            }
        }
        let before = old.get(METADATA).and_then(|metadata| metadata.get(MANAGED_FIELDS));
        let metadata = object.get_mut(METADATA).and_then(Value::as_object_mut);
        let managed_fields = metadata
            .filter(|metadata| before.is_some() && metadata.get(MANAGED_FIELDS) == before)
            .and_then(|metadata| metadata.remove(MANAGED_FIELDS));
        Untouched { fields, managed_fields }
    }

    fn put_back(self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        object.extend(self.fields);
        if let (Some(fields), Some(metadata)) =
            (self.managed_fields, object.get_mut(METADATA).and_then(Value::as_object_mut))
        {
            metadata.insert(MANAGED_FIELDS, fields);
        }
    }
}

/// A configuration must say what it is. Follows `versionCheckManager`.
fn check_kind(config: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let found = (str_at(config, &["apiVersion"]), str_at(config, &["kind"]));
    if found == (api_version, kind) {
        return Ok(());
    }
    let version = GroupVersion::parse(found.0).unwrap_or_default();
    let gvk = version.with_kind(found.1);
    Err(Status::bad_request(format!("invalid object type: {}/{}, Kind={}", gvk.group, gvk.version, gvk.kind)))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_what_a_patch_has_touched_is_brought_into_form() {
        let kind = api::catalogue::by_resource("", "v1", "pods").expect("a row");
        let managed = json!([{"manager": "a"}]);
        let old = json!({"kind": "Pod", "metadata": {"name": "a", "managedFields": managed}, "spec": {"a": 1}, "status": {}});
        let check = |patch: Value, left: Value| {
            let mut patched = old.clone();
            merge_patch(&mut patched, patch);
            let whole = patched.clone();
            let untouched = Untouched::take(kind, &mut patched, &old);
            assert_eq!(patched, left);
            untouched.put_back(&mut patched);
            assert_eq!(patched, whole);
        };
        let status = json!({"status": {"phase": "Running"}});
        check(status, json!({"kind": "Pod", "metadata": {"name": "a"}, "status": {"phase": "Running"}}));
        let all = json!({"metadata": {"managedFields": []}, "spec": {"a": 2}, "status": {"b": 1}});
        check(
            all,
            json!({"kind": "Pod", "metadata": {"name": "a", "managedFields": []}, "spec": {"a": 2}, "status": {"b": 1}}),
        );
        check(json!({"spec": null, "status": null, "metadata": null}), json!({"kind": "Pod"}));
    }

    #[test]
    fn a_configuration_says_what_it_is() {
        let check = |config| check_kind(&config, "apps/v1", "Deployment").map_err(|status| status.message);
        assert_eq!(check(json!({"apiVersion": "apps/v1", "kind": "Deployment"})), Ok(()));
        assert_eq!(check(json!({})), Err("invalid object type: /, Kind=".to_owned()));
        assert_eq!(
            check(json!({"apiVersion": "v1", "kind": "Pod"})),
            Err("invalid object type: /v1, Kind=Pod".to_owned())
        );
    }
}
