//! Version 2: one document for all groups.

use std::io;

use serde_json::json;

use super::Resource;
use super::definitions::{Definitions, Dialect};
use super::operations::{PathItem, paths};
use super::protobuf;
use super::render::{ObjectWriter, add_definitions, patch_definition, path_item};
use super::v3::bearer_token;
use crate::schema::Schema;

struct Parts<'a> {
    items: Vec<PathItem<'a>>,
    definitions: Definitions<'a>,
}

fn parts<'a>(meta: &'a Schema, resources: &[Resource<'a>]) -> Parts<'a> {
    let items: Vec<_> = resources.iter().flat_map(paths).collect();
    let mut definitions = Definitions::default();
    items.iter().for_each(|item| add_definitions(meta, item, &mut definitions));
    Parts { items, definitions }
}

/// Writes the document as JSON.
pub fn v2<W: io::Write>(
    meta: &Schema,
    resources: &[Resource<'_>],
    version: &str,
    out: &mut W,
) -> io::Result<()> {
    let Parts { items, definitions } = parts(meta, resources);
    ObjectWriter::write(out, |document| {
        document.object("definitions", |schemas| {
            let (name, patch) = patch_definition();
            schemas.entry(&name, &patch)?;
            definitions.render(Dialect::V2).try_for_each(|(name, schema)| schemas.entry(name, &schema))
        })?;
        document.entry("info", &json!({"title": "Kubernetes", "version": version}))?;
        document.object("paths", |paths| {
            items.iter().try_for_each(|item| paths.entry(&item.path, &path_item(item, Dialect::V2)))
        })?;
        document.entry("security", &json!([{"BearerToken": []}]))?;
        document.entry("securityDefinitions", &json!({"BearerToken": bearer_token()}))?;
        document.entry("swagger", &json!("2.0"))
    })
}

/// The document as gnostic's protobuf.
pub fn v2_protobuf(meta: &Schema, resources: &[Resource<'_>], version: &str) -> Vec<u8> {
    let Parts { items, definitions } = parts(meta, resources);
    let mut document = protobuf::Document::new(version);
    let (name, patch) = patch_definition();
    let patch = std::iter::once((name.as_str(), patch));
    document.paths(items.iter().map(|item| (item.path.as_str(), path_item(item, Dialect::V2))));
    document.definitions(patch.chain(definitions.render(Dialect::V2)));
    document.finish()
}
