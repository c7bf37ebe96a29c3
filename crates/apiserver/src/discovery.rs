//! Which groups, versions and resources there are, derived from the catalogue and the definitions in the store: the
//! aggregated documents that current clients ask for, and the older ones per group and version.

mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::apiregistration::LOCAL;
use api::catalogue::{Kind, Subresource};
use api::resource::intern;
use apimachinery::{GroupVersion, Map, Value, json};
pub use kept::Kept;

use crate::aggregation::Remote;
use crate::core::Core;
use crate::kind::KindRef;

/// The group of APIServices comes before all others.
const FIRST_GROUP: &str = "apiregistration.k8s.io";
const FIRST_GROUP_PRIORITY: i64 = 20_000;

/// How the groups of custom resources rank (upstream: crdRegistrationController).
pub const CUSTOM_GROUP_PRIORITY: i64 = 1000;
pub const CUSTOM_VERSION_PRIORITY: i64 = 100;

/// One version of a group with its kinds, by their plurals.
pub struct Version {
    pub name: &'static str,
    kinds: Vec<KindRef>,
    /// What somebody else serves under it.
    remote: Option<Arc<Remote>>,
}

impl Version {
    /// Its rank in its group.
    fn priority(&self) -> i64 {
        self.remote.as_ref().map_or(CUSTOM_VERSION_PRIORITY, |remote| remote.version_priority)
    }
}

/// The rank of a group among all; those of the same rank stand in the order of their names.
fn group_priority(group: &str, versions: &[Version]) -> i64 {
    if group == FIRST_GROUP {
        return FIRST_GROUP_PRIORITY;
    }
    let local = LOCAL.iter().filter(|row| row.0 == group).map(|row| row.2);
    let remote = versions.iter().filter_map(|version| version.remote.as_ref()).map(|r| r.group_priority);
    let custom = versions.iter().any(|version| version.remote.is_none()).then_some(CUSTOM_GROUP_PRIORITY);
    local.chain(remote).chain(custom).max().unwrap_or_default()
}

