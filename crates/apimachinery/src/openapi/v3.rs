//! Version 3: an index, and one document per group version.

use std::io;

use crate::{Map, Value, json};

use super::definitions::{Definitions, Dialect};
use super::operations::paths;
use super::render::{ObjectWriter, add_definitions, patch_definition, path_item};
use super::{Resource, path};
use crate::gvk::GroupVersion;
use crate::schema::Schema;

/// Writes the document of one group version, whose resources these are. `meta` defines what all groups share.
pub fn v3<W: io::Write>(
    meta: &Schema,
    resources: &[Resource<'_>],
    version: &str,
    out: &mut W,
) -> io::Result<()> {
    let items: Vec<_> = resources.iter().flat_map(paths).collect();
    let mut definitions = Definitions::default();
    items.iter().for_each(|item| add_definitions(meta, item, &mut definitions));
    ObjectWriter::write(out, |document| {
        document.object("components", |components| {
            components.object("schemas", |schemas| {
                let (name, patch) = patch_definition();
                schemas.entry(&name, &patch)?;
                definitions.render(Dialect::V3).try_for_each(|(name, schema)| schemas.entry(name, &schema))
            })?;
            components.entry("securitySchemes", &json!({"BearerToken": bearer_token()}))
        })?;
        document.entry("info", &json!({"title": "Kubernetes", "version": version}))?;
        document.entry("openapi", &json!("3.0.0"))?;
        document.object("paths", |paths| {
            items.iter().try_for_each(|item| paths.entry(&item.path, &path_item(item, Dialect::V3)))
        })
    })
}

pub fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"})
}

/// The index: for each group version the URL of its document, under its hash.
pub fn v3_index<'a>(documents: impl Iterator<Item = (&'a GroupVersion, &'a str)>) -> Value {
    let entries: Map = documents
        .map(|(group_version, hash)| {
            let path = path(group_version);
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": entries})
}
