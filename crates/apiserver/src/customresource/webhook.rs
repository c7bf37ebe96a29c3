//! Conversion by a webhook: what is asked, and what of the answer is taken. Follows `webhookConverter.Convert`.

use std::time::Duration;

use admission::webhook::{ClientConfig, ServiceReference};
use apiextensions::definition::Webhook;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json};

use crate::core::Core;
use crate::metadata;

/// The form of reviews that is spoken.
const REVIEW_VERSION: &str = "apiextensions.k8s.io/v1";

/// A webhook that has not answered by then has failed (upstream: the REST client's timeout of conversion webhooks).
const TIMEOUT: Duration = Duration::from_secs(30);

/// What must be the same before and after.
const KEPT: [(&str, &str); 4] = [
    ("kind", "/kind"),
    ("name", "/metadata/name"),
    ("namespace", "/metadata/namespace"),
    ("UID", "/metadata/uid"),
];

/// Objects of a custom kind in another version, as its webhook sees them. Those that are in it already are not sent.
pub async fn convert(
    core: &Core,
    name: &str,
    webhook: &Webhook,
    objects: Vec<Value>,
    to: &str,
) -> Result<Vec<Value>, Status> {
    let sent: Vec<&Value> = objects.iter().filter(|object| object["apiVersion"] != to).collect();
    let Some(first) = sent.first() else { return Ok(objects) };
    let failed = |why: &dyn std::fmt::Display| {
        let gvk = format!("{}, Kind={}", str_at(first, &["apiVersion"]), str_at(first, &["kind"]));
        Status::internal(format!("conversion webhook for {gvk} {why}"))
    };
    if !webhook.conversion_review_versions.iter().any(|version| version == "v1") {
        let why = format!(
            "failed: CustomResourceDefinition {name} does not speak a version of ConversionReview known here: {:?}",
            webhook.conversion_review_versions
        );
        return Err(failed(&why));
    }
    let uid = metadata::new_uid(&core.config.random);
    let review = json!({"kind": "ConversionReview", "apiVersion": REVIEW_VERSION,
        "request": {"uid": uid, "desiredAPIVersion": to, "objects": sent}});
    let answer = core
        .webhook_clients
        .post(&client_config(webhook), &review, TIMEOUT)
        .await
        .map_err(|error| failed(&format_args!("failed: {error}")))?;
    let converted = converted_objects(answer, &uid).map_err(|why| failed(&format_args!("failed: {why}")))?;
    if converted.len() != sent.len() {
        let why = format!("returned {} objects, expected {}", converted.len(), sent.len());
        return Err(failed(&why));
    }
    let mut converted = converted.into_iter().enumerate();
    let mut out = Vec::with_capacity(objects.len());
    for object in &objects {
        if object["apiVersion"] == to {
            out.push(object.clone());
        } else if let Some((index, answer)) = converted.next() {
            let taken = take(object, answer, to).map_err(|why| {
                failed(&format_args!("returned invalid converted object at index {index}: {why}"))
            })?;
            out.push(taken);
        }
    }
    Ok(out)
}

/// Where the webhook is, as the client of all webhooks takes it.
fn client_config(webhook: &Webhook) -> ClientConfig {
    let said = &webhook.client_config;
    let service = said.service.as_ref().map(|service| ServiceReference {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        path: service.path.clone(),
        port: service.port,
    });
    ClientConfig { url: said.url.clone(), service, ca_bundle: said.ca_bundle.clone() }
}

/// The objects of an answer that belongs to the question and says that it succeeded.
fn converted_objects(mut answer: Value, uid: &str) -> Result<Vec<Value>, String> {
    let (api_version, kind) = (str_at(&answer, &["apiVersion"]), str_at(&answer, &["kind"]));
    if (api_version, kind) != (REVIEW_VERSION, "ConversionReview") {
        return Err(format!(
            "expected webhook response of {REVIEW_VERSION}, Kind=ConversionReview, got {api_version}, Kind={kind}"
        ));
    }
    let response = answer["response"].take();
    if response.is_null() {
        return Err("no response provided".to_owned());
    }
    let found = str_at(&response, &["uid"]);
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    match str_at(&response, &["result", "status"]) {
        "Success" => {}
        "" => return Err("response.result.status was '', expected 'Success'".to_owned()),
        _ => match str_at(&response, &["result", "message"]) {
            "" => return Err("unknown error".to_owned()),
            message => return Err(message.to_owned()),
        },
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// The converted object with the metadata of the original, of which a webhook may change labels and annotations only.
fn take(original: &Value, mut converted: Value, to: &str) -> Result<Value, String> {
    let found = str_at(&converted, &["apiVersion"]);
    if found != to {
        return Err(format!("invalid groupVersion (expected {to}, received {found})"));
    }
    for (what, pointer) in KEPT {
        let text =
            |object: &Value| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (expected, found) = (text(original), text(&converted));
        if expected != found {
            return Err(format!("must have the same {what}: {expected} != {found}"));
        }
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    let answered = std::mem::replace(&mut converted["metadata"], original["metadata"].clone());
    for field in ["labels", "annotations"] {
        let texts = answered.get(field).and_then(Value::as_object);
        let metadata = converted["metadata"].as_object_mut().expect("stored objects have metadata");
        match texts.filter(|texts| !texts.is_empty()) {
            Some(texts) => metadata.insert(field, Value::Object(texts.clone())),
            None => metadata.remove(field),
        };
    }
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_belong_to_its_question() {
        let answer = |response: Value| json!({"kind": "ConversionReview", "apiVersion": REVIEW_VERSION, "response": response});
        let ok = json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]});
        assert_eq!(converted_objects(answer(ok), "u").expect("is taken").len(), 1);
        for (response, expect) in [
            (json!({"uid": "x"}), "expected response.uid=\"u\", got \"x\""),
            (json!({"uid": "u", "result": {"status": "Failure", "message": "no"}}), "no"),
            (json!({"uid": "u"}), "response.result.status was '', expected 'Success'"),
            (json!(null), "no response provided"),
        ] {
            assert_eq!(converted_objects(answer(response), "u").expect_err("is refused"), expect);
        }
    }

    #[test]
    fn a_webhook_changes_no_identity() {
        let original = json!({"kind": "Foo", "apiVersion": "e/v1", "metadata": {"name": "a", "uid": "u", "generation": 2, "labels": {"x": "y"}}});
        let mut answer = json!({"kind": "Foo", "apiVersion": "e/v2", "metadata": {"name": "a", "uid": "u", "generation": 9, "labels": {"z": "w"}}, "spec": 1});
        let taken = take(&original, answer.clone(), "e/v2").expect("is taken");
        assert_eq!(
            taken["metadata"],
            json!({"name": "a", "uid": "u", "generation": 2, "labels": {"z": "w"}})
        );
        assert_eq!(taken["spec"], 1);
        answer["metadata"]["name"] = "b".into();
        assert_eq!(
            take(&original, answer, "e/v2").expect_err("is refused"),
            "must have the same name: a != b"
        );
    }
}