/// All that is served at one moment: the groups in order, each with its versions, the preferred one first.
pub struct Served(Vec<(&'static str, Vec<Version>)>);

impl Served {
    pub fn new(core: &Core) -> Served {
        let definitions = core.customresources.all(&core.store);
        let custom = definitions.iter().flat_map(|definition| definition.served());
        let kinds = core.built_in().map(KindRef::BuiltIn).chain(custom.cloned().map(KindRef::Custom));
        Served::of(kinds, &core.aggregator.discovered.read())
    }

    fn of(kinds: impl Iterator<Item = KindRef>, remotes: &BTreeMap<GroupVersion, Arc<Remote>>) -> Served {
        let mut groups: BTreeMap<&'static str, Vec<Version>> = BTreeMap::new();
        for kind in kinds {
            let resource = kind.resource;
            let versions = groups.entry(resource.group).or_default();
            match versions.iter_mut().find(|version| version.name == resource.version) {
                Some(version) => version.kinds.push(kind),
                None => versions.push(Version { name: resource.version, kinds: vec![kind], remote: None }),
            }
        }
        for (version, remote) in remotes {
            let versions = groups.entry(intern(&version.group)).or_default();
            // Who answers for the version serves all of it.
            versions.retain(|known| known.name != version.version);
            let name = intern(&version.version);
            versions.push(Version { name, kinds: Vec::new(), remote: Some(remote.clone()) });
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        for (_, versions) in &mut groups {
            let built_in = |version: &Version| version.kinds.iter().any(|kind| kind.custom().is_none());
            // The catalogue's order stands for itself; versions of custom kinds rank by their names.
            if !versions.iter().any(built_in) {
                let by_name =
                    |a: &Version, b: &Version| apiextensions::names::compare_versions(a.name, b.name);
                versions.sort_by(|a, b| b.priority().cmp(&a.priority()).then_with(|| by_name(a, b)));
            }
            versions.iter_mut().for_each(|version| version.kinds.sort_by_key(|kind| kind.resource.plural));
        }
        groups.sort_by_key(|(group, versions)| std::cmp::Reverse(group_priority(group, versions)));
        Served(groups)
    }

    /// The named groups, in order, without the core group.
    pub fn groups(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(group, _)| *group).filter(|group| !group.is_empty())
    }

    /// The versions of a group, the preferred one first; none when it is not served.
    pub fn versions(&self, group: &str) -> &[Version] {
        self.0.iter().find(|(name, _)| *name == group).map_or(&[], |(_, versions)| versions)
    }

    fn kinds(&self, group: &str, version: &str) -> &[KindRef] {
        let found = self.versions(group).iter().find(|served| served.name == version);
        found.map_or(&[], |served| &served.kinds)
    }

    /// `/api`
    pub fn api_versions(&self, server_address: &str) -> Value {
        let versions: Vec<&str> = self.versions("").iter().map(|version| version.name).collect();
        json!({"kind": "APIVersions", "versions": versions,
               "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]})
    }

    /// `/apis`
    pub fn group_list(&self) -> Value {
        let groups: Vec<Value> = self.groups().map(|group| self.api_group(group)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `/apis/<group>`
    pub fn group(&self, name: &str) -> Option<Value> {
        if name.is_empty() || self.versions(name).is_empty() {
            return None;
        }
        let mut group = self.api_group(name);
        group["kind"] = "APIGroup".into();
        group["apiVersion"] = "v1".into();
        Some(group)
    }

    fn api_group(&self, name: &str) -> Value {
        let versions: Vec<Value> = self
            .versions(name)
            .iter()
            .map(|version| json!({"groupVersion": format!("{name}/{}", version.name), "version": version.name}))
            .collect();
        json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
    }

    /// `/api/v1` and `/apis/<group>/<version>`
    pub fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let mut resources = Vec::new();
        for kind in self.kinds(group, version) {
            resources.push(api_resource(kind));
            resources.extend(kind.subresources.iter().map(|sub| api_subresource(kind, sub)));
        }
        if resources.is_empty() {
            return None;
        }
        let group_version = apimachinery::GroupVersion::new(group, version).to_string();
        let mut list =
            json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
        // The core group's list is as old as lists without a version.
        if !group.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        Some(list)
    }

    /// The aggregated document for `/api` (core) or `/apis`.
    pub fn aggregated(&self, core: bool) -> Value {
        let groups = self.0.iter().filter(|(group, _)| group.is_empty() == core);
        let items: Vec<Value> = groups.map(|(group, versions)| aggregated_group(group, versions)).collect();
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
               "metadata": {}, "items": items})
    }
}

fn api_resource(kind: &KindRef) -> Value {
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

/// The version in which etcd holds definitions, by whichever server they were written.
const DEFINITION_STORAGE_VERSION: &str = "v1beta1";

/// Equal as long as the version in the store is (upstream: StorageVersionHash).
fn storage_version_hash(kind: &KindRef) -> String {
    use base64::Engine as _;
    const HASH_BYTES: usize = 8;
    let stored = kind.stored().resource;
    let version: &str = match kind.custom() {
        Some(custom) => &custom.shared.storage_version,
        None if stored == api::resource::CUSTOM_RESOURCE_DEFINITIONS => DEFINITION_STORAGE_VERSION,
        None => stored.version,
    };
    let text = format!("{}/{version}/{}", stored.group, stored.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..HASH_BYTES])
}

fn aggregated_group(group: &str, versions: &[Version]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            if let Some(remote) = &version.remote {
                let freshness = if remote.is_fresh { "Current" } else { "Stale" };
                return json!({"version": version.name, "resources": remote.resources, "freshness": freshness});
            }
            let resources: Vec<Value> = version.kinds.iter().map(aggregated_resource).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = Map::new();
    if !group.is_empty() {
        metadata.insert("name", group.into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &KindRef) -> Value {
    let resource = &kind.resource;
    // Group and version of what is built in go without saying, unless they are not those of the document.
    let response_kind = |group: &str, version: &str, name: &str| match kind {
        KindRef::BuiltIn(_) if (group, version) == (resource.group, resource.version) => {
            response_kind("", "", name)
        }
        _ => response_kind(group, version, name),
    };
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
    use api::catalogue::CATALOGUE;

    use super::*;

    #[test]
    fn every_kind_is_discoverable_both_ways() {
        let served = Served::of(CATALOGUE.iter().map(KindRef::BuiltIn), &BTreeMap::new());
        for kind in CATALOGUE {
            let r = &kind.resource;
            let list = served.resource_list(r.group, r.version).expect("the group version is served");
            let names: Vec<&str> = list["resources"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|r| r["name"].as_str())
                .collect();
            assert!(names.contains(&r.plural), "{}", r.plural);
            let aggregated = served.aggregated(r.group.is_empty()).to_string();
            assert!(aggregated.contains(&format!("\"resource\":\"{}\"", r.plural)), "{}", r.plural);
        }
    }

    #[test]
    fn a_group_that_is_not_served_is_not_found() {
        let served = Served::of(CATALOGUE.iter().map(KindRef::BuiltIn), &BTreeMap::new());
        assert!(served.group("nothing.example").is_none());
        assert!(served.group("").is_none());
        assert!(served.resource_list("apps", "v9").is_none());
        assert_eq!(served.group("apps").expect("is served")["preferredVersion"]["groupVersion"], "apps/v1");
    }
}
