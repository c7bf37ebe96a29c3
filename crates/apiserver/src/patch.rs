//! The patch verb: JSON patch, merge patch, strategic merge patch, and apply. Follows `PatchResource`.

use apimachinery::codec::{Format, Strictness};
use apimachinery::field::{self, Path};
use apimachinery::patch::{json_patch, merge_patch, strategic_merge_patch};
use apimachinery::{GroupKind, Status, Value};
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

const SUPPORTED: &str = "application/json-patch+json, application/merge-patch+json, \
                         application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Custom kinds say nothing of how to merge strategically.
const SUPPORTED_BY_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

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
    body: Bytes,
}

impl Patch {
    pub fn of_request(call: &Call, body: &Bytes) -> Result<Patch, Status> {
        let text = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let patch_type = match media_type(text) {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => PatchType::Apply,
            _ => return Err(Status::unsupported_media_type(SUPPORTED)),
        };
        Ok(Patch { patch_type, body: body.clone() })
    }

    /// The patched document, of the expected type, not yet checked. Not for apply.
    fn patched(&self, mut document: Value, type_name: &str) -> Result<Value, Status> {
        let patch = || {
            serde_json::from_slice::<Value>(&self.body)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
        };
        match self.patch_type {
            PatchType::Json => json_patch(document, &self.body),
            PatchType::Merge => {
                merge_patch(&mut document, patch()?);
                Ok(document)
            }
            PatchType::Strategic => {
                strategic_merge_patch(api::schema(), api::schema::type_id(type_name), document, patch()?)
            }
            PatchType::Apply => Err(Status::unsupported_media_type(SUPPORTED)),
        }
    }

    /// The patched document, for objects that are not stored themselves.
    pub fn apply_plain(&self, document: &Value, expected: Expected<'_>) -> Result<Value, Status> {
        let patched = match self.patch_type {
            PatchType::Apply => {
                let mut merged = document.clone();
                merge_patch(&mut merged, self.configuration(expected, Strictness::Ignore, &mut Vec::new())?);
                merged
            }
            _ => self.patched(document.clone(), expected.type_name)?,
        };
        wire::decode_value(expected, patched, Strictness::Ignore, &mut Vec::new())
    }

    /// The configuration to apply.
    fn configuration(
        &self,
        expected: Expected<'_>,
        strictness: Strictness,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        wire::decode_applied(expected, Format::Yaml, &self.body, strictness, warnings)
    }
}

pub async fn patch(
    call: &mut Call,
    kind: &KindRef,
    part: Part,
    body: &Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let patch = Patch::of_request(call, body)?;
    if kind.custom().is_some() && patch.patch_type == PatchType::Strategic {
        return Err(Status::unsupported_media_type(SUPPORTED_BY_CUSTOM));
    }
    check_options(&options, patch.patch_type)?;
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
    let change = |old: &Value| {
        let patched = patch.patched(conversion::from_stored(kind, old.clone()), kind.type_name)?;
        let mut found = Vec::new();
        let object = settled(kind, expected, patched, options.field_validation, &mut found)?;
        *warnings.lock() = found;
        Ok(Proposal { object: defaulted(kind, object), owned: false })
    };
    let written = write::update(call, place, options, &change).await?;
    call.warnings.extend(warnings.into_inner());
    Ok(written)
}

/// Prunes and normalises what a patch has made.
fn settled(
    kind: &KindRef,
    expected: Expected<'_>,
    object: Value,
    strictness: Strictness,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    match kind.custom() {
        None => wire::decode_value(expected, object, strictness, warnings),
        Some(custom) => customresource::settled(custom, object, strictness, warnings),
    }
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
    let config = match kind.custom() {
        None => patch.configuration(expected, options.field_validation, &mut call.warnings)?,
        Some(custom) => {
            let strictness = options.field_validation;
            let body = customresource::Body { format: Format::Yaml, bytes: &patch.body, strictness };
            customresource::configuration(custom, body, &mut call.warnings)?
        }
    };
    let now = call.now;
    let merged = |live: Option<&Value>| {
        let object = ownership::applied(place, live, &config, options, now)?;
        let object = settled(kind, expected, object, Strictness::Ignore, &mut Vec::new())?;
        Ok(Proposal { object: defaulted(kind, object), owned: true })
    };
    if place.part == Part::Main && call.core.store.get(&place.key).is_none() {
        check_create(call)?;
        let proposal: Proposal = merged(None)?;
        match write::create(call, kind, proposal, options).await {
            Err(status) if status.is_already_exists() => {}
            result => return result,
        }
    }
    write::update(call, place, options, &|old: &Value| merged(Some(old))).await
}
