//! An APIService for every group and version that this server serves itself, those of custom resources included.
//! Follows `kube-aggregator/pkg/controllers/autoregister` and `crdRegistrationController`.

use std::collections::BTreeMap;

use api::apiregistration::{AUTOMANAGED, LOCAL, LocalService, local_service};
use api::resource;
use apimachinery::meta::str_at;
use apimachinery::{GroupVersion, Value, json};

use super::{Change, Duty, Write, stored, stored_one};
use crate::aggregation::GroupServed;
use crate::core::Core;
use crate::discovery::{CUSTOM_GROUP_PRIORITY, CUSTOM_VERSION_PRIORITY};

/// Marks the objects that follow the definitions of custom resources.
const CONTINUOUSLY: &str = "true";

pub const DUTY: Duty =
    Duty { watched: &[resource::API_SERVICES, resource::CUSTOM_RESOURCE_DEFINITIONS], all, after };

fn all(core: &Core) -> Vec<Write> {
    let mut wanted: BTreeMap<GroupVersion, Value> =
        local(core).map(|row| (group_version(row), local_service(row))).collect();
    for definition in core.customresources.all(&core.store) {
        for kind in definition.served() {
            let version = kind.kind.resource.gvr().group_version();
            wanted.entry(version.clone()).or_insert_with(|| custom_service(&version));
        }
    }
    let found = stored(core, resource::API_SERVICES);
    let mut writes: Vec<Write> = found
        .iter()
        .filter(|found| follows_definitions(found) && !wanted.contains_key(&served_by(found)))
        .map(|found| Write::Delete(resource::API_SERVICES, found.clone()))
        .collect();
    writes.extend(wanted.into_values().filter_map(|wanted| {
        let found = found.iter().find(|found| found["metadata"]["name"] == wanted["metadata"]["name"]);
        decide(Some(wanted), found.cloned())
    }));
    writes
}

fn after(core: &Core, change: &Change) -> Vec<Write> {
    let object = change.object();
    let concerned = if str_at(object, &["kind"]) == resource::API_SERVICES.kind {
        vec![served_by(object)]
    } else {
        let group = str_at(object, &["spec", "group"]);
        let said = [&change.now, &change.before].into_iter().flatten();
        let versions = said.flat_map(|object| object["spec"]["versions"].as_array().into_iter().flatten());
        let mut named: Vec<GroupVersion> =
            versions.map(|version| GroupVersion::new(group, str_at(version, &["name"]))).collect();
        named.sort();
        named.dedup();
        named
    };
    concerned.iter().filter_map(|version| settle(core, version)).collect()
}

pub fn settle(core: &Core, version: &GroupVersion) -> Option<Write> {
    let name = format!("{}.{}", version.version, version.group);
    let found = stored_one(core, resource::API_SERVICES, "", &name);
    let built_in = local(core).find(|row| group_version(row) == *version).map(local_service);
    let in_process = || core.aggregator.registered(version).map(|served| registered_service(&served));
    let wanted =
        built_in.or_else(in_process).or_else(|| serves(core, version).then(|| custom_service(version)));
    decide(wanted, found)
}

/// What this server serves by itself.
fn local(core: &Core) -> impl Iterator<Item = &'static LocalService> {
    LOCAL.iter().filter(|row| core.config.enablement.serves_any_of(&group_version(row)))
}

/// Whether any definition serves this version.
fn serves(core: &Core, version: &GroupVersion) -> bool {
    let definitions = core.customresources.all(&core.store);
    let mut kinds = definitions.iter().flat_map(|definition| definition.served());
    kinds.any(|kind| {
        kind.kind.resource.group == version.group && kind.kind.resource.version == version.version
    })
}

fn decide(wanted: Option<Value>, found: Option<Value>) -> Option<Write> {
    match (wanted, found) {
        (None, None) => None,
        (None, Some(found)) => {
            follows_definitions(&found).then_some(Write::Delete(resource::API_SERVICES, found))
        }
        (Some(wanted), None) => Some(Write::Create(resource::API_SERVICES, wanted)),
        (Some(wanted), Some(mut found)) => {
            let ours = !str_at(&found, &["metadata", "labels", AUTOMANAGED]).is_empty();
            if !ours || found["spec"] == wanted["spec"] {
                return None;
            }
            found["spec"] = wanted["spec"].clone();
            Some(Write::Update(resource::API_SERVICES, found))
        }
    }
}

fn follows_definitions(service: &Value) -> bool {
    str_at(service, &["metadata", "labels", AUTOMANAGED]) == CONTINUOUSLY
}

fn group_version(&(group, version, ..): &(&str, &str, i64, i64)) -> GroupVersion {
    GroupVersion::new(group, version)
}

fn served_by(service: &Value) -> GroupVersion {
    GroupVersion::new(str_at(service, &["spec", "group"]), str_at(service, &["spec", "version"]))
}

fn registered_service(served: &GroupServed) -> Value {
    let GroupServed { group_version: of, group_priority_minimum, version_priority } = served;
    local_service(&(&of.group, &of.version, *group_priority_minimum, *version_priority))
}

fn custom_service(version: &GroupVersion) -> Value {
    let mut service =
        local_service(&(&version.group, &version.version, CUSTOM_GROUP_PRIORITY, CUSTOM_VERSION_PRIORITY));
    service["metadata"]["labels"] = json!({AUTOMANAGED: CONTINUOUSLY});
    service
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_service_of_the_same_name_is_left_alone() {
        let wanted = custom_service(&GroupVersion::new("e.com", "v1"));
        assert_eq!(decide(Some(wanted.clone()), Some(wanted.clone())), None);
        let mut changed = wanted.clone();
        changed["spec"]["versionPriority"] = json!(1);
        assert!(matches!(decide(Some(wanted.clone()), Some(changed.clone())), Some(Write::Update(..))));
        changed["metadata"]["labels"] = json!({});
        assert_eq!(decide(Some(wanted.clone()), Some(changed.clone())), None);
        assert_eq!(decide(None, Some(changed)), None);
        assert!(matches!(decide(None, Some(wanted)), Some(Write::Delete(..))));
    }
}
