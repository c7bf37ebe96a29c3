//! What others serve, as aggregated discovery shows it. Follows `discoveryManager.fetchFreshDiscoveryForService` and
//! `convertAPIResourcesList`.

use std::sync::Arc;

use apimachinery::meta::str_at;
use apimachinery::openapi::Foreign;
use apimachinery::{GroupVersion, Value, json};
use http::HeaderValue;

/// What one group version of somebody else's consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remote {
    pub group_priority: i64,
    pub version_priority: i64,
    /// The `resources` of aggregated discovery.
    pub resources: Vec<Value>,
    /// Whether that was said when last asked.
    pub is_fresh: bool,
    pub open_api: OpenApi,
}

/// What an extension server's documents say of one group version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenApi {
    /// Tells states of its version 3 document apart; none when it has none.
    pub hash: Option<String>,
    pub v2: Option<Arc<Described>>,
}

/// What a version 2 document says of one group version.
#[derive(Debug, PartialEq)]
pub struct Described {
    /// By which the server says that nothing has changed.
    pub tag: Option<HeaderValue>,
    pub document: Foreign,
}

impl Remote {
    /// What version 2 says of it.
    pub fn open_api(&self) -> Option<&Foreign> {
        self.open_api.v2.as_ref().map(|described| &described.document)
    }
}

/// An `APIResourceList` in the form of aggregated discovery.
pub fn resources(version: &GroupVersion, list: &Value) -> Vec<Value> {
    let said = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out: Vec<Value> = Vec::new();
    for resource in said {
        let name = str_at(resource, &["name"]);
        let kind = json!({"group": or(resource, "group", &version.group),
            "version": or(resource, "version", &version.version), "kind": resource["kind"]});
        let Some((main, sub)) = name.split_once('/') else {
            out.push(main_resource(resource, kind));
            continue;
        };
        let sub = json!({"subresource": sub, "responseKind": kind, "verbs": resource["verbs"]});
        if let Some(main) = out.iter_mut().find(|known| known["resource"] == main)
            && let Some(main) = main.as_object_mut()
            && let Some(all) = main.entry("subresources").or_insert_with(|| json!([])).as_array_mut()
        {
            all.push(sub);
        }
    }
    out
}

fn main_resource(resource: &Value, kind: Value) -> Value {
    let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
    let mut out = json!({"resource": resource["name"], "responseKind": kind, "scope": scope,
        "singularResource": or(resource, "singularName", ""), "verbs": resource["verbs"]});
    for field in ["shortNames", "categories"] {
        if resource[field].is_array() {
            out[field] = resource[field].clone();
        }
    }
    out
}

fn or<'a>(resource: &'a Value, field: &str, otherwise: &'a str) -> &'a str {
    match str_at(resource, &[field]) {
        "" => otherwise,
        said => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_list_becomes_aggregated_discovery() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "group": "g", "version": "v2", "verbs": ["get"]}]});
        assert_eq!(
            resources(&GroupVersion::new("e.com", "v1"), &list),
            [
                json!({"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "verbs": ["get"],
                "responseKind": {"group": "e.com", "version": "v1", "kind": "Flunder"}, "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "verbs": ["get"],
                    "responseKind": {"group": "g", "version": "v2", "kind": "Flunder"}}]})
            ]
        );
    }
}
