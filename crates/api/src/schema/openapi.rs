//! The catalogue as OpenAPI sees it.

use apimachinery::openapi::{Resource, Subresource};
use apimachinery::schema::TypeId;

use super::schema;
use crate::catalogue::{CATALOGUE, Kind};

/// Every row of the catalogue, in its order.
pub fn resources() -> Vec<Resource<'static>> {
    CATALOGUE.iter().filter_map(resource).collect()
}

/// A row; none when the schema does not define its type.
pub fn resource(kind: &'static Kind) -> Option<Resource<'static>> {
    let schema = schema();
    Some(Resource {
        schema,
        group: kind.resource.group,
        version: kind.resource.version,
        kind: kind.resource.kind,
        plural: kind.resource.plural,
        namespaced: kind.resource.namespaced,
        verbs: kind.verbs,
        ty: schema.lookup(kind.type_name)?,
        list: schema.lookup(&format!("{}List", kind.type_name)),
        subresources: kind.subresources.iter().map(subresource).collect(),
    })
}

fn subresource(row: &'static crate::catalogue::Subresource) -> Subresource<'static> {
    Subresource {
        name: row.name,
        group: row.group,
        version: row.version,
        kind: row.kind,
        ty: exchanged_type(row),
        verbs: row.verbs,
    }
}

/// None for subresources that connect: their kind is the options of the call.
fn exchanged_type(row: &crate::catalogue::Subresource) -> Option<TypeId> {
    let connects = row.name == "log" || row.kind.ends_with("Options");
    if connects { None } else { schema().lookup(row.type_name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::Value;
    use apimachinery::openapi;

    fn document() -> Value {
        let mut out = Vec::new();
        let apps: Vec<_> = resources().into_iter().filter(|r| r.group == "apps").collect();
        openapi::v3(schema(), &apps, "v1.36.0", &mut out).expect("writing to memory succeeds");
        serde_json::from_slice(&out).expect("is JSON")
    }

    #[test]
    fn every_row_has_its_types() {
        assert_eq!(resources().len(), CATALOGUE.len());
        for resource in resources().iter().filter(|r| r.verbs.contains(&"list")) {
            assert!(resource.list.is_some(), "{}", resource.plural);
        }
    }

    #[test]
    fn every_reference_of_a_document_leads_somewhere() {
        let document = document();
        let mut pending = vec![&document];
        let mut references = 0;
        while let Some(value) = pending.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("references stay in the document");
                assert!(document.pointer(pointer).is_some(), "{reference}");
                references += 1;
            }
            pending.extend(value.as_array().into_iter().flatten());
            pending.extend(value.as_object().into_iter().flat_map(|map| map.values()));
        }
        assert!(references > 100);
    }

    #[test]
    fn a_deployment_is_described_as_upstream_describes_it() {
        let document = document();
        let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(spec["required"], apimachinery::json!(["selector", "template"]));
        assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
        let scale = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale";
        let scale = &document["paths"][scale]["put"];
        assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
        assert_eq!(scale["operationId"], "replaceAppsV1NamespacedDeploymentScale");
    }
}
