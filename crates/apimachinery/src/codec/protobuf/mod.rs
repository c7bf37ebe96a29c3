//! Kubernetes' protobuf: a message in an envelope that names its kind, behind four magic bytes. Follows
//! `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` and what gogo-proto writes.

mod alike;
mod decode;
mod encode;
mod list;
mod text;
mod wire;

use bytes::Bytes;

use super::{Error, TypeMeta};
use crate::Value;
use crate::gvk::{GroupVersion, GroupVersionKind};
use crate::schema::{Schema, TypeId};
pub use alike::Alike;
use encode::Context;
pub use list::List;
use wire::Reader;
pub(crate) use wire::Writer;

/// What every encoded object starts with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Field numbers of `runtime.Unknown` and, within it, `runtime.TypeMeta`.
const UNKNOWN_TYPE_META: u32 = 1;
const UNKNOWN_RAW: u32 = 2;
const UNKNOWN_CONTENT_ENCODING: u32 = 3;
const UNKNOWN_CONTENT_TYPE: u32 = 4;
const TYPE_META_API_VERSION: u32 = 1;
const TYPE_META_KIND: u32 = 2;

/// What an envelope takes beside its message and the name of its kind, about.
const ENVELOPE_BYTES: usize = 128;

/// What a frame of a watch takes beside its object, about.
const WATCH_FRAME_BYTES: usize = 32;

/// Field numbers of `metav1.WatchEvent` and `runtime.RawExtension`.
const WATCH_EVENT_TYPE: u32 = 1;
const WATCH_EVENT_OBJECT: u32 = 2;
const RAW: u32 = 1;

/// An encoded object's kind and its message, still encoded.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    pub type_meta: TypeMeta,
    pub raw: &'a [u8],
    /// Empty for protobuf.
    pub content_type: String,
}

impl<'a> Envelope<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
            Error::Syntax(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                    .into(),
            )
        })?;
        let mut envelope = Envelope::default();
        let mut reader = Reader::new(body);
        while let Some((tag, value)) = reader.next()? {
            match tag {
                UNKNOWN_TYPE_META => envelope.type_meta = type_meta(value.bytes()?)?,
                UNKNOWN_RAW => envelope.raw = value.bytes()?,
                UNKNOWN_CONTENT_TYPE => envelope.content_type = value.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    let mut meta = TypeMeta::default();
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.next()? {
        match tag {
            TYPE_META_API_VERSION => meta.api_version = value.text()?.to_owned(),
            TYPE_META_KIND => meta.kind = value.text()?.to_owned(),
            _ => {}
        }
    }
    Ok(meta)
}

/// Decodes an enveloped object of type `root`.
pub fn decode(schema: &Schema, root: TypeId, bytes: &[u8]) -> Result<Value, Error> {
    let envelope = Envelope::parse(bytes)?;
    let mut value = decode::message(schema, root, envelope.raw)?;
    if let Some(map) = value.as_object_mut() {
        let TypeMeta { api_version, kind } = envelope.type_meta;
        for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
            if !text.is_empty() && schema.field(root, key).is_some_and(|f| f.tag == 0) {
                map.insert(key, text.into());
            }
        }
    }
    Ok(value)
}

/// Decodes an enveloped object whose type its kind tells.
pub fn decode_any(schema: &Schema, bytes: &[u8]) -> Result<Value, Error> {
    let meta = Envelope::parse(bytes)?.type_meta;
    let unknown =
        || Error::Type(format!("no kind {:?} is registered for version {:?}", meta.kind, meta.api_version));
    let root = type_of(schema, &meta.api_version, &meta.kind).ok_or_else(unknown)?;
    decode(schema, root, bytes)
}

fn type_of(schema: &Schema, api_version: &str, kind: &str) -> Option<TypeId> {
    let GroupVersion { group, version } = GroupVersion::parse(api_version)?;
    schema.lookup_gvk(&GroupVersionKind { group, version, kind: kind.to_owned() })
}

