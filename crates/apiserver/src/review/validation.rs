//! Whether an access review asks a question that can be answered. Follows `authorization/validation`.

use api::validation::At;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, Status, Value, json, names};

/// Whom a review asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Oneself,
    Anybody,
    /// Anybody, in the namespace of the review.
    AnybodyIn,
}

/// The 422 for a review that cannot be answered.
pub fn check(about: About, review: &Value, namespace: &str) -> Result<(), Status> {
    let errors = validate(about, review, namespace);
    if errors.is_empty() {
        return Ok(());
    }
    // Upstream leaves the kind out.
    Err(Status::invalid(&GroupKind::new("authorization.k8s.io", ""), "", &errors))
}

fn validate(about: About, review: &Value, namespace: &str) -> ErrorList {
    let path = Path::new("spec");
    let spec = &review["spec"];
    let (resource, other) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let mut errors = ErrorList::new();
    match (resource, other) {
        (Some(_), Some(other)) => errors.push(Error::invalid(
            &path.child("nonResourceAttributes"),
            as_go_writes(other),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(Error::invalid(
            &path.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let has_groups = spec["groups"].as_array().is_some_and(|groups| !groups.is_empty());
    if about != About::Oneself && str_at(spec, &["user"]).is_empty() && !has_groups {
        errors.push(Error::invalid(
            &path.child("user"),
            "",
            "at least one of user or group must be specified",
        ));
    }
    if let Some(resource) = resource {
        for field in ["fieldSelector", "labelSelector"] {
            selector(resource.get(field), &path.child("resourceAttributes").child(field), &mut errors);
        }
    }
    metadata(about, review, &mut errors);
    if about == About::AnybodyIn {
        in_namespace(resource, other, namespace, &mut errors);
    }
    errors
}

fn in_namespace(resource: Option<&Value>, other: Option<&Value>, namespace: &str, errors: &mut ErrorList) {
    if let Some(resource) = resource {
        let asked = str_at(resource, &["namespace"]);
        if asked != namespace {
            let path = Path::new("spec.resourceAttributes.namespace");
            errors.push(Error::invalid(&path, asked, "must match metadata.namespace"));
        }
    }
    if let Some(other) = other {
        let path = Path::new("spec.nonResourceAttributes");
        errors.push(Error::invalid(&path, as_go_writes(other), "disallowed on this kind of request"));
    }
}

/// A review is no object that could be found again, so it has no name.
fn metadata(about: About, review: &Value, errors: &mut ErrorList) {
    let fields = review["metadata"].as_object();
    let allowed = |key: &str| key == "managedFields" || (key == "namespace" && about == About::AnybodyIn);
    if fields.is_some_and(|fields| fields.keys().any(|key| !allowed(key))) {
        let except = if about == About::AnybodyIn { " except for namespace" } else { "" };
        let why = format!("must be empty{except}");
        errors.push(Error::invalid(&Path::new("metadata"), review["metadata"].clone(), why));
    }
}

fn selector(selector: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let Some(selector) = selector else { return };
    let raw = str_at(selector, &["rawSelector"]);
    let has_requirements = selector["requirements"].as_array().is_some_and(|all| !all.is_empty());
    match (raw.is_empty(), has_requirements) {
        (false, true) => errors.push(Error::invalid(
            &path.child("rawSelector"),
            raw,
            "may not specified at the same time as requirements",
        )),
        (true, false) => errors.push(Error::required(
            &path.child("requirements"),
            format!("when {path} is specified, requirements or rawSelector is required"),
        )),
        _ => {}
    }
    for requirement in At::new(selector, path.clone()).get("requirements").items() {
        of_requirement(&requirement, errors);
    }
}

/// Operators that are not known here may be known to newer authorizers.
fn of_requirement(requirement: &At, errors: &mut ErrorList) {
    let (key, values) = (requirement.get("key"), requirement.get("values"));
    let is_label = requirement.path.as_str().contains("labelSelector");
    if !is_label && key.is_empty() {
        errors.push(key.required("must be specified"));
    }
    match requirement.get("operator").text() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        _ => {}
    }
    if is_label {
        key.check(names::is_qualified_name, errors);
        values.items().for_each(|value| value.check(names::is_label_value, errors));
    }
}

/// Attributes of a path, whose fields upstream's inner type calls so.
fn as_go_writes(attributes: &Value) -> Value {
    json!({"Path": str_at(attributes, &["path"]), "Verb": str_at(attributes, &["verb"])})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(about: About, spec: Value) -> Vec<String> {
        let review = json!({"metadata": {}, "spec": spec});
        validate(about, &review, "n").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_review_asks_one_question_about_somebody() {
        let resource = json!({"verb": "get", "resource": "pods", "namespace": "n"});
        let path = json!({"verb": "get", "path": "/"});
        assert!(complaints(About::Oneself, json!({"resourceAttributes": resource})).is_empty());
        assert_eq!(
            complaints(About::Oneself, json!({})),
            ["spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
              resourceAttributes must be specified"]
        );
        assert_eq!(
            complaints(
                About::Oneself,
                json!({"resourceAttributes": resource, "nonResourceAttributes": path})
            ),
            [
                "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/\",\"Verb\":\"get\"}: cannot be specified in \
              combination with resourceAttributes"
            ]
        );
        assert_eq!(
            complaints(About::Anybody, json!({"resourceAttributes": resource})),
            ["spec.user: Invalid value: \"\": at least one of user or group must be specified"]
        );
        assert!(
            complaints(About::AnybodyIn, json!({"user": "u", "resourceAttributes": resource})).is_empty()
        );
    }

    #[test]
    fn a_local_review_asks_about_its_namespace() {
        assert_eq!(
            complaints(About::AnybodyIn, json!({"user": "u", "resourceAttributes": {"namespace": "m"}})),
            ["spec.resourceAttributes.namespace: Invalid value: \"m\": must match metadata.namespace"]
        );
        assert_eq!(complaints(About::AnybodyIn, json!({"user": "u", "nonResourceAttributes": {}})).len(), 1);
    }

    #[test]
    fn a_selector_is_written_in_one_way() {
        let asks = |selector: Value| {
            complaints(About::Oneself, json!({"resourceAttributes": {"labelSelector": selector}}))
        };
        assert!(asks(json!({"rawSelector": "a"})).is_empty());
        assert_eq!(asks(json!({})).len(), 1);
        assert_eq!(asks(json!({"rawSelector": "a", "requirements": [{"key": "a"}]})).len(), 1);
        let requirements = json!([
            {"key": "", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}, {"key": "a", "operator": "Near"}]);
        assert_eq!(asks(json!({"requirements": requirements})).len(), 4);
    }
}
