//! `metav1.Status`: what the API's user sees when something is refused. Built only by constructors that fix code,
//! reason and wording (follows `k8s.io/apimachinery/pkg/api/errors`).

use serde::{Deserialize, Serialize};

use crate::field;
use crate::gvk::{GroupKind, GroupResource};
use crate::quote::Quoted;

/// One cause of a failure; for an invalid object one per field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (or kind) concerned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_success(code: &u16) -> bool {
    *code == 200
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// An answer that is not an object: usually a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Status {
    #[serde(default = "status_kind")]
    pub kind: String,
    #[serde(default = "status_version")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: crate::Map,
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
    /// The HTTP status code; a success does not repeat it.
    #[serde(default, skip_serializing_if = "is_success")]
    pub code: u16,
}

fn status_kind() -> String {
    "Status".to_owned()
}

fn status_version() -> String {
    "v1".to_owned()
}

impl Status {
    /// Any failure; the named constructors are preferred.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Status {
            kind: status_kind(),
            api_version: status_version(),
            metadata: crate::Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    /// `{"status":"Success"}`, the answer to some deletions.
    pub fn success(details: StatusDetails) -> Self {
        let mut status = Status::failure(200, "", "");
        status.status = "Success".to_owned();
        status.details = Some(Box::new(details));
        status
    }

    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn about(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(StatusDetails {
            name: name.to_owned(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Default::default()
        })
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::failure(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Status::failure(401, "Unauthorized", "Unauthorized")
    }

    /// `reason` says who may not do what, as the authorizer words it.
    pub fn forbidden(resource: &GroupResource, name: &str, reason: impl std::fmt::Display) -> Self {
        let message = if resource.resource.is_empty() {
            format!("forbidden: {reason}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {reason}")
        } else {
            format!("{resource} {} is forbidden: {reason}", Quoted(name))
        };
        Status::failure(403, "Forbidden", message).about(resource, name)
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Status::failure(404, "NotFound", format!("{resource} {} not found", Quoted(name)))
            .about(resource, name)
    }

    /// A path that names nothing this server knows.
    pub fn path_not_found() -> Self {
        Status::failure(404, "NotFound", "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// What the framework below upstream's handlers says, before any of them is asked: with details that say nothing.
    fn unrouted(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Status::failure(code, reason, message).with_details(StatusDetails::default())
    }

    /// No route has this method.
    pub fn no_such_method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Status::unrouted(405, "MethodNotAllowed", message)
    }

    /// No route has any of the media types asked for.
    pub fn no_representation(available: &str) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
        Status::unrouted(406, "NotAcceptable", message)
    }

    /// No route takes a body of this media type.
    pub fn no_such_body() -> Self {
        Status::unrouted(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    }

    pub fn method_not_allowed(resource: &GroupResource, action: &str) -> Self {
        Status::failure(
            405,
            "MethodNotAllowed",
            format!("{action} is not supported on resources of kind {:?}", resource.to_string()),
        )
        .about(resource, "")
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        Status::failure(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {accepted}"),
        )
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Status::failure(409, "AlreadyExists", format!("{resource} {} already exists", Quoted(name)))
            .about(resource, name)
    }

    pub fn conflict(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        Status::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {resource} {}: {why}", Quoted(name)),
        )
        .about(resource, name)
    }

    /// An update whose resourceVersion is no longer the current one.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Status::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// History no longer reaches back to what was asked (HTTP 410).
    pub fn expired(message: impl Into<String>) -> Self {
        Status::failure(410, "Expired", message)
    }

    pub fn request_entity_too_large(max: usize) -> Self {
        Status::failure(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {max}"))
    }

    pub fn unsupported_media_type(supported: &str) -> Self {
        Status::failure(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {supported}"
            ),
        )
    }

    /// An object that breaks its kind's rules, with a cause per error. The message says the same thing once.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for text in errors.iter().map(ToString::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let all = match &texts[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|e| StatusCause {
                reason: e.kind.reason().to_owned(),
                message: e.body(),
                field: e.field.to_string(),
            })
            .collect();
        Status::failure(422, "Invalid", format!("{kind} {} is invalid: {all}", Quoted(name))).with_details(
            StatusDetails {
                name: name.to_owned(),
                group: kind.group.clone(),
                kind: kind.kind.clone(),
                causes,
                ..Default::default()
            },
        )
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Status::failure(429, "TooManyRequests", message)
            .with_details(StatusDetails { retry_after_seconds, ..Default::default() })
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let cause = StatusCause { message: message.clone(), ..Default::default() };
        Status::failure(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_details(StatusDetails { causes: vec![cause], ..Default::default() })
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Status::failure(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Status::failure(504, "Timeout", format!("Timeout: {}", message.into()))
            .with_details(StatusDetails { retry_after_seconds, ..Default::default() })
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// The causes, or none.
    pub fn causes(&self) -> &[StatusCause] {
        self.details.as_ref().map_or(&[], |d| &d.causes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn an_invalid_object_names_every_field() {
        let errors = [
            Error::required(&Path::new("spec").child("a"), ""),
            Error::invalid(&Path::new("spec").child("b"), 1, "too small"),
        ];
        let status = Status::invalid(&GroupKind::new("apps", "Deployment"), "web", &errors);
        assert_eq!(
            status.message,
            "Deployment.apps \"web\" is invalid: [spec.a: Required value, spec.b: Invalid value: 1: too small]"
        );
        assert_eq!(status.code, 422);
        assert_eq!(status.causes()[1].message, "Invalid value: 1: too small");
        assert_eq!(status.causes()[1].field, "spec.b");
    }

    #[test]
    fn what_is_wrong_twice_is_said_once_but_has_two_causes() {
        let error = Error::invalid(&Path::new("metadata").child("uid"), "u", "field is immutable");
        let status = Status::invalid(&GroupKind::new("", "Pod"), "p", &[error.clone(), error]);
        assert_eq!(
            status.message,
            "Pod \"p\" is invalid: metadata.uid: Invalid value: \"u\": field is immutable"
        );
        assert_eq!(status.causes().len(), 2);
    }

    #[test]
    fn a_status_survives_the_wire() {
        let status = Status::not_found(&GroupResource::new("", "pods"), "x");
        let text = serde_json::to_string(&status).expect("encodes");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("decodes"), status);
        assert!(text.contains("pods \\\"x\\\" not found"));
    }
}
