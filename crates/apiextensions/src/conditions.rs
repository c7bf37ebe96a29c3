//! The conditions of a definition, and the status that follows from what it asks for.
//! Follows upstream's naming, establishing and api-approval controllers, whose outcomes are computed here at once.

use apimachinery::{Map, Value, json, time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::names::{self, Names};

pub const ESTABLISHED: &str = "Established";
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
pub const TERMINATING: &str = "Terminating";
const API_APPROVED: &str = "KubernetesAPIApprovalPolicyConformant";

/// Says where a kind in one of Kubernetes' own groups was approved.
const APPROVAL_ANNOTATION: &str = "api-approved.kubernetes.io";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub condition_type: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    pub fn new(condition_type: &str, status: bool, reason: &str, message: impl Into<String>) -> Condition {
        Condition {
            condition_type: condition_type.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            last_transition_time: None,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

pub fn is_true(conditions: &[Condition], condition_type: &str) -> bool {
    conditions.iter().any(|c| c.condition_type == condition_type && c.status == "True")
}

/// Puts a condition in its place; its time changes with its status only.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition, now: Timestamp) {
    let now = Some(time::format_time(now));
    match conditions.iter_mut().find(|known| known.condition_type == condition.condition_type) {
        Some(known) => {
            let same = known.status == condition.status;
            condition.last_transition_time = if same { known.last_transition_time.take() } else { now };
            *known = condition;
        }
        None => {
            condition.last_transition_time = now;
            conditions.push(condition);
        }
    }
}

/// Brings a definition's status up to what it asks for, `others` being the accepted names of the others in its group.
pub fn settle(object: &mut Value, others: &[Names], now: Timestamp) {
    let definition = Definition::read(object);
    let mut conditions = definition.status.conditions.clone();
    let (accepted, conflict) =
        names::accept(&definition.spec.names, &definition.status.accepted_names, others);
    let is_accepted = conflict.is_none();
    let naming = match conflict {
        None => Condition::new(NAMES_ACCEPTED, true, "NoConflicts", "no conflicts found"),
        Some(conflict) => Condition::new(NAMES_ACCEPTED, false, conflict.reason, conflict.message),
    };
    set(&mut conditions, naming, now);
    if !is_true(&conditions, ESTABLISHED) {
        let established = match is_accepted {
            true => {
                let message = "the initial names have been accepted";
                Condition::new(ESTABLISHED, true, "InitialNamesAccepted", message)
            }
            false => Condition::new(ESTABLISHED, false, "NotAccepted", "not all names are accepted"),
        };
        set(&mut conditions, established, now);
    }
    if let Some(approval) = approval(object, &definition.spec.group) {
        set(&mut conditions, approval, now);
    }
    let mut stored_versions = definition.status.stored_versions.clone();
    if let Some(storage) = definition.storage_version()
        && !stored_versions.contains(&storage.name)
    {
        stored_versions.push(storage.name.clone());
    }
    write(object, &conditions, &accepted, &stored_versions);
}

fn write(object: &mut Value, conditions: &[Condition], accepted: &Names, stored_versions: &[String]) {
    if !object["status"].is_object() {
        object["status"] = Value::Object(Map::new());
    }
    object["status"]["conditions"] = json!(conditions);
    object["status"]["acceptedNames"] = json!(accepted);
    object["status"]["storedVersions"] = json!(stored_versions);
}

/// Says that the instances are being deleted.
pub fn set_terminating(object: &mut Value, condition: Condition, now: Timestamp) {
    let mut conditions = Definition::read(object).status.conditions;
    set(&mut conditions, condition, now);
    object["status"]["conditions"] = json!(conditions);
}

/// Kinds in the groups of Kubernetes itself need an approval; others hear nothing of it.
fn approval(object: &Value, group: &str) -> Option<Condition> {
    let protected = ["k8s.io", "kubernetes.io"];
    if !protected.iter().any(|suffix| group == *suffix || group.ends_with(&format!(".{suffix}"))) {
        return None;
    }
    let annotation = object["metadata"]["annotations"].get(APPROVAL_ANNOTATION).and_then(Value::as_str);
    let condition = |status, reason, message: String| Condition::new(API_APPROVED, status, reason, message);
    Some(match annotation {
        None | Some("") => condition(
            false,
            "MissingAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVAL_ANNOTATION:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
        Some(text) if text.starts_with("unapproved") => {
            condition(false, "UnapprovedAnnotation", format!("not approved: {text:?}"))
        }
        Some(text) if text.starts_with("https://") || text.starts_with("http://") => {
            condition(true, "ApprovedAnnotation", format!("approved in {text}"))
        }
        Some(_) => condition(
            false,
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVAL_ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"metadata": {"name": "foos.example.com"}, "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null}, "spec": {"group": "example.com",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}})
    }

    #[test]
    fn free_names_establish_a_definition_for_good() {
        let mut object = definition();
        settle(&mut object, &[], Timestamp::UNIX_EPOCH);
        let once = object.clone();
        assert!(Definition::read(&object).is_served());
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(object["status"]["acceptedNames"]["kind"], "Foo");
        settle(&mut object, &[], Timestamp::MAX);
        assert_eq!(object, once);
        object["spec"]["names"]["shortNames"] = json!(["f"]);
        let other = Names { short_names: vec!["f".to_owned()], ..Names::default() };
        settle(&mut object, &[other], Timestamp::UNIX_EPOCH);
        let definition = Definition::read(&object);
        assert!(definition.is_served() && !definition.has(NAMES_ACCEPTED));
    }

    #[test]
    fn taken_names_keep_a_definition_out() {
        let mut object = definition();
        let other = Names { kind: "Foo".to_owned(), ..Names::default() };
        settle(&mut object, &[other], Timestamp::UNIX_EPOCH);
        assert!(!Definition::read(&object).is_served());
        settle(&mut object, &[], Timestamp::UNIX_EPOCH);
        assert!(Definition::read(&object).is_served());
    }

    #[test]
    fn kubernetes_own_groups_need_an_approval() {
        let mut object = definition();
        object["spec"]["group"] = "x.k8s.io".into();
        settle(&mut object, &[], Timestamp::UNIX_EPOCH);
        assert!(!Definition::read(&object).has(API_APPROVED));
        object["metadata"]["annotations"] = json!({APPROVAL_ANNOTATION: "https://example.com/1"});
        settle(&mut object, &[], Timestamp::UNIX_EPOCH);
        assert!(Definition::read(&object).has(API_APPROVED));
    }
}