/// Encodes an object of type `root` in its envelope, under the kind it says it is or else the one its type has.
pub fn encode(schema: &Schema, root: TypeId, value: &Value) -> Result<Bytes, Error> {
    let json = serde_json::to_vec(value).map_err(|error| Error::Type(error.to_string()))?;
    from_json(schema, root, &json)
}

/// As `encode`, of JSON text.
pub fn from_json(schema: &Schema, root: TypeId, json: &[u8]) -> Result<Bytes, Error> {
    let mut message = Writer::with_capacity(json.len());
    let mut found = TypeMeta::default();
    let context = Context { type_meta: Some(&mut found), alike: None };
    encode::message(schema, root, json, context, &mut message)?;
    let message = message.finish();
    let mut writer = open_envelope(&known_or_only(schema, root, found), message.len());
    writer.raw(&message);
    close_envelope(&mut writer);
    Ok(writer.finish())
}

/// An envelope up to the message that it is to hold.
fn open_envelope(type_meta: &TypeMeta, message_bytes: usize) -> Writer {
    let mut writer = Writer::with_capacity(ENVELOPE_BYTES + message_bytes);
    writer.raw(MAGIC);
    writer.message(UNKNOWN_TYPE_META, |meta| {
        meta.text(TYPE_META_API_VERSION, &type_meta.api_version);
        meta.text(TYPE_META_KIND, &type_meta.kind);
    });
    writer.length(UNKNOWN_RAW, message_bytes);
    writer
}

fn close_envelope(writer: &mut Writer) {
    writer.text(UNKNOWN_CONTENT_ENCODING, "");
    writer.text(UNKNOWN_CONTENT_TYPE, "");
}

/// Appends the message of an object of type `root`, without an envelope, of JSON text.
pub fn append_message(
    schema: &Schema,
    root: TypeId,
    json: &[u8],
    alike: &mut Alike,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut writer = Writer::from(std::mem::take(out));
    let context = Context { type_meta: None, alike: Some(alike) };
    let appended = encode::message(schema, root, json, context, &mut writer);
    *out = writer.into();
    appended
}

/// What an object says it is, or else what its type is for.
fn known_or_only(schema: &Schema, root: TypeId, found: TypeMeta) -> TypeMeta {
    match schema[root].object().and_then(|o| o.gvk.first()) {
        Some(gvk) if found.kind.is_empty() => {
            TypeMeta { api_version: gvk.group_version().to_string(), kind: gvk.kind.clone() }
        }
        _ => found,
    }
}

/// One frame of a watch: its length, then a bare `WatchEvent` that holds the object as `encode` made it.
pub fn watch_frame_of(event_type: &str, object: &[u8]) -> Bytes {
    let extension_bytes = Writer::length_bytes(RAW, object.len()) + object.len();
    let mut frame = Writer::with_capacity(WATCH_FRAME_BYTES + object.len());
    frame.raw(&[0; size_of::<u32>()]);
    frame.text(WATCH_EVENT_TYPE, event_type);
    frame.length(WATCH_EVENT_OBJECT, extension_bytes);
    frame.bytes(RAW, object);
    let mut frame = Vec::from(frame);
    let length = u32::try_from(frame.len() - size_of::<u32>()).expect("an object is smaller than 4 GiB");
    frame[..size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
    frame.into()
}

/// The event type and the enveloped object of a watch frame's body.
pub fn parse_watch_event(body: &[u8]) -> Result<(String, &[u8]), Error> {
    let mut reader = Reader::new(body);
    let (mut event_type, mut object) = (String::new(), &[][..]);
    while let Some((tag, value)) = reader.next()? {
        match tag {
            WATCH_EVENT_TYPE => event_type = value.text()?.to_owned(),
            WATCH_EVENT_OBJECT => object = raw(value.bytes()?)?,
            _ => {}
        }
    }
    Ok((event_type, object))
}

/// The content of a `RawExtension` or one of its likes.
fn raw(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut reader = Reader::new(bytes);
    let mut raw = &[][..];
    while let Some((tag, value)) = reader.next()? {
        if tag == RAW {
            raw = value.bytes()?;
        }
    }
    Ok(raw)
}
