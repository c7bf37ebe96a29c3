//! Which groups, versions and resources there are, derived from the catalogue: the aggregated documents that current
//! clients ask for, and the older ones per group and version.

use api::catalogue::{CATALOGUE, Kind, Subresource};
use apimachinery::{Map, Value, json};

/// Served groups in the order of preference upstream gives them, for tools that take the first match for a short name.
const GROUP_ORDER: [&str; 10] = [
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
];

/// The named groups, in order, without the core group.
pub fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> =
        CATALOGUE.iter().map(|kind| kind.resource.group).filter(|g| !g.is_empty()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.sort_by_key(|group| GROUP_ORDER.iter().position(|g| g == group).unwrap_or(GROUP_ORDER.len()));
    groups
}

/// The versions of a group, in the catalogue's order.
pub fn versions(group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for kind in CATALOGUE.iter().filter(|kind| kind.resource.group == group) {
        if !versions.contains(&kind.resource.version) {
            versions.push(kind.resource.version);
        }
    }
    versions
}

fn kinds<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Kind> + 'a {
    let mut kinds: Vec<&Kind> =
        CATALOGUE.iter().filter(|k| k.resource.group == group && k.resource.version == version).collect();
    kinds.sort_by_key(|kind| kind.resource.plural);
    kinds.into_iter()
}

/// `/api`
pub fn api_versions(server_address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": versions(""),
           "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]})
}

/// `/apis`
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups().into_iter().map(api_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`
pub fn group(name: &str) -> Option<Value> {
    if name.is_empty() || versions(name).is_empty() {
        return None;
    }
    let mut group = api_group(name);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn api_group(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

/// `/api/v1` and `/apis/<group>/<version>`
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds(group, version) {
        resources.push(api_resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| api_subresource(kind, sub)));
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = apimachinery::GroupVersion::new(group, version).to_string();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

fn api_resource(kind: &Kind) -> Value {
    let resource = &kind.resource;
    let mut out = json!({"name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
                         "kind": resource.kind, "verbs": kind.verbs});
    if !kind.short_names.is_empty() {
        out["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        out["categories"] = json!(kind.categories);
    }
    if kind.is_stored() {
        out["storageVersionHash"] = storage_version_hash(kind).into();
    }
    out
}

fn api_subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut out = json!({"name": format!("{}/{}", kind.resource.plural, sub.name), "singularName": "",
                         "namespaced": kind.resource.namespaced, "kind": sub.kind, "verbs": sub.verbs});
    if (sub.group, sub.version) != (kind.resource.group, kind.resource.version) {
        out["group"] = sub.group.into();
        out["version"] = sub.version.into();
    }
    out
}

/// Equal as long as the version in the store is (upstream: StorageVersionHash).
fn storage_version_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    const HASH_BYTES: usize = 8;
    let stored = kind.stored().resource;
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..HASH_BYTES])
}

/// The aggregated document for `/api` (core) or `/apis`; `version` is that of `apidiscovery.k8s.io`.
pub fn aggregated(core: bool, version: &str) -> Value {
    let groups = if core { vec![""] } else { groups() };
    let items: Vec<Value> = groups.into_iter().map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
           "metadata": {}, "items": items})
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = kinds(group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = Map::new();
    if !group.is_empty() {
        metadata.insert("name".to_owned(), group.into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let resource = &kind.resource;
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut out = json!({"resource": resource.plural, "singularResource": resource.singular, "scope": scope,
                         "responseKind": response_kind(resource.group, resource.version, resource.kind),
                         "verbs": kind.verbs});
    if !kind.short_names.is_empty() {
        out["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        out["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let subresources: Vec<Value> = kind
            .subresources
            .iter()
            .map(|sub| {
                json!({"subresource": sub.name, "verbs": sub.verbs,
                       "responseKind": response_kind(sub.group, sub.version, sub.kind)})
            })
            .collect();
        out["subresources"] = subresources.into();
    }
    out
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_discoverable_both_ways() {
        for kind in CATALOGUE {
            let r = &kind.resource;
            let list = resource_list(r.group, r.version).expect("the group version is served");
            let names: Vec<&str> = list["resources"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|r| r["name"].as_str())
                .collect();
            assert!(names.contains(&r.plural), "{}", r.plural);
            let aggregated = aggregated(r.group.is_empty(), "v2").to_string();
            assert!(aggregated.contains(&format!("\"resource\":\"{}\"", r.plural)), "{}", r.plural);
        }
    }

    #[test]
    fn a_group_that_is_not_served_is_not_found() {
        assert!(group("nothing.example").is_none());
        assert!(group("").is_none());
        assert!(resource_list("apps", "v9").is_none());
        assert_eq!(group("apps").expect("is served")["preferredVersion"]["groupVersion"], "apps/v1");
    }
}
