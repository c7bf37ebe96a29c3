//! AdmissionReview: the question and what of an answer is taken. Follows `CreateAdmissionObjects` and
//! `VerifyAdmissionResponse`.

use std::collections::BTreeMap;

use apimachinery::gvk::{GroupVersionKind, GroupVersionResource};
use apimachinery::{Value, json};
use base64::Engine as _;
use serde::Deserialize;

use crate::rules::{Attributes, Matched};

/// The versions of AdmissionReview that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// The first of the webhook's versions that is known here.
    pub fn choose(offered: &[String]) -> Result<Version, String> {
        let known = |version: &String| match version.as_str() {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        };
        offered.iter().find_map(known).ok_or_else(|| {
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .to_owned()
        })
    }

    fn name(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V1Beta1 => "v1beta1",
        }
    }
}

fn gvk(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn gvr(resource: &GroupVersionResource) -> Value {
    json!({"group": resource.group, "version": resource.version, "resource": resource.resource})
}

/// The request part of a review, which expressions see as `request` too. Objects are left out.
pub fn request(uid: &str, request: &Attributes, matched: &Matched) -> Value {
    let mut body = json!({
        "uid": uid,
        "kind": gvk(&matched.kind),
        "resource": gvr(&matched.resource),
        "requestKind": gvk(&request.kind),
        "requestResource": gvr(&request.resource),
        "operation": request.operation.name(),
        "userInfo": apimachinery::to_value(&request.user).unwrap_or_default(),
        "dryRun": request.dry_run,
    });
    let texts = [
        ("subResource", &request.subresource),
        ("requestSubResource", &request.subresource),
        ("name", &request.name),
        ("namespace", &request.namespace),
    ];
    for (field, text) in texts {
        if !text.is_empty() {
            body[field] = text.as_str().into();
        }
    }
    body
}

/// The question to a webhook, with the objects in the version it asked for.
pub fn question(
    version: Version,
    uid: &str,
    attributes: &Attributes,
    matched: &Matched,
    object: &Value,
    old: &Value,
) -> Value {
    let mut body = request(uid, attributes, matched);
    body["object"] = object.clone();
    body["oldObject"] = old.clone();
    body["options"] = attributes.options.clone();
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{}", version.name()), "request": body})
}

/// What a webhook says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    /// A JSON patch.
    pub patch: Vec<u8>,
    pub patch_type: String,
    /// A Status.
    pub result: Option<Value>,
    pub warnings: Vec<String>,
    pub audit_annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(alias = "result")]
    status: Option<Value>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Reads an answer; the error says what is wrong with it.
pub fn answer(version: Version, uid: &str, mutating: bool, review: &Value) -> Result<Answer, String> {
    let Some(response) = review.get("response").filter(|response| !response.is_null()) else {
        return Err("webhook response was absent".to_owned());
    };
    let response = Response::deserialize(response).map_err(|error| error.to_string())?;
    if version == Version::V1 {
        check_v1(&response, uid, mutating, review)?;
    }
    let decode = |text: &String| base64::engine::general_purpose::STANDARD.decode(text);
    let patch = match response.patch.as_ref().filter(|_| mutating).map(decode) {
        Some(decoded) => decoded.map_err(|error| format!("response.patch: {error}"))?,
        None => Vec::new(),
    };
    let patch_type = match version {
        Version::V1 => response.patch_type.unwrap_or_default(),
        Version::V1Beta1 => "JSONPatch".to_owned(),
    };
    Ok(Answer {
        allowed: response.allowed,
        patch,
        patch_type,
        result: response.status,
        warnings: response.warnings.unwrap_or_default(),
        audit_annotations: response.audit_annotations.unwrap_or_default(),
    })
}

fn check_v1(response: &Response, uid: &str, mutating: bool, review: &Value) -> Result<(), String> {
    if response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    let text = |field: &str| review[field].as_str().unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let has_patch = response.patch.as_ref().is_some_and(|patch| !patch.is_empty());
    let why = match (mutating, has_patch, &response.patch_type) {
        (true, true, None) => "webhook returned response.patch but not response.patchType",
        (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, _, Some(kind)) if kind.is_empty() => "webhook returned invalid response.patchType of \"\"",
        (false, true, _) => "validating webhook may not return response.patch",
        (false, _, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Operation;
    use crate::rules::tests::attributes;

    fn review(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    #[test]
    fn a_question_names_both_the_asked_and_the_requested_version() {
        let create = attributes(Operation::Create, "deployments/scale", "ns");
        let matched =
            Matched { resource: create.equivalents[0].0.clone(), kind: create.equivalents[0].1.clone() };
        let asked = question(Version::V1, "u", &create, &matched, &json!({"a": 1}), &Value::Null);
        assert_eq!(asked["request"]["kind"]["version"], "v1beta1");
        assert_eq!(asked["request"]["requestKind"]["version"], "v1");
        assert_eq!(asked["request"]["subResource"], "scale");
        assert_eq!(asked["request"]["operation"], "CREATE");
        assert_eq!(asked["request"]["oldObject"], Value::Null);
        assert_eq!(Version::choose(&["v2".to_owned(), "v1beta1".to_owned()]), Ok(Version::V1Beta1));
        assert!(Version::choose(&["v2".to_owned()]).is_err());
    }

    #[test]
    fn an_answer_must_be_whole() {
        let check = |mutating: bool, response: Value, expect: &str| {
            let found = answer(Version::V1, "u", mutating, &review(response)).expect_err("is refused");
            assert_eq!(found, expect);
        };
        check(true, Value::Null, "webhook response was absent");
        check(true, json!({"uid": "x"}), "expected response.uid=\"u\", got \"x\"");
        check(
            true,
            json!({"uid": "u", "patch": "W10="}),
            "webhook returned response.patch but not response.patchType",
        );
        check(
            true,
            json!({"uid": "u", "patchType": "JSONPatch"}),
            "webhook returned response.patchType but not response.patch",
        );
        check(
            false,
            json!({"uid": "u", "patch": "W10="}),
            "validating webhook may not return response.patch",
        );
        let wrong = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}});
        assert_eq!(
            answer(Version::V1, "u", true, &wrong).expect_err("is refused"),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
        );
        let found = answer(
            Version::V1,
            "u",
            true,
            &review(
                json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch", "status": {"code": 1}, "warnings": ["w"]}),
            ),
        );
        let found = found.expect("is whole");
        assert_eq!(
            (found.patch.as_slice(), found.allowed, found.warnings.len()),
            (b"[]".as_slice(), true, 1)
        );
        assert_eq!(found.result, Some(json!({"code": 1})));
    }
}
