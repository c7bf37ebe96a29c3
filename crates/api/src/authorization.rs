//! The group `authorization.k8s.io`: what access reviews must say (follows `pkg/apis/authorization/validation`).
//! Reviews are answered, never stored, so they have no strategy.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::At;

/// A SubjectAccessReview.
pub fn validate_subject_access_review(review: &Value) -> ErrorList {
    let mut errors = subject_spec(review);
    empty_metadata(review, &[], "must be empty", &mut errors);
    errors
}

/// A LocalSubjectAccessReview, which asks about one namespace.
pub fn validate_local_subject_access_review(review: &Value) -> ErrorList {
    let mut errors = subject_spec(review);
    empty_metadata(review, &["namespace"], "must be empty except for namespace", &mut errors);
    let (root, spec) = (At::root(review), At::root(review).get("spec"));
    let resource = spec.get("resourceAttributes");
    let namespace = resource.get("namespace");
    if resource.is_set() && namespace.text() != root.at(&["metadata", "namespace"]).text() {
        errors.push(Error::invalid(&namespace.path, namespace.text(), "must match metadata.namespace"));
    }
    if spec.get("nonResourceAttributes").is_set() {
        errors.push(spec.get("nonResourceAttributes").invalid("disallowed on this kind of request"));
    }
    errors
}

/// A SelfSubjectAccessReview.
pub fn validate_self_subject_access_review(review: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    attributes(&At::root(review).get("spec"), &mut errors);
    empty_metadata(review, &[], "must be empty", &mut errors);
    errors
}

fn subject_spec(review: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(review).get("spec");
    attributes(&spec, &mut errors);
    if spec.get("user").is_empty() && spec.get("groups").is_empty() {
        let path = spec.path.child("user");
        errors.push(Error::invalid(&path, "", "at least one of user or group must be specified"));
    }
    errors
}

/// Exactly one of the two kinds of attributes.
fn attributes(spec: &At, errors: &mut ErrorList) {
    let (resource, other) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    match (resource.is_set(), other.is_set()) {
        (true, true) => {
            errors.push(other.invalid("cannot be specified in combination with resourceAttributes"));
        }
        (false, false) => errors.push(
            resource.invalid("exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        ),
        _ => {}
    }
    for field in ["fieldSelector", "labelSelector"] {
        let Some(selector) = resource.field(field) else { continue };
        let (raw, requirements) = (selector.get("rawSelector"), selector.get("requirements"));
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                errors.push(raw.invalid("may not specified at the same time as requirements"));
            }
            (true, true) => {
                let path = &selector.path;
                let detail = format!("when {path} is specified, requirements or rawSelector is required");
                errors.push(requirements.required(detail));
            }
            _ => {}
        }
    }
}

fn empty_metadata(review: &Value, allowed: &[&str], detail: &str, errors: &mut ErrorList) {
    let metadata = review.get("metadata").and_then(Value::as_object);
    let extra = metadata.into_iter().flatten().any(|(field, value)| {
        let nothing = value.is_null() || value == "";
        !nothing && field != "managedFields" && !allowed.contains(&field.as_str())
    });
    if extra {
        let value = review.get("metadata").cloned().unwrap_or_default();
        errors.push(Error::invalid(&Path::new("metadata"), value, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_review_asks_one_question_about_somebody() {
        let good = json!({"metadata": {}, "spec": {"user": "u", "resourceAttributes": {"verb": "get"}}});
        expect_errors(&validate_subject_access_review(&good), &[]);
        expect_errors(
            &validate_subject_access_review(&json!({"metadata": {"name": "x"}, "spec": {}})),
            &[
                "spec.resourceAttributes: Invalid value: null: exactly one of",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
                "metadata: Invalid value: {\"name\":\"x\"}: must be empty",
            ],
        );
        let local = json!({"metadata": {"namespace": "n"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "m"}}});
        expect_errors(
            &validate_local_subject_access_review(&local),
            &["spec.resourceAttributes.namespace: Invalid value: \"m\": must match metadata.namespace"],
        );
    }
}
