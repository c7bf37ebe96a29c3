//! ValidatingAdmissionPolicy: which policies are about a request, with which parameters, and what follows from what
//! their expressions say. Who evaluates expressions is handed in. Follows `plugin/policy/validating`.

mod conditions;
mod definition;
mod params;

use apimachinery::meta::str_at;
use apimachinery::status::StatusCause;
use apimachinery::{GroupResource, Status, Value};

use crate::request::{Notes, World};
use crate::rules::{Attributes, Matched};

pub use conditions::{Conditions, check as check_conditions};
pub use definition::{Action, Binding, Policy, Validation, Variable};
pub use params::Scope;

/// Longer notes in the audit log are cut (upstream: maxAuditAnnotationValueLength).
const ANNOTATION_BYTES_MAX: usize = 10 << 10;
/// A longer message of an expression is not shown (upstream: MaxEvaluatedMessageExpressionSizeBytes).
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// What the expressions of one policy see.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub object: &'a Value,
    pub old_object: &'a Value,
    /// The request part of an AdmissionReview.
    pub request: &'a Value,
    pub params: &'a Value,
    pub namespace_object: &'a Value,
    /// Named expressions that others may use.
    pub variables: &'a [Variable],
}

/// Evaluates the expressions of one policy for one request, within one budget. Errors read as upstream's:
/// `expression 'x' resulted in error: ...`.
pub trait Evaluator {
    fn evaluate(&self, expression: &str) -> Result<Value, String>;
}

/// Makes evaluators, and knows which kinds there are.
pub trait Engine {
    fn evaluator<'a>(&'a self, inputs: Inputs<'a>) -> Box<dyn Evaluator + 'a>;
    /// The resource of a kind that holds parameters, and whether its objects are in namespaces.
    fn params_of(&self, api_version: &str, kind: &str) -> Option<Scope>;
    /// An object as the policy wants to see it.
    fn shown(&self, matched: &Matched, object: &Value) -> Result<Value, Status>;
}

/// One request that policies are asked about.
pub struct Review<'a> {
    pub request: &'a Attributes,
    /// Null for a deletion.
    pub object: &'a Value,
    pub old: Option<&'a Value>,
    pub world: &'a dyn World,
    pub notes: &'a Notes,
}

/// What stands against the request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    message: String,
    reason: String,
}

/// Refuses the request if a policy does whose binding says so.
pub fn validate(
    review: &Review<'_>,
    policies: &[Policy],
    bindings: &[Binding],
    engine: &dyn Engine,
) -> Result<(), Status> {
    if review.request.configures_admission() {
        return Ok(());
    }
    let mut denials = Vec::new();
    for policy in policies {
        let config = |why: String, binding: Option<&Binding>| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            let decision =
                Decision { message: format!("failed to configure {what}: {why}"), reason: String::new() };
            (!policy.ignores_failures()).then(|| denial(policy, binding, decision))
        };
        let matched = match policy.matches(review) {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(status) => {
                denials.extend(config(status.message, None));
                continue;
            }
        };
        for binding in bindings.iter().filter(|binding| binding.policy_name == policy.name) {
            match binding.matches(review) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    denials.extend(config(status.message, Some(binding)));
                    continue;
                }
            }
            match params::collect(policy, binding, review, engine) {
                Ok(all) => {
                    for params in all {
                        denials.extend(apply(review, policy, binding, &matched, &params, engine)?);
                    }
                }
                Err(why) => denials.extend(config(why, Some(binding))),
            }
        }
    }
    denials.into_iter().next().map_or(Ok(()), |(message, reason)| Err(refusal(review, &message, &reason)))
}

/// Evaluates a policy with these parameters; returns what its binding wants denied.
fn apply(
    review: &Review<'_>,
    policy: &Policy,
    binding: &Binding,
    matched: &Matched,
    params: &Value,
    engine: &dyn Engine,
) -> Result<Vec<(String, String)>, Status> {
    let object = engine.shown(matched, review.object)?;
    let old_object = engine.shown(matched, review.old.unwrap_or(&Value::Null))?;
    let request = crate::webhook::review::request("", review.request, matched);
    let namespace = namespace_of(review)?;
    let evaluator = engine.evaluator(Inputs {
        object: &object,
        old_object: &old_object,
        request: &request,
        params,
        namespace_object: &namespace,
        variables: &policy.variables,
    });
    let conditions =
        Conditions { all: &policy.match_conditions, ignores_failures: policy.ignores_failures() };
    match check_conditions(conditions, &*evaluator) {
        Ok(true) => {}
        Ok(false) => return Ok(Vec::new()),
        Err(message) => {
            let decision = Decision { message, reason: String::new() };
            return Ok(act(review, policy, binding, 0, decision).into_iter().collect());
        }
    }
    let mut denials = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        if let Some(decision) = judge(policy, validation, &*evaluator) {
            denials.extend(act(review, policy, binding, index, decision));
        }
    }
    denials.extend(annotate(review, policy, binding, &*evaluator));
    Ok(denials)
}

