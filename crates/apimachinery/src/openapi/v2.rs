//! Version 2: one document for all groups, those that other servers serve included.

use std::collections::{BTreeMap, HashSet};
use std::io;

use serde_json::{Value, json};

use super::Resource;
use super::definitions::{Definitions, Dialect};
use super::merge::{Foreign, Merged};
use super::operations::{PathItem, paths};
use super::protobuf;
use super::render::{ObjectWriter, add_definitions, patch_definition, path_item};
use super::v3::bearer_token;
use crate::schema::Schema;

struct Parts<'a> {
    items: Vec<PathItem<'a>>,
    definitions: Definitions<'a>,
    /// What other servers add.
    others: Merged,
}

fn parts<'a>(meta: &'a Schema, resources: &[Resource<'a>], others: &[&Foreign]) -> Parts<'a> {
    let items: Vec<_> = resources.iter().flat_map(paths).collect();
    let mut definitions = Definitions::default();
    items.iter().for_each(|item| add_definitions(meta, item, &mut definitions));
    let own_paths: HashSet<&str> = items.iter().map(|item| item.path.as_str()).collect();
    let mut merged = Merged::default();
    for other in others {
        merged.add(other, |path| own_paths.contains(path), |name| definitions.get(name, Dialect::V2));
    }
    Parts { items, definitions, others: merged }
}

/// Writes the document as JSON.
pub fn v2<W: io::Write>(
    meta: &Schema,
    resources: &[Resource<'_>],
    others: &[&Foreign],
    version: &str,
    out: &mut W,
) -> io::Result<()> {
    let Parts { items, definitions, others } = parts(meta, resources, others);
    ObjectWriter::write(out, |document| {
        document.object("definitions", |schemas| {
            let (name, patch) = patch_definition();
            schemas.entry(&name, &patch)?;
            definitions.render(Dialect::V2).try_for_each(|(name, schema)| schemas.entry(name, &schema))?;
            others.definitions.iter().try_for_each(|(name, schema)| schemas.entry(name, schema))
        })?;
        document.entry("info", &json!({"title": "Kubernetes", "version": version}))?;
        document.object("paths", |paths| {
            items.iter().try_for_each(|item| paths.entry(&item.path, &path_item(item, Dialect::V2)))?;
            others.paths.iter().try_for_each(|(path, item)| paths.entry(path, item))
        })?;
        document.entry("security", &json!([{"BearerToken": []}]))?;
        document.entry("securityDefinitions", &json!({"BearerToken": bearer_token()}))?;
        document.entry("swagger", &json!("2.0"))
    })
}

/// The document as gnostic's protobuf.
pub fn v2_protobuf(meta: &Schema, resources: &[Resource<'_>], others: &[&Foreign], version: &str) -> Vec<u8> {
    let Parts { items, definitions, others } = parts(meta, resources, others);
    let mut document = protobuf::Document::new(version);
    let (name, patch) = patch_definition();
    let patch = std::iter::once((name.as_str(), patch));
    let own = items.iter().map(|item| (item.path.as_str(), path_item(item, Dialect::V2)));
    document.paths(own.chain(entries(&others.paths)));
    let own = definitions.render(Dialect::V2);
    document.definitions(patch.chain(own).chain(entries(&others.definitions)));
    document.finish()
}

fn entries(map: &BTreeMap<String, Value>) -> impl Iterator<Item = (&str, Value)> {
    map.iter().map(|(name, value)| (name.as_str(), value.clone()))
}
