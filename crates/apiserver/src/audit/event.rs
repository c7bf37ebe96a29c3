//! What is told of a request, field by field as `audit.k8s.io/v1` has it.

use std::collections::BTreeMap;

use apimachinery::Value;
use auth::UserInfo;
use jiff::Timestamp;
use serde::Serialize;

use super::policy::{Level, Stage};

/// Fields stand in upstream's order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    #[serde(serialize_with = "micro_time")]
    pub request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro_time")]
    pub stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// As upstream's MicroTime: always six digits after the point.
fn micro_time<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

/// One line of text, upstream's `legacy` format (`EventString`).
pub fn legacy(event: &Event) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(",");
    let (mut user, mut groups) = ("<none>".to_owned(), "<none>".to_owned());
    if !event.user.name.is_empty() {
        user.clone_from(&event.user.name);
        if !event.user.groups.is_empty() {
            groups = list(&event.user.groups);
        }
    }
    let (as_user, as_groups) = match &event.impersonated_user {
        Some(user) if user.groups.is_empty() => (user.name.clone(), "<lookup>".to_owned()),
        Some(user) => (user.name.clone(), list(&user.groups)),
        None => ("<self>".to_owned(), "<lookup>".to_owned()),
    };
    let namespace = event.object_ref.as_ref().map(|object| object.namespace.as_str());
    let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("<none>");
    let code = event.response_status.as_ref().map(|status| status["code"].to_string());
    format!(
        "{} AUDIT: id={:?} stage=\"{:?}\" ip={:?} method={:?} user={user:?} groups={groups:?} as={as_user:?} asgroups={as_groups:?} user-agent={:?} namespace={namespace:?} uri={:?} response=\"{}\"",
        event.request_received_timestamp,
        event.audit_id,
        event.stage,
        event.source_ips.first().map_or("<unknown>", String::as_str),
        event.verb,
        event.user_agent,
        event.request_uri,
        code.as_deref().unwrap_or("<deferred>"),
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of somebody who lists something.
    pub fn event() -> Event {
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: Level::Metadata,
            audit_id: "id".to_owned(),
            stage: Stage::ResponseComplete,
            request_uri: "/api/v1/pods".to_owned(),
            verb: "list".to_owned(),
            user: UserInfo::new("ann", ["dev"]),
            impersonated_user: None,
            source_ips: vec!["192.0.2.1".to_owned()],
            user_agent: "test".to_owned(),
            object_ref: None,
            response_status: Some(apimachinery::json!({"code": 200})),
            request_object: None,
            response_object: None,
            request_received_timestamp: Timestamp::UNIX_EPOCH,
            stage_timestamp: Timestamp::UNIX_EPOCH,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_legacy_format_is_one_line_of_pairs() {
        assert_eq!(
            legacy(&event()),
            "1970-01-01T00:00:00Z AUDIT: id=\"id\" stage=\"ResponseComplete\" ip=\"192.0.2.1\" method=\"list\" \
             user=\"ann\" groups=\"\\\"dev\\\",\\\"system:authenticated\\\"\" as=\"<self>\" asgroups=\"<lookup>\" \
             user-agent=\"test\" namespace=\"<none>\" uri=\"/api/v1/pods\" response=\"200\""
        );
    }
}
