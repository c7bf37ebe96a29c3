//! Version 2: one document for all groups, those that other servers serve included.

use std::collections::HashSet;
use std::io;

use crate::{Value, json};

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
    /// That of patches, which is no type.
    patch: (String, Value),
    /// What other servers add.
    others: Merged,
}

fn parts<'a>(meta: &'a Schema, resources: &[Resource<'a>], others: &[&Foreign]) -> Parts<'a> {
    let items: Vec<_> = resources.iter().flat_map(paths).collect();
    let mut definitions = Definitions::default();
    items.iter().for_each(|item| add_definitions(meta, item, &mut definitions));
    let own_paths: HashSet<&str> = items.iter().map(|item| item.path.as_str()).collect();
    let patch = patch_definition();
    let own = |name: &str| {
        if name == patch.0 { Some(patch.1.clone()) } else { definitions.get(name, Dialect::V2) }
    };
    let mut merged = Merged::default();
    for other in others {
        merged.add(other, |path| own_paths.contains(path), own);
    }
    Parts { items, definitions, patch, others: merged }
}

impl Parts<'_> {
    /// Each name once, as what others add has it where that knows it.
    fn definitions(&self) -> impl Iterator<Item = (&str, Value)> {
        let (patch, schema) = &self.patch;
        let patch = std::iter::once((patch.as_str(), schema.clone()));
        let own = patch.chain(self.definitions.render(Dialect::V2));
        let others = self.others.definitions.iter();
        own.filter(|(name, _)| !self.others.definitions.contains_key(*name))
            .chain(others.map(|(name, schema)| (name.as_str(), schema.clone())))
    }
}

/// Writes the document as JSON.
pub fn v2<W: io::Write>(
    meta: &Schema,
    resources: &[Resource<'_>],
    others: &[&Foreign],
    version: &str,
    out: &mut W,
) -> io::Result<()> {
    let parts = parts(meta, resources, others);
    let Parts { items, others, .. } = &parts;
    ObjectWriter::write(out, |document| {
        document.object("definitions", |schemas| {
            parts.definitions().try_for_each(|(name, schema)| schemas.entry(name, &schema))
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
    let parts = parts(meta, resources, others);
    let mut document = protobuf::Document::new(version);
    let own = parts.items.iter().map(|item| (item.path.as_str(), path_item(item, Dialect::V2)));
    let others = parts.others.paths.iter().map(|(path, item)| (path.as_str(), item.clone()));
    document.paths(own.chain(others));
    document.definitions(parts.definitions());
    document.finish()
}
