//! Who owns a workload's number of replicas, told through its Scale (follows `ScaleHandler`).
//!
//! A Scale has managed fields of its own for as long as a configuration is applied to it: whoever owns the replicas in the
//! workload owns `spec.replicas` of the Scale. What has become of them there is then told of the workload.

use super::element::Path;
use super::entry::{DecodeError, Entry, ManagedFields};
use super::set::Set;
use crate::Value;

/// The version in which a Scale's managers are named.
pub const SCALE_VERSION: &str = "autoscaling/v1";

const REPLICAS_OF_SCALE: [&str; 2] = ["spec", "replicas"];

/// The managers of a workload that can be scaled.
pub struct ScaleHandler<'a> {
    managed: ManagedFields,
    /// In which the workload is scaled, such as `apps/v1`.
    api_version: &'a str,
    /// Where the workload has its replicas, in whichever version.
    replicas: Path,
}

impl<'a> ScaleHandler<'a> {
    /// `fields` are the workload's `metadata.managedFields`.
    pub fn new(fields: Option<&Value>, api_version: &'a str, replicas: &[&str]) -> Result<Self, DecodeError> {
        Ok(ScaleHandler {
            managed: ManagedFields::decode(fields)?,
            api_version,
            replicas: Path::fields(replicas),
        })
    }

    /// The `metadata.managedFields` of the Scale.
    pub fn to_subresource(&self) -> Value {
        let owners = self.managed.entries.iter().filter(|entry| entry.fields.has(&self.replicas));
        let entries = owners.map(|entry| Entry {
            api_version: SCALE_VERSION.to_owned(),
            fields: Set::from_paths(&[&REPLICAS_OF_SCALE]),
            ..entry.clone()
        });
        ManagedFields { entries: entries.collect() }.encode()
    }

    /// The `metadata.managedFields` of the workload, after those of the Scale have become `fields`.
    pub fn to_parent(self, fields: Option<&Value>) -> Result<Value, DecodeError> {
        let replicas_of_scale = Path::fields(&REPLICAS_OF_SCALE);
        let mut owners = ManagedFields::decode(fields)?.entries;
        owners.retain(|entry| entry.fields.has(&replicas_of_scale));
        let mut replicas = Set::default();
        replicas.insert(&self.replicas);
        let mut managed = self.managed;
        for entry in managed.entries.iter_mut().filter(|entry| entry.fields.has(&self.replicas)) {
            let as_owner = Entry { api_version: SCALE_VERSION.to_owned(), ..entry.clone() };
            match owners.iter().position(|owner| owner.is_same_manager(&as_owner)) {
                Some(at) => drop(owners.remove(at)),
                None => entry.fields = std::mem::take(&mut entry.fields).difference(&replicas),
            }
        }
        managed.drop_empty();
        managed.entries.extend(owners.into_iter().map(|owner| Entry {
            api_version: self.api_version.to_owned(),
            fields: replicas.clone(),
            // Upstream looks for it where it is not.
            time: String::new(),
            ..owner
        }));
        Ok(managed.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn entry(manager: &str, operation: &str, api_version: &str, subresource: &str, fields: Value) -> Value {
        let mut entry = json!({"apiVersion": api_version, "fieldsType": "FieldsV1", "fieldsV1": fields,
            "manager": manager, "operation": operation});
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    fn replicas() -> Value {
        json!({"f:spec": {"f:replicas": {}}})
    }

    /// What becomes of a workload's entries when those of its Scale become `after`.
    fn check(workload: Value, scale: Value, after: Value, expect: Value) {
        let handler = ScaleHandler::new(Some(&workload), "apps/v1", &["spec", "replicas"]).expect("decodes");
        assert_eq!(handler.to_subresource(), scale);
        assert_eq!(handler.to_parent(Some(&after)), Ok(expect));
    }

    #[test]
    fn who_takes_the_replicas_over_takes_them_from_the_workloads_owner() {
        let rest = json!({"f:spec": {"f:paused": {}}});
        let all = json!({"f:spec": {"f:paused": {}, "f:replicas": {}}});
        check(
            json!([
                entry("a", "Update", "apps/v1", "", all),
                entry("b", "Update", "apps/v1", "", replicas())
            ]),
            json!([
                entry("a", "Update", SCALE_VERSION, "", replicas()),
                entry("b", "Update", SCALE_VERSION, "", replicas()),
            ]),
            json!([entry("c", "Apply", SCALE_VERSION, "scale", replicas())]),
            json!([
                entry("c", "Apply", "apps/v1", "scale", replicas()),
                entry("a", "Update", "apps/v1", "", rest),
            ]),
        );
    }

    #[test]
    fn who_owns_the_replicas_still_keeps_them() {
        let owner = |version| entry("a", "Update", version, "", replicas());
        let joined = entry("c", "Apply", SCALE_VERSION, "scale", replicas());
        check(
            json!([owner("apps/v1")]),
            json!([owner(SCALE_VERSION)]),
            json!([joined, owner(SCALE_VERSION)]),
            json!([entry("c", "Apply", "apps/v1", "scale", replicas()), owner("apps/v1")]),
        );
    }

    #[test]
    fn who_owns_nothing_of_the_replicas_is_left_alone() {
        let other = || json!([entry("a", "Apply", "apps/v1beta2", "", json!({"f:spec": {"f:paused": {}}}))]);
        check(other(), Value::Null, Value::Null, other());
    }
}
