//! Kinds that are answered and never stored: who is this, may they, what may I. Follows `registry/authentication` and
//! `registry/authorization`.

mod validation;

use api::defaults::{Fill, fill};
use api::resource;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json, time};
use bytes::Bytes;
use http::Response;

use crate::access_review::{access_review, subject};
use crate::authentication;
use crate::body::Body;
use crate::call::Call;
use crate::kind::KindRef;
use crate::negotiation::{Target, format_of_request};
use crate::ownership;
use crate::query::WriteOptions;
use crate::subresource;
use crate::wire::{self, Document, Expected};
use validation::About;

pub async fn create(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    if kind.resource == resource::BINDINGS {
        return subresource::bind(call, body).await;
    }
    let pretty = call.target.pretty;
    call.target = Target { pretty, ..Target::negotiate_untabled(&call.headers, call.core.config.formats)? };
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let api_version = kind.resource.api_version();
    let expected =
        Expected { type_name: kind.type_name, api_version: &api_version, kind: kind.resource.kind };
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    let mut review = wire::decode_body(expected, format, body, options.field_validation, &mut call.warnings)?;
    call.audit_request(&review);
    fill(&mut review, &[("metadata", Fill::Empty)]);
    if kind.resource == resource::SELF_SUBJECT_REVIEWS {
        review["metadata"] = json!({"creationTimestamp": time::format_time(call.now)});
    } else if kind.resource != resource::SELF_SUBJECT_RULES_REVIEWS {
        ownership::created(call, kind, &mut review, &options);
    }
    review["status"] = match kind.resource {
        resource::TOKEN_REVIEWS => token_review(call, &review).await?,
        resource::SELF_SUBJECT_REVIEWS => json!({"userInfo": call.user}),
        resource::SELF_SUBJECT_RULES_REVIEWS => rules_review(call, &mut review)?,
        resource::SELF_SUBJECT_ACCESS_REVIEWS => {
            validation::check(About::Oneself, &review, "")?;
            access_review(call, &call.user, &review).await
        }
        resource::LOCAL_SUBJECT_ACCESS_REVIEWS => {
            validation::check(About::AnybodyIn, &review, &call.info.namespace)?;
            access_review(call, &subject(&review), &review).await
        }
        _ => {
            validation::check(About::Anybody, &review, "")?;
            access_review(call, &subject(&review), &review).await
        }
    };
    call.target = call.target.plain();
    call.respond(201, Document::value(kind.type_name, &review))
}

async fn token_review(call: &Call, review: &Value) -> Result<Value, Status> {
    let token = str_at(review, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(review.pointer("/spec/audiences"));
    Ok(match authentication::review(&call.core, token, &audiences, call.now).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user, "audiences": audiences}),
        Err(error) => json!({"error": error, "user": {}}),
    })
}

fn rules_review(call: &Call, review: &mut Value) -> Result<Value, Status> {
    let namespace = str_at(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut status = call.core.authorizer.rules_review(&call.user, namespace);
    // The answer is a review of its own, which does not repeat the question.
    review["spec"] = json!({});
    if call.core.config.authorization.asks_elsewhere() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "webhook authorizer does not support user rule resolution".into();
    }
    Ok(status)
}

pub fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