/// The namespace the request is in, without what only its own writers may see.
fn namespace_of(review: &Review<'_>) -> Result<Value, Status> {
    let request = review.request;
    let is_namespace = request.kind.kind == "Namespace" && request.kind.group.is_empty();
    if request.namespace.is_empty() || is_namespace {
        return Ok(Value::Null);
    }
    let found = review.world.get("namespaces", "", &request.namespace);
    let found =
        found.ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace))?;
    let mut shown = (*found).clone();
    if let Some(metadata) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    Ok(shown)
}

/// What a validation finds against the request, if anything.
fn judge(policy: &Policy, validation: &Validation, evaluator: &dyn Evaluator) -> Option<Decision> {
    match evaluator.evaluate(&validation.expression) {
        Ok(Value::Bool(true)) => None,
        Ok(_) => {
            let reason = validation.reason.clone().unwrap_or_else(|| "Invalid".to_owned());
            Some(Decision { message: message(validation, evaluator), reason })
        }
        Err(_) if policy.ignores_failures() => None,
        Err(message) => Some(Decision { message, reason: String::new() }),
    }
}

/// The message an expression makes, or the written one, or the failed expression.
fn message(validation: &Validation, evaluator: &dyn Evaluator) -> String {
    let made = (!validation.message_expression.is_empty())
        .then(|| evaluator.evaluate(&validation.message_expression).ok())
        .flatten();
    let made = made.as_ref().and_then(Value::as_str).map(str::trim);
    let made = made.filter(|text| text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'));
    let written = Some(validation.message.trim());
    let found = [made, written].into_iter().flatten().find(|text| !text.is_empty());
    found.map_or_else(|| format!("failed expression: {}", validation.expression.trim()), str::to_owned)
}

/// Does with a finding what the binding says; returns it if that is to deny.
fn act(
    review: &Review<'_>,
    policy: &Policy,
    binding: &Binding,
    index: usize,
    decision: Decision,
) -> Option<(String, String)> {
    for action in &binding.validation_actions {
        match action {
            Action::Deny => {}
            Action::Warn => review.notes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, decision.message
            )),
            Action::Audit => {
                let failure = apimachinery::json!([{"message": decision.message, "policy": policy.name,
                    "binding": binding.name, "expressionIndex": index.to_string(),
                    "validationActions": binding.validation_actions.iter().map(|a| a.name()).collect::<Vec<_>>()}]);
                review.notes.annotate(
                    "validation.policy.admission.k8s.io",
                    "validation_failure",
                    failure.to_string(),
                );
            }
        }
    }
    binding.validation_actions.contains(&Action::Deny).then(|| denial(policy, Some(binding), decision))
}

/// Writes the policy's audit annotations; returns what stands against the request because one cannot be made.
fn annotate(
    review: &Review<'_>,
    policy: &Policy,
    binding: &Binding,
    evaluator: &dyn Evaluator,
) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    for annotation in &policy.audit_annotations {
        let why = match evaluator.evaluate(&annotation.value_expression) {
            Ok(Value::Null) => continue,
            Ok(Value::String(text)) => {
                let mut text = text.trim().to_owned();
                text.truncate(text.floor_char_boundary(ANNOTATION_BYTES_MAX));
                if !text.is_empty() {
                    review.notes.annotate(&policy.name, &annotation.key, text);
                }
                continue;
            }
            Ok(_) => format!(
                "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                annotation.value_expression
            ),
            Err(why) => why,
        };
        if !policy.ignores_failures() {
            failures.push(denial(policy, Some(binding), Decision { message: why, reason: String::new() }));
        }
    }
    failures
}

/// The text and the reason of a refusal.
fn denial(policy: &Policy, binding: Option<&Binding>, decision: Decision) -> (String, String) {
    let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let text =
        format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", policy.name, decision.message);
    let reason = if decision.reason.is_empty() { "Invalid".to_owned() } else { decision.reason };
    (text, reason)
}

fn refusal(review: &Review<'_>, message: &str, reason: &str) -> Status {
    let resource = GroupResource::new(&*review.request.resource.group, &*review.request.resource.resource);
    let name = match review.request.name.as_str() {
        "" => str_at(review.object, &["metadata", "generateName"]),
        name => name,
    };
    let mut status = Status::forbidden(&resource, name, message);
    reason.clone_into(&mut status.reason);
    status.code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause { message: message.to_owned(), ..StatusCause::default() });
    }
    status
}

#[cfg(test)]
mod tests;
