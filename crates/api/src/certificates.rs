//! The group `certificates.k8s.io`: CertificateSigningRequest (follows `pkg/registry/certificates/certificates`).

mod validation;

use std::sync::LazyLock;

use apimachinery::field::ErrorList;
use apimachinery::managedfields::Set;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, age, column, count, human_duration, items, name};
use crate::defaults::{Fill, each, fill, object};
use crate::strategy::{Column, NameRule, Strategy, Writer, keep};
use crate::validation::{At, same_field};

pub const APPROVED: &str = "Approved";
pub const DENIED: &str = "Denied";
pub const FAILED: &str = "Failed";

const COLUMNS: [Column; 6] = [
    NAME,
    AGE,
    column("SignerName", "string", "Who is asked to sign."),
    column("Requestor", "string", "Who asks."),
    column("RequestedDuration", "string", "How long the certificate should hold."),
    column("Condition", "string", "How far it has come."),
];

pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep(obj, old, "status");
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        static MAIN: LazyLock<Set> = LazyLock::new(|| Set::from_paths(&[&["spec"], &["status"]]));
        static STATUS: LazyLock<Set> =
            LazyLock::new(|| Set::from_paths(&[&["spec"], &["status", "conditions"]]));
        static APPROVAL: LazyLock<Set> =
            LazyLock::new(|| Set::from_paths(&[&["spec"], &["status", "certificate"]]));
        match subresource {
            "" => &MAIN,
            "status" => &STATUS,
            _ => &APPROVAL,
        }
    }

    /// Decisions are made through `approval` only.
    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        for decision in [APPROVED, DENIED] {
            keep_conditions(obj, old, decision);
        }
    }

    fn prepare_for_subresource_update(&self, _subresource: &str, obj: &mut Value, old: &Value) {
        let conditions = obj.pointer("/status/conditions").cloned();
        keep(obj, old, "spec");
        keep(obj, old, "status");
        if let Some(conditions) = conditions {
            obj["status"]["conditions"] = conditions;
        }
    }

    /// A new request says who made it; new conditions say when.
    fn stamp(&self, subresource: &str, obj: &mut Value, old: Option<&Value>, writer: &Writer) {
        match old {
            None => stamp_requestor(obj, &(writer.user)()),
            Some(old) if !subresource.is_empty() => stamp_conditions(obj, old, &writer.time()),
            Some(_) => {}
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate(obj, None)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old, validation::May::default())
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old, validation::May { set_certificate: true, decide: false })
    }

    fn validate_subresource_update(&self, _subresource: &str, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old, validation::May { set_certificate: false, decide: true })
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", str_at(obj, &["spec", "signerName"]).to_owned())]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let signer = str_at(obj, &["spec", "signerName"]);
        let duration = match obj.pointer("/spec/expirationSeconds") {
            Some(_) => human_duration(count(obj, &["spec", "expirationSeconds"])),
            None => NONE.into(),
        };
        vec![
            name(obj),
            age(obj, now),
            if signer.is_empty() { NONE.into() } else { signer.into() },
            str_at(obj, &["spec", "username"]).into(),
            duration.into(),
            progress(obj).into(),
        ]
    }

    fn name_rule(&self) -> NameRule {
        |_| Vec::new()
    }
}

/// The conditions of one type.
fn conditions_of<'a>(obj: &'a Value, wanted: &'a str) -> impl Iterator<Item = &'a Value> {
    items(obj, &["status", "conditions"]).iter().filter(move |c| str_at(c, &["type"]) == wanted)
}

fn progress(obj: &Value) -> String {
    let has = |wanted: &str| conditions_of(obj, wanted).next().is_some();
    let mut text = match () {
        () if has(DENIED) => "Denied",
        () if has(APPROVED) => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has(FAILED) {
        text.push_str(",Failed");
    }
    if !str_at(obj, &["status", "certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

/// Restores the conditions of a type, unless some came or went.
fn keep_conditions(obj: &mut Value, old: &Value, wanted: &str) {
    let before: Vec<Value> = conditions_of(old, wanted).cloned().collect();
    if conditions_of(obj, wanted).count() != before.len() {
        return;
    }
    let Some(status) = object(obj, "status") else { return };
    let mut before = before.into_iter();
    for condition in each(status, "conditions").filter(|c| str_at(c, &["type"]) == wanted) {
        if let Some(kept) = before.next() {
            *condition = kept;
        }
    }
}

fn stamp_requestor(obj: &mut Value, user: &Value) {
    let Some(spec) = object(obj, "spec") else { return };
    for field in ["username", "uid", "groups", "extra"] {
        keep(spec, user, field);
    }
}

fn stamp_conditions(obj: &mut Value, old: &Value, now: &Value) {
    let Some(status) = object(obj, "status") else { return };
    for condition in each(status, "conditions") {
        if At::root(condition).get("lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = now.clone();
        }
        if At::root(condition).get("lastTransitionTime").is_empty() {
            let before = items(old, &["status", "conditions"]).iter().find(|before| {
                same_field(before, condition, "type")
                    && same_field(before, condition, "status")
                    && !str_at(before, &["lastTransitionTime"]).is_empty()
            });
            condition["lastTransitionTime"] = before.map_or(now, |b| &b["lastTransitionTime"]).clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_made_it_and_a_decision_when() {
        let writer = Writer {
            now: "2026-01-02T03:04:05Z".parse().expect("is a time"),
            user: &|| json!({"username": "ann", "groups": ["g"]}),
        };
        let mut obj = json!({"spec": {"username": "root", "uid": "1", "extra": {"a": ["b"]}}});
        CertificateSigningRequest.stamp("", &mut obj, None, &writer);
        assert_eq!(obj["spec"], json!({"username": "ann", "groups": ["g"]}));
        let old = json!({"spec": {}, "status": {"certificate": "YQ=="}});
        let mut new =
            json!({"spec": {"x": 1}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        CertificateSigningRequest.prepare_for_subresource_update("approval", &mut new, &old);
        CertificateSigningRequest.stamp("approval", &mut new, Some(&old), &writer);
        let condition = json!({"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-02T03:04:05Z",
            "lastTransitionTime": "2026-01-02T03:04:05Z"});
        assert_eq!(new, json!({"spec": {}, "status": {"certificate": "YQ==", "conditions": [condition]}}));
        assert_eq!(progress(&new), "Approved,Issued");
    }
}
