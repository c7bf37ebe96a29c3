//! Brings a default role or binding back to what every cluster has, keeping what its owners added.
//! Follows `pkg/registry/rbac/reconciliation`, without removal of further permissions and subjects.

use apimachinery::Value;
use apimachinery::json;
use serde::Deserialize;

use crate::rbac::{PolicyRule, uncovered};

/// Set to `false` by whoever wants an object left alone.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What is to be done about an object that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciliation {
    Keep,
    /// Write this instead.
    Update(Value),
    /// A binding whose role cannot be changed: delete it and create the default.
    Recreate,
}

pub fn reconcile(expected: &Value, existing: &Value) -> Reconciliation {
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Reconciliation::Keep;
    }
    if existing["roleRef"] != expected["roleRef"] {
        return Reconciliation::Recreate;
    }
    let mut wanted = existing.clone();
    for field in ["labels", "annotations"] {
        add_missing(&mut wanted["metadata"], field, &expected["metadata"][field]);
    }
    if expected["roleRef"].is_object() {
        add_subjects(&mut wanted, expected);
    } else if expected["aggregationRule"].is_object() {
        add_selectors(&mut wanted, expected);
    } else {
        add_rules(&mut wanted, expected);
    }
    if wanted == *existing { Reconciliation::Keep } else { Reconciliation::Update(wanted) }
}

/// Expected labels and annotations are added; a changed value stays.
fn add_missing(metadata: &mut Value, field: &str, expected: &Value) {
    for (key, value) in expected.as_object().into_iter().flatten() {
        if metadata[field][key].is_null() {
            metadata[field][key] = value.clone();
        }
    }
}

/// The list at `field`, made when it is not there.
fn list<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    if !object[field].is_array() {
        object[field] = json!([]);
    }
    object[field].as_array_mut().expect("it was made a list above")
}

fn add_subjects(wanted: &mut Value, expected: &Value) {
    let same = |a: &Value, b: &Value| {
        ["kind", "name", "namespace"].iter().all(|field| a[*field].as_str() == b[*field].as_str())
    };
    for subject in expected["subjects"].as_array().into_iter().flatten() {
        let known = list(wanted, "subjects");
        if !known.iter().any(|other| same(other, subject)) {
            known.push(subject.clone());
        }
    }
}

/// The rules of an aggregated role are its controller's; only what it gathers is looked at.
fn add_selectors(wanted: &mut Value, expected: &Value) {
    if wanted["aggregationRule"].is_null() {
        wanted["aggregationRule"] = json!({});
    }
    for selector in expected["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        let known = list(&mut wanted["aggregationRule"], "clusterRoleSelectors");
        if !known.contains(selector) {
            known.push(selector.clone());
        }
    }
}

fn add_rules(wanted: &mut Value, expected: &Value) {
    let rules = |object: &Value| {
        Option::<Vec<PolicyRule>>::deserialize(&object["rules"]).ok().flatten().unwrap_or_default()
    };
    let owned = rules(wanted);
    let missing = uncovered(&owned.iter().collect::<Vec<_>>(), &rules(expected));
    if !missing.is_empty() {
        list(wanted, "rules").extend(missing.iter().map(|rule| json!(rule)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap_objects;

    fn default(kind: &str, name: &str) -> Value {
        let is_it = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
        bootstrap_objects().into_iter().find(is_it).expect("is a default")
    }

    /// The update that a changed object gets.
    fn update(expected: &Value, change: impl FnOnce(&mut Value)) -> Value {
        let mut existing = expected.clone();
        change(&mut existing);
        match reconcile(expected, &existing) {
            Reconciliation::Update(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_kept() {
        for object in bootstrap_objects() {
            assert_eq!(reconcile(&object, &object), Reconciliation::Keep, "{object}");
        }
    }

    #[test]
    fn missing_rules_come_back_and_added_ones_stay() {
        let role = default("ClusterRole", "system:basic-user");
        let added = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let updated = update(&role, |existing| existing["rules"] = json!([added]));
        let rules = updated["rules"].as_array().expect("rules");
        assert_eq!(rules[0], added);
        assert_eq!(reconcile(&role, &updated), Reconciliation::Keep);
        let updated = update(&role, |existing| existing["rules"] = Value::Null);
        assert_eq!(reconcile(&role, &updated), Reconciliation::Keep);
    }

    #[test]
    fn aggregation_labels_and_subjects_come_back() {
        let admin = default("ClusterRole", "admin");
        assert_eq!(
            update(&admin, |o| o["aggregationRule"] = Value::Null)["aggregationRule"],
            admin["aggregationRule"]
        );
        let part = default("ClusterRole", "system:aggregate-to-view");
        assert_eq!(
            update(&part, |o| o["metadata"]["labels"] = Value::Null)["metadata"]["labels"],
            part["metadata"]["labels"]
        );
        let binding = default("ClusterRoleBinding", "system:discovery");
        assert_eq!(update(&binding, |o| o["subjects"] = Value::Null)["subjects"], binding["subjects"]);
    }

    #[test]
    fn an_owner_may_opt_out_and_another_role_needs_another_binding() {
        let role = default("ClusterRole", "system:basic-user");
        let mut own = role.clone();
        own["rules"] = json!([]);
        own["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(reconcile(&role, &own), Reconciliation::Keep);
        let binding = default("ClusterRoleBinding", "system:discovery");
        let mut other = binding.clone();
        other["roleRef"]["name"] = "view".into();
        assert_eq!(reconcile(&binding, &other), Reconciliation::Recreate);
    }
}
