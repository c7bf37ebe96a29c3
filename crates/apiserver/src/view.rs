//! How a request sees objects: themselves, their metadata, or rows of a table. Works on the stored bytes and decodes
//! only what a table's cells need.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::{Map, Status, Value, json};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use store::{Entry, Revision};

use crate::body::Chunker;
use crate::conversion;
use crate::draft::{to_json, type_prefix};
use crate::kind::KindRef;
use crate::negotiation::{Shape, Target};
use crate::query::Query;

pub const META_PACKAGE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// How much of its object a table's row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(query: &Query) -> Result<IncludeObject, Status> {
        match query.text("includeObject") {
            "None" => Ok(IncludeObject::None),
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: Revision,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut meta = Map::new();
        // What is computed is of no revision.
        if self.revision != Revision::default() {
            meta.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        }
        if !self.continue_token.is_empty() {
            meta.insert("continue".to_owned(), self.continue_token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(meta)
    }
}

/// The form in which one request sees objects of one kind.
#[derive(Clone)]
pub struct View {
    pub kind: KindRef,
    pub target: Target,
    pub include: IncludeObject,
    pub now: Timestamp,
}

impl View {
    /// One object as a document of its own. `stored` is the object as the store keeps it.
    pub fn object(&self, stored: &Bytes) -> Bytes {
        let bytes = conversion::bytes_for(&self.kind, stored);
        match self.target.shape {
            Shape::Object => bytes,
            Shape::Metadata => self.partial_metadata(&bytes).into(),
            Shape::Table => {
                self.table(std::iter::once(&bytes), &json!({"resourceVersion": resource_version(&bytes)}))
            }
        }
    }

    /// All objects of a page as one document.
    pub fn list(&self, entries: &[Arc<Entry>], meta: &ListMeta) -> Vec<Bytes> {
        self.list_of(entries.iter().map(|entry| conversion::bytes_for(&self.kind, &entry.bytes)), meta)
    }

    /// As [`View::list`], of objects that are not stored.
    pub fn computed_list(&self, objects: Vec<Bytes>, meta: &ListMeta) -> Vec<Bytes> {
        self.list_of(objects.into_iter(), meta)
    }

    fn list_of(&self, bytes: impl Iterator<Item = Bytes>, meta: &ListMeta) -> Vec<Bytes> {
        match self.target.shape {
            Shape::Object => {
                // Items of custom kinds say what they are: nobody has a type for them.
                let prefix = if self.kind.custom().is_some() { "{".to_owned() } else { self.item_prefix() };
                let open = self.list_head(&self.kind.resource.api_version(), self.kind.list_kind, meta);
                join_items(&open, bytes, |bytes, out| push_item(bytes, prefix.as_bytes(), out))
            }
            Shape::Metadata => {
                let open = self.list_head(self.target.meta_version(), "PartialObjectMetadataList", meta);
                join_items(&open, bytes, |bytes, out| out.push(&self.partial_metadata(bytes)))
            }
            Shape::Table => {
                let bytes: Vec<Bytes> = bytes.collect();
                vec![self.table(bytes.iter(), &meta.to_value())]
            }
        }
    }

    /// The schema name of the documents [`View::object`] or [`View::list`] makes.
    pub fn type_name(&self, list: bool) -> Cow<'static, str> {
        match (self.target.shape, list) {
            (Shape::Object, false) => self.kind.type_name.into(),
            (Shape::Object, true) => format!("{}List", self.kind.type_name).into(),
            (Shape::Metadata, false) => format!("{META_PACKAGE}.PartialObjectMetadata").into(),
            (Shape::Metadata, true) => format!("{META_PACKAGE}.PartialObjectMetadataList").into(),
            (Shape::Table, _) => format!("{META_PACKAGE}.Table").into(),
        }
    }

    fn list_head(&self, api_version: &str, kind: &str, meta: &ListMeta) -> String {
        let mut meta = meta.to_value();
        // A list of a kind that nobody has a type for says so even where there is nothing more.
        if self.kind.custom().is_some()
            && self.target.shape == Shape::Object
            && let Some(fields) = meta.as_object_mut()
        {
            fields.entry("continue").or_insert_with(|| "".into());
        }
        format!("{}\"metadata\":{meta},\"items\":[", type_prefix(api_version, kind))
    }

    /// What items of a list leave out: upstream's typed items carry neither kind nor version.
    fn item_prefix(&self) -> String {
        type_prefix(&self.kind.resource.api_version(), self.kind.resource.kind)
    }

    fn partial_metadata(&self, bytes: &[u8]) -> Vec<u8> {
        let metadata = raw_metadata(bytes);
        let head = type_prefix(self.target.meta_version(), "PartialObjectMetadata");
        format!("{head}\"metadata\":{metadata}}}").into_bytes()
    }

    fn table<'a>(&self, objects: impl Iterator<Item = &'a Bytes>, meta: &Value) -> Bytes {
        let columns: Vec<Value> = match self.kind.custom() {
            Some(custom) => custom.column_definitions(),
            None => self.kind.columns().iter().map(column_definition).collect(),
        };
        let mut out = type_prefix(self.target.meta_version(), "Table").into_bytes();
        let head = format!("\"metadata\":{meta},\"columnDefinitions\":{},\"rows\":[", Value::from(columns));
        out.extend_from_slice(head.as_bytes());
        for (i, bytes) in objects.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            self.push_row(bytes, &mut out);
        }
        out.extend_from_slice(b"]}");
        out.into()
    }

    fn push_row(&self, bytes: &Bytes, out: &mut Vec<u8>) {
        let object = conversion::decode(bytes);
        let cells = Value::from(self.kind.row(&object, self.now));
        out.extend_from_slice(format!("{{\"cells\":{cells},\"object\":").as_bytes());
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => out.extend_from_slice(&self.partial_metadata(bytes)),
            IncludeObject::Object => out.extend_from_slice(bytes),
        }
        out.push(b'}');
    }
}

