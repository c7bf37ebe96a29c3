//! Between bytes and objects, by schema: JSON, YAML, CBOR and Kubernetes' protobuf. Decoding is strict about what it does
//! not know, prunes it, and leaves an object exactly as Go's types would have carried it.
//!
//! Nothing here knows a particular kind or speaks HTTP.

pub mod cbor;
mod decode;
mod empty;
mod error;
mod key;
mod misfit;
pub mod protobuf;
pub(crate) mod scalar;
mod syntax;
mod untyped;
pub mod yaml;

pub use error::Error;
pub use misfit::Source;
pub use syntax::{from_json, json_error, kind as json_kind};
pub use untyped::decode_untyped;

use bytes::Bytes;
use serde::de::DeserializeSeed;

use crate::schema::{Schema, TypeId, TypeKind};
use crate::{Map, Value};

/// How deep objects and lists may nest: serde_json's own limit, held by every format.
pub const DEPTH_MAX: usize = 128;

/// How many objects and lists stand within each other.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Issues reported per object; what is beyond is not worth a client's while.
pub const ISSUES_MAX: usize = 100;

/// A wire format for single objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Format {
    /// The format a media type names, parameters aside.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(Format::Json),
            "application/yaml" => Some(Format::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Format::Protobuf),
            "application/cbor" => Some(Format::Cbor),
            _ => None,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
            Format::Cbor => "application/cbor",
        }
    }
}

/// What to make of unknown and duplicate fields: the `fieldValidation` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl Strictness {
    /// The value of a `fieldValidation` parameter; empty means `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Strictness::Warn),
            "Ignore" => Some(Strictness::Ignore),
            "Strict" => Some(Strictness::Strict),
            _ => None,
        }
    }
}

/// An object and what was odd about its encoding.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.foo"`; only under `Strictness::Warn`.
    pub warnings: Vec<String>,
}

/// `apiVersion` and `kind` of an encoded object; empty where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeMeta {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
}

/// The Go type into which upstream reads an object's `apiVersion` and `kind`, as its messages name it.
const GO_TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Reads no more of an object than what it says it is.
pub fn peek_type_meta(format: Format, bytes: &[u8]) -> Result<TypeMeta, Error> {
    match format {
        // What is a list to serde as well is none of Go's structs.
        Format::Json if syntax::kind(bytes) == "array" => from_json::<Map>(bytes, GO_TYPE_META)
            .map(|_| TypeMeta::default())
            .map_err(|why| Error::Syntax(format!("couldn't get version/kind; json parse error: {why}"))),
        Format::Json => from_json(bytes, GO_TYPE_META)
            .map_err(|why| Error::Syntax(format!("couldn't get version/kind; json parse error: {why}"))),
        Format::Yaml => yaml::type_meta(bytes),
        Format::Protobuf => Ok(protobuf::Envelope::parse(bytes)?.type_meta),
        Format::Cbor => cbor::type_meta(bytes),
    }
}

/// Whether values that Go would not write stay in a decoded object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empties {
    Drop,
    /// An applied configuration owns `false`, `""` and null where it says so.
    Keep,
}

impl Schema {
    /// Decodes one object of type `root`, as Go's types would carry it: unknown fields pruned, nulls and omitted
    /// zero values gone, quantities and times canonical, `kind` and `apiVersion` set when `root` has just one.
    pub fn decode(
        &self,
        root: TypeId,
        format: Format,
        bytes: &[u8],
        strictness: Strictness,
    ) -> Result<Decoded, Error> {
        let walk = decode::Walk::new(self, strictness, Empties::Drop, Source::Text);
        match format {
            Format::Json => {
                let mut input = serde_json::Deserializer::from_slice(bytes);
                let result = walk.root(root).deserialize(&mut input);
                let result = result.and_then(|value| input.end().map(|()| value));
                self.finish(root, walk, result)
            }
            Format::Yaml => {
                let result = yaml::decode(bytes, &walk, root);
                match self.finish(root, walk, result) {
                    Ok(Decoded { value, warnings }) => {
                        Ok(Decoded { value, warnings: yaml::in_its_words(bytes, warnings, "") })
                    }
                    Err(Error::Strict(issues)) => {
                        Err(Error::Strict(yaml::in_its_words(bytes, issues, yaml::UNMARSHAL_ERRORS)))
                    }
                    Err(error) => Err(error),
                }
            }
            Format::Protobuf => {
                let mut value = protobuf::decode(self, root, bytes)?;
                self.set_type_meta(root, &mut value);
                Ok(Decoded { value, warnings: Vec::new() })
            }
            Format::Cbor => {
                let result = walk.root(root).deserialize(&cbor::decode(bytes)?);
                self.finish(root, walk, result)
            }
        }
    }

    /// As `decode_value`, but zero values stay: an applied configuration owns whatever it names.
    pub fn decode_applied(&self, root: TypeId, value: Value) -> Result<Decoded, Error> {
        let walk = decode::Walk::new(self, Strictness::Ignore, Empties::Keep, Source::Text);
        let result = walk.root(root).deserialize(&value);
        self.finish(root, walk, result)
    }

    /// As `decode`, of an object that is a value already, such as the result of a patch.
    pub fn decode_value(&self, root: TypeId, value: Value, strictness: Strictness) -> Result<Decoded, Error> {
        self.decode_from(Source::Text, root, value, strictness)
    }

    /// As `decode_value`, saying what upstream says that reads the object from such a source.
    pub fn decode_from(
        &self,
        source: Source,
        root: TypeId,
        value: Value,
        strictness: Strictness,
    ) -> Result<Decoded, Error> {
        let walk = decode::Walk::new(self, strictness, Empties::Drop, source);
        let result = walk.root(root).deserialize(&value);
        self.finish(root, walk, result)
    }

    fn finish<E: std::fmt::Display>(
        &self,
        root: TypeId,
        walk: decode::Walk<'_>,
        result: Result<Option<Value>, E>,
    ) -> Result<Decoded, Error> {
        let (outcome, warnings) = walk.finish(result);
        let mut value = outcome?.unwrap_or_else(|| Value::Object(crate::Map::new()));
        self.set_type_meta(root, &mut value);
        Ok(Decoded { value, warnings })
    }

    fn set_type_meta(&self, root: TypeId, value: &mut Value) {
        let TypeKind::Object(object) = &self[root].kind else { return };
        let ([gvk], Some(map)) = (object.gvk.as_slice(), value.as_object_mut()) else { return };
        if object.field("kind").is_none() {
            return;
        }
        map.entry("kind").or_insert_with(|| gvk.kind.clone().into());
        map.entry("apiVersion").or_insert_with(|| gvk.group_version().to_string().into());
    }

    /// Encodes one object of type `root`; see `protobuf::from_json` for what is JSON already.
    pub fn encode(&self, root: TypeId, format: Format, value: &Value) -> Result<Bytes, Error> {
        match format {
            Format::Json => Ok(serde_json::to_vec(value).map_err(|e| Error::Syntax(e.to_string()))?.into()),
            Format::Yaml => yaml::encode(value),
            Format::Protobuf => protobuf::encode(self, root, value),
            Format::Cbor => Ok(cbor::encode(value)),
        }
    }
}
