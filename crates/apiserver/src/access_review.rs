//! May they? A SubjectAccessReview's question, put to the authorizer (upstream: `pkg/registry/authorization/util`).

use std::collections::BTreeMap;

use apimachinery::meta::str_at;
use apimachinery::{Value, fields, json, labels};
use auth::{Attributes, Decision, UserInfo};
use serde::Deserialize;

use crate::call::Call;
use crate::review::strings;

/// The user that `spec` describes; their groups are exactly those named.
pub fn subject(review: &Value) -> UserInfo {
    let extra = BTreeMap::<String, Vec<String>>::deserialize(&review["spec"]["extra"]).unwrap_or_default();
    UserInfo {
        name: str_at(review, &["spec", "user"]).to_owned(),
        uid: str_at(review, &["spec", "uid"]).to_owned(),
        groups: strings(review.pointer("/spec/groups")),
        // Upstream's readers of extras compare keys in lower case.
        extra: extra.into_iter().map(|(key, values)| (key.to_lowercase(), values)).collect(),
    }
}

/// `status` of a review that asks one question.
pub async fn access_review(call: &Call, user: &UserInfo, review: &Value) -> Value {
    let spec = &review["spec"];
    let selectors = Selectors::of(&spec["resourceAttributes"]);
    let wanted = match spec.get("resourceAttributes") {
        Some(resource) => Attributes {
            verb: str_at(resource, &["verb"]),
            group: str_at(resource, &["group"]),
            version: str_at(resource, &["version"]),
            resource: str_at(resource, &["resource"]),
            subresource: str_at(resource, &["subresource"]),
            namespace: str_at(resource, &["namespace"]),
            name: str_at(resource, &["name"]),
            fields: &selectors.fields,
            labels: &selectors.labels,
            ..Attributes::of(user)
        },
        None => Attributes {
            verb: str_at(spec, &["nonResourceAttributes", "verb"]),
            path: str_at(spec, &["nonResourceAttributes", "path"]),
            ..Attributes::of(user)
        },
    };
    let mut status = match call.core.authorize(&wanted).await {
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
    };
    if status["reason"] == "" {
        status.as_object_mut().map(|fields| fields.remove("reason"));
    }
    if !selectors.errors.is_empty() {
        status["evaluationError"] = selectors.errors.join("; ").into();
    }
    status
}

/// What the objects asked for are limited to, as far as it could be read. What could not limits nothing, so that the
/// question gets broader, never narrower.
#[derive(Default)]
struct Selectors {
    fields: Vec<fields::Term>,
    labels: Vec<labels::Requirement>,
    errors: Vec<String>,
}

impl Selectors {
    fn of(resource: &Value) -> Selectors {
        let mut selectors = Selectors::default();
        let field_selector = &resource["fieldSelector"];
        let raw = str_at(field_selector, &["rawSelector"]);
        let mut wrong = false;
        match fields::parse(raw) {
            Ok(selector) => selectors.fields = selector.terms().to_vec(),
            Err(_) => wrong = true,
        }
        let requirements = field_selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
        let terms: Vec<fields::Term> = requirements.iter().filter_map(field_term).collect();
        wrong |= terms.len() < requirements.len();
        selectors.fields.extend(terms);
        selectors.note(wrong, "fieldSelector", selectors.fields.is_empty());
        let label_selector = &resource["labelSelector"];
        let mut wrong = false;
        match labels::parse(str_at(label_selector, &["rawSelector"])) {
            Ok(selector) => selectors.labels = selector.requirements().to_vec(),
            Err(_) => wrong = true,
        }
        let requirements = label_selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
        let terms: Vec<labels::Requirement> = requirements.iter().filter_map(label_requirement).collect();
        wrong |= terms.len() < requirements.len();
        selectors.labels.extend(terms);
        selectors.note(wrong, "labelSelector", selectors.labels.is_empty());
        selectors
    }

    fn note(&mut self, wrong: bool, field: &str, none_left: bool) {
        if wrong {
            let partially = if none_left { "" } else { "partially " };
            self.errors
                .push(format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"));
        }
    }
}

fn field_term(requirement: &Value) -> Option<fields::Term> {
    let equal = match str_at(requirement, &["operator"]) {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    let [value] = &strings(requirement.get("values"))[..] else { return None };
    Some(fields::Term { field: str_at(requirement, &["key"]).to_owned(), equal, value: value.clone() })
}

fn label_requirement(requirement: &Value) -> Option<labels::Requirement> {
    let operator = match str_at(requirement, &["operator"]) {
        "In" => labels::Operator::In,
        "NotIn" => labels::Operator::NotIn,
        "Exists" => labels::Operator::Exists,
        "DoesNotExist" => labels::Operator::DoesNotExist,
        _ => return None,
    };
    labels::Requirement::new(str_at(requirement, &["key"]), operator, strings(requirement.get("values"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_far_as_they_can_be() {
        let found = Selectors::of(&json!({
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
                {"key": "spec.nodeName", "operator": "Exists"}]},
            "labelSelector": {"rawSelector": "a in ("}}));
        assert_eq!(
            found.fields,
            [fields::Term { field: "spec.nodeName".into(), equal: true, value: "a".into() }]
        );
        assert_eq!(
            found.errors,
            [
                "spec.resourceAttributes.fieldSelector partially ignored due to parse error",
                "spec.resourceAttributes.labelSelector ignored due to parse error",
            ]
        );
    }
}
