//! Operations as JSON in either dialect, and a writer for objects too large to hold.

use std::io::{self, Write};

use crate::{Map, Value, json};

use super::definitions::{Definitions, Dialect};
use super::operations::{Answer, Body, Operation, Parameter, PathItem};
use crate::schema::Schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const PRODUCES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WATCH_PRODUCES: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
    "application/apply-patch+yaml",
];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn patches(operation: &Operation<'_>) -> Vec<&'static str> {
    PATCHES.into_iter().filter(|ty| *ty != STRATEGIC || operation.strategic).collect()
}

/// Writes one JSON object entry by entry.
pub struct ObjectWriter<'w, W: Write> {
    out: &'w mut W,
    first: bool,
}

impl<'w, W: Write> ObjectWriter<'w, W> {
    pub fn write(
        out: &'w mut W,
        content: impl FnOnce(&mut ObjectWriter<'_, W>) -> io::Result<()>,
    ) -> io::Result<()> {
        out.write_all(b"{")?;
        content(&mut ObjectWriter { out, first: true })?;
        out.write_all(b"}")
    }

    pub fn entry(&mut self, key: &str, value: &Value) -> io::Result<()> {
        self.key(key)?;
        serde_json::to_writer(&mut *self.out, value).map_err(io::Error::from)
    }

    pub fn object(
        &mut self,
        key: &str,
        content: impl FnOnce(&mut ObjectWriter<'_, W>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.key(key)?;
        ObjectWriter::write(self.out, content)
    }

    fn key(&mut self, key: &str) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *self.out, key).map_err(io::Error::from)?;
        self.out.write_all(b":")
    }
}

/// The definitions that a path's operations refer to.
pub fn add_definitions<'a>(meta: &'a Schema, item: &PathItem<'a>, out: &mut Definitions<'a>) {
    let mut shared = |name: &str| {
        if let Some(id) = meta.lookup(&format!("{META}{name}")) {
            out.add(meta, id);
        }
    };
    for operation in &item.operations {
        if operation.body == Body::DeleteOptions {
            shared("DeleteOptions");
        }
        if operation.answer == Answer::Status {
            shared("Status");
        }
    }
    for operation in &item.operations {
        if let Body::Object(ty) = operation.body {
            out.add(operation.schema, ty);
        }
        if let Answer::Object(ty) = operation.answer {
            out.add(operation.schema, ty);
        }
    }
}

/// The type every patch body refers to; it has no structure.
pub fn patch_definition() -> (String, Value) {
    let description = "A change to an object, of the form its content type names.";
    (format!("{META}Patch"), json!({"description": description, "type": "object"}))
}

/// A path with its operations.
pub fn path_item(item: &PathItem<'_>, dialect: Dialect) -> Value {
    let mut out = Map::new();
    for operation in &item.operations {
        let rendered = match dialect {
            Dialect::V2 => operation_v2(operation),
            Dialect::V3 => operation_v3(operation),
        };
        out.insert(operation.method, rendered);
    }
    let parameters = item.parameters.iter().map(|p| parameter(p, dialect)).collect();
    out.insert("parameters", parameters);
    Value::Object(out)
}

fn parameter(parameter: &Parameter, dialect: Dialect) -> Value {
    let Parameter { name, ty, description, in_path } = parameter;
    let place = if *in_path { "path" } else { "query" };
    let mut out = json!({"name": name, "in": place, "description": description});
    match dialect {
        Dialect::V2 => (out["type"], out["uniqueItems"]) = (json!(ty), json!(true)),
        Dialect::V3 => out["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    if *in_path {
        out["required"] = json!(true);
    }
    out
}

fn common(operation: &Operation<'_>) -> Value {
    let gvk = &operation.gvk;
    json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [operation.tag],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
    })
}

fn body(operation: &Operation<'_>, dialect: Dialect) -> Option<Value> {
    match operation.body {
        Body::None => None,
        Body::Object(ty) => Some(dialect.reference(&operation.schema[ty].name)),
        Body::Patch => Some(dialect.reference(&format!("{META}Patch"))),
        Body::DeleteOptions => Some(dialect.reference(&format!("{META}DeleteOptions"))),
    }
}

fn answer(operation: &Operation<'_>, dialect: Dialect) -> Value {
    match operation.answer {
        Answer::Object(ty) => dialect.reference(&operation.schema[ty].name),
        Answer::Status => dialect.reference(&format!("{META}Status")),
        Answer::Text => json!({"type": "string"}),
    }
}

fn produces(operation: &Operation<'_>) -> Vec<&'static str> {
    match (operation.answer, operation.action) {
        (Answer::Text, _) => vec!["*/*"],
        (_, "list") => PRODUCES.iter().chain(&WATCH_PRODUCES).copied().collect(),
        _ => PRODUCES.to_vec(),
    }
}

fn responses(operation: &Operation<'_>, success: &Value) -> Value {
    let mut out = Map::new();
    for code in std::iter::once(&"200").chain(operation.also) {
        let mut response = success.clone();
        response["description"] = json!(match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        });
        out.insert(*code, response);
    }
    out.insert("401", json!({"description": "Unauthorized"}));
    Value::Object(out)
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect::<Map>().into()
}

fn operation_v3(operation: &Operation<'_>) -> Value {
    let mut out = common(operation);
    if !operation.parameters.is_empty() {
        out["parameters"] = operation.parameters.iter().map(|p| parameter(p, Dialect::V3)).collect();
    }
    if let Some(schema) = body(operation, Dialect::V3) {
        let types = if operation.body == Body::Patch { patches(operation) } else { vec!["*/*"] };
        out["requestBody"] = json!({"content": content(&types, &schema)});
        if operation.body != Body::DeleteOptions {
            out["requestBody"]["required"] = json!(true);
        }
    }
    let success = json!({"content": content(&produces(operation), &answer(operation, Dialect::V3))});
    out["responses"] = responses(operation, &success);
    out
}

fn operation_v2(operation: &Operation<'_>) -> Value {
    let mut out = common(operation);
    let mut parameters: Vec<Value> = operation.parameters.iter().map(|p| parameter(p, Dialect::V2)).collect();
    if let Some(schema) = body(operation, Dialect::V2) {
        let required = operation.body != Body::DeleteOptions;
        parameters.insert(0, json!({"in": "body", "name": "body", "required": required, "schema": schema}));
    }
    out["parameters"] = parameters.into();
    out["consumes"] = if operation.body == Body::Patch { json!(patches(operation)) } else { json!(["*/*"]) };
    out["produces"] = json!(produces(operation));
    out["schemes"] = json!(["https"]);
    out["responses"] = responses(operation, &json!({"schema": answer(operation, Dialect::V2)}));
    out
}
