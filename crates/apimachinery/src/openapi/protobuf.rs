//! Version 2 in gnostic's protobuf (`openapi.v2.Document`), translated piece by piece from its JSON. Only what a
//! Kubernetes client reads travels; field numbers are those of `OpenAPIv2.proto`.

use crate::{Map, Value};

use crate::codec::protobuf::Writer;

/// Field numbers of `Document`.
mod document {
    pub const SWAGGER: u32 = 1;
    pub const INFO: u32 = 2;
    pub const PATHS: u32 = 8;
    pub const DEFINITIONS: u32 = 9;
}

/// `NamedX` messages and maps in general.
const ENTRY_NAME: u32 = 1;
const ENTRY_VALUE: u32 = 2;
/// `Paths.path`; field 1 has its extensions.
const PATHS_PATH: u32 = 2;
/// Every other map message holds its entries here.
const ENTRIES: u32 = 1;
/// `Any.yaml`.
const ANY_YAML: u32 = 2;

const METHODS: [(&str, u32); 5] = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];
const PATH_ITEM_PARAMETERS: u32 = 9;

/// `Schema`'s plain texts.
const SCHEMA_TEXTS: [(&str, u32); 3] = [("$ref", 1), ("format", 2), ("description", 4)];
/// `QueryParameterSubSchema`'s and `PathParameterSubSchema`'s plain texts.
const QUERY_TEXTS: [(&str, u32); 4] = [("in", 2), ("description", 3), ("name", 4), ("type", 6)];
const PATH_TEXTS: [(&str, u32); 4] = [("in", 2), ("description", 3), ("name", 4), ("type", 5)];

pub struct Document(Writer);

impl Document {
    pub fn new(version: &str) -> Self {
        let mut out = Writer::default();
        out.text(document::SWAGGER, "2.0");
        out.message(document::INFO, |info| {
            info.text(1, "Kubernetes");
            info.text(2, version);
        });
        Document(out)
    }

    pub fn paths<'p>(&mut self, paths: impl Iterator<Item = (&'p str, Value)>) {
        self.0.message(document::PATHS, |out| {
            for (path, item) in paths {
                named(out, PATHS_PATH, path, |out| path_item(out, &item));
            }
        });
    }

    pub fn definitions<'d>(&mut self, definitions: impl Iterator<Item = (&'d str, Value)>) {
        self.0.message(document::DEFINITIONS, |out| {
            for (name, definition) in definitions {
                named(out, ENTRIES, name, |out| schema(out, &definition));
            }
        });
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.finish().into()
    }
}

fn named(out: &mut Writer, tag: u32, name: &str, value: impl FnOnce(&mut Writer)) {
    out.message(tag, |out| {
        out.text(ENTRY_NAME, name);
        out.message(ENTRY_VALUE, value);
    });
}

fn texts(out: &mut Writer, value: &Value, table: &[(&str, u32)]) {
    for (key, tag) in table {
        if let Some(text) = value.get(key).and_then(Value::as_str) {
            out.text(*tag, text);
        }
    }
}

fn list(value: &Value, key: &str) -> impl Iterator<Item = Value> {
    value.get(key).and_then(Value::as_array).cloned().unwrap_or_default().into_iter()
}

fn text_list(out: &mut Writer, tag: u32, value: &Value, key: &str) {
    for text in list(value, key) {
        out.text(tag, text.as_str().unwrap_or_default());
    }
}

/// The `x-` members, each as a `NamedAny` with YAML, for which JSON will do.
fn extensions(out: &mut Writer, tag: u32, value: &Value) {
    let none = Map::new();
    let members = value.as_object().unwrap_or(&none).iter();
    for (key, value) in members.filter(|(key, _)| key.starts_with("x-")) {
        named(out, tag, key, |any| any.text(ANY_YAML, &value.to_string()));
    }
}

fn schema(out: &mut Writer, value: &Value) {
    const REQUIRED: u32 = 19;
    const ADDITIONAL_PROPERTIES: u32 = 21;
    const TYPE: u32 = 22;
    const ITEMS: u32 = 23;
    const PROPERTIES: u32 = 25;
    const VENDOR_EXTENSION: u32 = 31;
    texts(out, value, &SCHEMA_TEXTS);
    text_list(out, REQUIRED, value, "required");
    if let Some(inner) = value.get("additionalProperties") {
        out.message(ADDITIONAL_PROPERTIES, |item| item.message(1, |out| schema(out, inner)));
    }
    if let Some(ty) = value.get("type").and_then(Value::as_str) {
        out.message(TYPE, |item| item.text(1, ty));
    }
    if let Some(inner) = value.get("items") {
        out.message(ITEMS, |item| item.message(1, |out| schema(out, inner)));
    }
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        out.message(PROPERTIES, |out| {
            for (name, property) in properties {
                named(out, ENTRIES, name, |out| schema(out, property));
            }
        });
    }
    extensions(out, VENDOR_EXTENSION, value);
}

fn path_item(out: &mut Writer, value: &Value) {
    for (method, tag) in METHODS {
        if let Some(inner) = value.get(method) {
            out.message(tag, |out| operation(out, inner));
        }
    }
    parameters(out, PATH_ITEM_PARAMETERS, value);
}

fn operation(out: &mut Writer, value: &Value) {
    const PARAMETERS: u32 = 8;
    const RESPONSES: u32 = 9;
    const VENDOR_EXTENSION: u32 = 13;
    text_list(out, 1, value, "tags");
    texts(out, value, &[("description", 3), ("operationId", 5)]);
    text_list(out, 6, value, "produces");
    text_list(out, 7, value, "consumes");
    parameters(out, PARAMETERS, value);
    if let Some(responses) = value.get("responses").and_then(Value::as_object) {
        out.message(RESPONSES, |out| {
            for (code, inner) in responses {
                named(out, ENTRIES, code, |out| out.message(1, |out| response(out, inner)));
            }
        });
    }
    text_list(out, 10, value, "schemes");
    extensions(out, VENDOR_EXTENSION, value);
}

fn response(out: &mut Writer, value: &Value) {
    texts(out, value, &[("description", 1)]);
    if let Some(inner) = value.get("schema") {
        out.message(2, |item| item.message(1, |out| schema(out, inner)));
    }
}

/// `ParametersItem { parameter 1 { body_parameter 1 | non_body_parameter 2 { query 3 | path 4 } } }`.
fn parameters(out: &mut Writer, tag: u32, value: &Value) {
    for parameter in list(value, "parameters") {
        out.message(tag, |item| item.message(1, |out| one_parameter(out, &parameter)));
    }
}

fn one_parameter(out: &mut Writer, value: &Value) {
    let required = value.get("required").and_then(Value::as_bool).unwrap_or_default();
    match value.get("in").and_then(Value::as_str) {
        Some("body") => out.message(1, |out| {
            texts(out, value, &[("description", 1), ("name", 2), ("in", 3)]);
            out.varint(4, required.into());
            if let Some(inner) = value.get("schema") {
                out.message(5, |out| schema(out, inner));
            }
        }),
        Some("path") => out.message(2, |out| {
            out.message(4, |out| {
                out.varint(1, required.into());
                texts(out, value, &PATH_TEXTS);
            });
        }),
        _ => out.message(2, |out| out.message(3, |out| texts(out, value, &QUERY_TEXTS))),
    }
}
