//! The types of the kinds that a policy names: of built-in kinds from the schema at hand, of others from what the server
//! publishes. Kinds that nobody serves are left out.

use api::admissionregistration::typechecking::{self, CheckedType};
use api::catalogue;
use apimachinery::Value;
use apimachinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use client::Client;
use client::error::Result;
use http::Method;

pub const UNKNOWN: CheckedType = CheckedType::Dyn;

pub struct Types {
    /// Of the objects that the policy is about, by kind.
    pub objects: Vec<(GroupVersionKind, CheckedType)>,
    pub params: CheckedType,
}

impl Types {
    pub async fn of(client: &Client, spec: &Value) -> Result<Types> {
        let mut objects: Vec<(GroupVersionKind, CheckedType)> = Vec::new();
        for resource in typechecking::resources(spec).into_iter().flatten() {
            let Some(kind) = kind_of(client, &resource).await? else { continue };
            if objects.iter().any(|(known, _)| *known == kind) {
                continue;
            }
            if let Some(of) = type_of(client, &kind).await? {
                objects.push((kind, of));
            }
        }
        objects
            .sort_by(|(a, _), (b, _)| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
        let params = match typechecking::param_kind(spec) {
            Some(kind) => type_of(client, &kind).await?,
            None => None,
        };
        Ok(Types { objects, params: params.unwrap_or(UNKNOWN) })
    }
}

async fn kind_of(client: &Client, resource: &GroupVersionResource) -> Result<Option<GroupVersionKind>> {
    let GroupVersionResource { group, version, resource } = resource;
    if let Some(row) = catalogue::by_resource(group, version, resource) {
        return Ok(Some(row.resource.gvk()));
    }
    let Some(list) = read(client, &format!("/apis/{group}/{version}")).await? else { return Ok(None) };
    let all = list["resources"].as_array().into_iter().flatten();
    let kind = all.filter(|found| found["name"] == **resource).find_map(|found| found["kind"].as_str());
    Ok(kind.map(|kind| GroupVersionKind::new(group, version, kind)))
}

async fn type_of(client: &Client, kind: &GroupVersionKind) -> Result<Option<CheckedType>> {
    if let Some(row) = catalogue::by_kind(&kind.group, &kind.version, &kind.kind) {
        return Ok(Some(typechecking::built_in(row.type_name)));
    }
    let GroupVersion { group, version } = kind.group_version();
    let Some(document) = read(client, &format!("/openapi/v3/apis/{group}/{version}")).await? else {
        return Ok(None);
    };
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let found = schemas.map(|(_, schema)| schema).find(|schema| is_of(schema, kind));
    Ok(found.map(|schema| typechecking::custom(kind, schema)))
}

fn is_of(schema: &Value, kind: &GroupVersionKind) -> bool {
    let kinds = schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
    kinds.into_iter().any(|found| {
        found["group"] == *kind.group && found["version"] == *kind.version && found["kind"] == *kind.kind
    })
}

/// None of what the server does not have, or will not tell.
async fn read(client: &Client, path: &str) -> Result<Option<Value>> {
    match client.json(Method::GET, path, None).await {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.status().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
