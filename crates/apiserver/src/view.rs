//! How a request sees objects: themselves, their metadata, or rows of a table. Works on the stored bytes and decodes
//! only what a table's cells need.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::value::write_json;
use apimachinery::{Map, Status, Value, json};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use store::{Entry, Revision};

use crate::conversion;
use crate::draft::{to_json, type_prefix};
use crate::kind::KindRef;
use crate::negotiation::{Shape, Target};
use crate::pieces::{Form, Pieces};
use crate::query::Query;
use crate::row;

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
            meta.insert("resourceVersion", self.revision.to_string().into());
        }
        if !self.continue_token.is_empty() {
            meta.insert("continue", self.continue_token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount", remaining.into());
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
    /// Whether tables tell their columns: of those that a watch sends, the first alone does (upstream:
    /// `TableOptions.NoHeaders`).
    pub has_columns: bool,
}

impl View {
    /// One object as a document of its own. `stored` is the object as the store keeps it.
    pub fn object(&self, stored: &Bytes) -> Bytes {
        let bytes = conversion::bytes_for(&self.kind, stored);
        match self.target.shape {
            Shape::Object => bytes,
            Shape::Metadata => {
                let mut out = Vec::new();
                push_metadata(&self.metadata_head(), row::metadata(&bytes), &mut out);
                out.into()
            }
            Shape::Table => {
                let meta = json!({"resourceVersion": resource_version(&bytes)});
                let mut out = self.table_head(&meta).into_bytes();
                self.push_row(&mut row::Reader::default(), &self.metadata_head(), &bytes, &mut out);
                out.extend_from_slice(LIST_TAIL);
                out.into()
            }
        }
    }

    /// The JSON of a list of stored objects.
    pub fn list<I>(&self, stored: I, meta: &ListMeta) -> Pieces<Listed, I>
    where
        I: Iterator<Item: Stored>,
    {
        let head = match self.target.shape {
            Shape::Object => self.list_head(&self.kind.resource.api_version(), self.kind.list_kind, meta),
            Shape::Metadata => self.list_head(self.target.meta_version(), "PartialObjectMetadataList", meta),
            Shape::Table => self.table_head(&meta.to_value()),
        };
        let item_head = match self.target.shape {
            // Items of custom kinds say what they are: nobody has a type for them.
            Shape::Object if self.kind.custom().is_some() => "{".to_owned(),
            Shape::Object => type_prefix(&self.kind.resource.api_version(), self.kind.resource.kind),
            Shape::Metadata | Shape::Table => self.metadata_head(),
        };
        let converts = !conversion::is_stored_version(&self.kind);
        let listed = Listed { view: self.clone(), item_head, converts, reader: row::Reader::default() };
        Pieces::new(listed, head.into_bytes(), stored)
    }

    /// The metadata of no objects, which upstream does not begin to list.
    pub fn no_metadata(&self, meta: &ListMeta) -> Bytes {
        json!({"kind": "PartialObjectMetadataList", "apiVersion": self.target.meta_version(),
               "metadata": meta.to_value(), "items": null})
        .to_string()
        .into()
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

    /// How an object begins of which the metadata alone is shown.
    fn metadata_head(&self) -> String {
        type_prefix(self.target.meta_version(), "PartialObjectMetadata")
    }

    /// A table up to its first row.
    fn table_head(&self, meta: &Value) -> String {
        let columns: Option<Vec<Value>> = self.has_columns.then(|| match self.kind.custom() {
            Some(custom) => custom.column_definitions(),
            None => self.kind.columns().iter().map(column_definition).collect(),
        });
        let open = type_prefix(self.target.meta_version(), "Table");
        format!("{open}\"metadata\":{meta},\"columnDefinitions\":{},\"rows\":[", Value::from(columns))
    }

    fn push_row(&self, reader: &mut row::Reader, metadata_head: &str, bytes: &[u8], out: &mut Vec<u8>) {
        let (object, metadata) = reader.read(bytes, self.kind.strategy.shown());
        out.extend_from_slice(b"{\"cells\":");
        write_json(out, &Value::Array(self.kind.row(object, self.now)));
        out.extend_from_slice(b",\"object\":");
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => push_metadata(metadata_head, metadata, out),
            IncludeObject::Object => out.extend_from_slice(bytes),
        }
        out.push(b'}');
    }
}

/// What every list and table ends with.
const LIST_TAIL: &[u8] = b"]}";

/// The items of a list as one request sees them.
pub struct Listed {
    view: View,
    /// How items begin: if as they are stored, they leave it out, since upstream's typed items carry neither kind nor
    /// version.
    item_head: String,
    /// Whether they are shown in another version than they are stored in.
    converts: bool,
    /// Of the rows of a table.
    reader: row::Reader,
}

/// What has an object as the store keeps it.
pub trait Stored {
    fn bytes(&self) -> &Bytes;
}

impl Stored for Bytes {
    fn bytes(&self) -> &Bytes {
        self
    }
}

/// Without another owner of the bytes: to count one up and down costs as much as to find a cell.
impl Stored for Arc<Entry> {
    fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<S: Stored> Form<S> for Listed {
    fn push(&mut self, stored: S, first: bool, out: &mut Vec<u8>) {
        let converted;
        let bytes = if self.converts {
            converted = conversion::bytes_for(&self.view.kind, stored.bytes());
            &converted
        } else {
            stored.bytes()
        };
        if !first {
            out.push(b',');
        }
        match self.view.target.shape {
            Shape::Object => push_item(bytes, self.item_head.as_bytes(), out),
            Shape::Metadata => push_metadata(&self.item_head, row::metadata(bytes), out),
            Shape::Table => self.view.push_row(&mut self.reader, &self.item_head, bytes, out),
        }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(LIST_TAIL);
    }
}

fn column_definition(column: &api::Column) -> Value {
    json!({"name": column.name, "type": column.column_type, "format": column.format,
           "description": column.description, "priority": column.priority})
}

fn push_metadata(head: &str, metadata: &[u8], out: &mut Vec<u8>) {
    for part in [head.as_bytes(), b"\"metadata\":", metadata, b"}"] {
        out.extend_from_slice(part);
    }
}

fn push_item(bytes: &[u8], prefix: &[u8], out: &mut Vec<u8>) {
    match bytes.strip_prefix(prefix) {
        Some(rest) => {
            out.push(b'{');
            out.extend_from_slice(rest);
        }
        // It has been converted, which puts its fields into another order.
        None => {
            let mut object = conversion::decode(bytes);
            if let Some(fields) = object.as_object_mut() {
                fields.retain(|field, _| !matches!(field.as_str(), "kind" | "apiVersion"));
            }
            out.extend_from_slice(&to_json(&object));
        }
    }
}

/// The resourceVersion an object carries.
fn resource_version(bytes: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Version<'a> {
        #[serde(borrow)]
        resource_version: Cow<'a, str>,
    }
    serde_json::from_slice::<Version>(row::metadata(bytes))
        .map(|v| v.resource_version.into_owned())
        .unwrap_or_default()
}

/// The same object under another resourceVersion.
pub fn with_revision(bytes: &[u8], revision: Revision) -> Bytes {
    let mut object = conversion::decode(bytes);
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    to_json(&object).into()
}