fn column_definition(column: &api::Column) -> Value {
    json!({"name": column.name, "type": column.column_type, "format": column.format,
           "description": column.description, "priority": column.priority})
}

fn join_items(
    head: &str,
    items: impl Iterator<Item = Bytes>,
    push: impl Fn(&Bytes, &mut Chunker),
) -> Vec<Bytes> {
    let mut out = Chunker::default();
    out.push(head.as_bytes());
    for (i, bytes) in items.enumerate() {
        if i > 0 {
            out.push(b",");
        }
        push(&bytes, &mut out);
    }
    out.push(b"]}");
    out.finish()
}

fn push_item(bytes: &Bytes, prefix: &[u8], out: &mut Chunker) {
    match bytes.strip_prefix(prefix) {
        Some(rest) => {
            out.push(b"{");
            out.push(rest);
        }
        // It has been converted, which puts its fields into another order.
        None => {
            let mut object = conversion::decode(bytes);
            if let Some(fields) = object.as_object_mut() {
                fields.retain(|field, _| !matches!(field.as_str(), "kind" | "apiVersion"));
            }
            out.push(&to_json(&object));
        }
    }
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn raw_metadata(bytes: &[u8]) -> &str {
    serde_json::from_slice::<Parts>(bytes).map_or("{}", |parts| parts.metadata.get())
}

/// The resourceVersion an object carries.
fn resource_version(bytes: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Version<'a> {
        #[serde(borrow)]
        resource_version: Cow<'a, str>,
    }
    serde_json::from_str::<Version>(raw_metadata(bytes))
        .map(|v| v.resource_version.into_owned())
        .unwrap_or_default()
}

/// The same object under another resourceVersion.
pub fn with_revision(bytes: &[u8], revision: Revision) -> Bytes {
    let mut object = conversion::decode(bytes);
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    to_json(&object).into()
}
