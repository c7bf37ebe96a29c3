//! ValidatingAdmissionPolicy: what its expressions find against a request, and what its bindings make of that. Follows
//! `plugin/policy/validating`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::StatusCause;
use apimachinery::{Status, Value, json};
use cel::{BUDGET, Val};

use super::definition::{Action, Binding, Policy, Validation, Validations};
use super::{Check, Failed, Forms, Found, Invocation, Review, error_type, select};
use crate::expression::{Asker, Evaluator, Failure, Inputs};
use crate::request::Notes;

/// Longer notes in the audit log are cut (upstream: maxAuditAnnotationValueLength).
const ANNOTATION_BYTES_MAX: usize = 10 << 10;
/// A longer message of an expression is not shown (upstream: MaxEvaluatedMessageExpressionSizeBytes).
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// What stands against the request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    message: String,
    /// Empty for what comes from a failure.
    reason: String,
    /// How long its expression has been evaluated.
    took: Duration,
}

impl Decision {
    fn failure(message: impl Into<String>) -> Decision {
        Decision { message: message.into(), reason: String::new(), took: Duration::ZERO }
    }
}

/// A decision that refuses the request, and who made it.
struct Denial {
    message: String,
    reason: String,
}

impl Denial {
    fn new(policy: &str, binding: Option<&Binding>, decision: Decision) -> Denial {
        let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let Decision { message, reason, .. } = decision;
        Denial {
            message: format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {message}"),
            reason: if reason.is_empty() { "Invalid".to_owned() } else { reason },
        }
    }

    fn status(self, review: &Review<'_>, object: &Value) -> Status {
        let mut status = review.request.forbidden(object, &self.message);
        status.code = match self.reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.reason = self.reason;
        if let Some(details) = &mut status.details {
            details.causes.push(StatusCause { message: self.message, ..StatusCause::default() });
        }
        status
    }
}

/// Refuses the request if a policy does whose binding says so.
pub fn validate(
    review: &Review<'_>,
    object: &Value,
    policies: &[Arc<Policy<Validations>>],
    bindings: &[Arc<Binding>],
) -> Result<(), Status> {
    if review.is_exempt() {
        return Ok(());
    }
    let mut annotations = Annotations::default();
    let mut denials = Vec::new();
    for found in select(review, object, policies, bindings) {
        match found {
            Found::Misconfigured { policy, .. } if policy.ignores_failures => {}
            Found::Misconfigured { failed: Failed { policy, binding, why }, .. } => {
                denials.push(Denial::new(policy, binding, Decision::failure(why)));
            }
            Found::Invocation(invocation) => {
                let forms = review.forms(&invocation.matched, object)?;
                denials.extend(apply(review, &invocation, &forms, &mut annotations));
            }
        }
    }
    annotations.publish(review.notes);
    match denials.into_iter().next() {
        Some(first) => Err(first.status(review, object)),
        None => Ok(()),
    }
}

/// Evaluates a policy; returns what its binding wants denied.
fn apply(
    review: &Review<'_>,
    invocation: &Invocation<'_, Validations>,
    forms: &Forms,
    annotations: &mut Annotations,
) -> Vec<Denial> {
    let Invocation { policy, binding, params, .. } = invocation;
    let asker = review.asker();
    let mut denials = Vec::new();
    match forms.meets(policy, params, &asker) {
        Ok(true) => {}
        Ok(false) => return denials,
        Err(why) => {
            denials.extend(act(review, policy, binding, 0, Decision::failure(why)));
            return denials;
        }
    }
    let decisions = match decisions(review, invocation, forms, &asker) {
        Ok(decisions) => decisions,
        Err(_) if policy.ignores_failures => return denials,
        Err(spent) => {
            denials.extend(act(review, policy, binding, 0, Decision::failure(spent.to_string())));
            return denials;
        }
    };
    for (index, decision) in decisions.into_iter().enumerate() {
        if let Some(decision) = decision {
            denials.extend(act(review, policy, binding, index, decision));
        }
    }
    let failures = annotations.collect(policy, &forms.inputs(policy, params, None));
    denials.extend(failures.into_iter().map(|why| {
        let decision = Decision::failure(why);
        told(review, policy, binding, "deny", &decision);
        Denial::new(&policy.name, Some(binding), decision)
    }));
    denials
}

fn told(
    review: &Review<'_>,
    policy: &Policy<Validations>,
    binding: &Binding,
    action: &'static str,
    decision: &Decision,
) {
    let error_type = error_type(&decision.message);
    let (policy, binding) = (policy.name.as_str(), binding.name.as_str());
    review.meter.checked(&Check { policy, binding, error_type, action: Some(action), took: decision.took });
}

/// What became of a validation.
enum Outcome {
    Holds,
    Broken,
    Failed(String),
}

/// What each validation finds against the request, if anything. An error ends them all.
fn decisions(
    review: &Review<'_>,
    invocation: &Invocation<'_, Validations>,
    forms: &Forms,
    asker: &Asker<'_>,
) -> Result<Vec<Option<Decision>>, Failure> {
    let Invocation { policy, binding, params, .. } = invocation;
    let evaluator = Evaluator::new(&forms.inputs(policy, params, Some(asker)), BUDGET);
    let mut outcomes = Vec::new();
    for validation in &policy.rules.all {
        let began = review.meter.elapsed();
        let outcome = match evaluator.evaluate(&validation.expression) {
            Ok(Val::Bool(true)) => Outcome::Holds,
            Ok(_) => Outcome::Broken,
            Err(Failure::Failed(why)) => Outcome::Failed(why),
            Err(spent @ Failure::OutOfBudget) => return Err(spent),
        };
        outcomes.push((outcome, review.meter.elapsed().saturating_sub(began)));
    }
    // Messages are asked for only where there is something to say.
    let is_broken = outcomes.iter().any(|(outcome, _)| matches!(outcome, Outcome::Broken));
    let inputs = forms.inputs(policy, params, None);
    let messages = if is_broken { messages(policy, &inputs, evaluator.left()) } else { Ok(Vec::new()) };
    let failure = |why: String, took: Duration| {
        let decision = Decision { took, ..Decision::failure(why) };
        if policy.ignores_failures {
            told(review, policy, binding, "allow", &decision);
        }
        (!policy.ignores_failures).then_some(decision)
    };
    let decide = |(index, (outcome, took)): (usize, (Outcome, Duration))| {
        let validation = &policy.rules.all[index];
        match (outcome, &messages) {
            (Outcome::Failed(why), _) => failure(why, took),
            (_, Err(why)) => failure(format!("failed messageExpression: {why}"), took),
            (Outcome::Holds, _) => None,
            (Outcome::Broken, Ok(messages)) => Some(Decision {
                message: best_message(validation, messages[index].as_deref()),
                reason: validation.reason.clone().unwrap_or_else(|| "Invalid".to_owned()),
                took,
            }),
        }
    };
    Ok(outcomes.into_iter().enumerate().map(decide).collect())
}

/// The messages that expressions make, by validation.
fn messages(
    policy: &Policy<Validations>,
    inputs: &Inputs<'_>,
    budget: u64,
) -> Result<Vec<Option<String>>, Failure> {
    let evaluator = Evaluator::new(inputs, budget);
    let mut messages = Vec::new();
    for validation in &policy.rules.all {
        let made = validation.message_expression.as_ref().map(|made| evaluator.evaluate(made));
        messages.push(match made {
            Some(Ok(Val::Text(text))) => Some(text.trim().to_owned()),
            Some(Err(spent @ Failure::OutOfBudget)) => return Err(spent),
            Some(_) | None => None,
        });
    }
    Ok(messages)
}

/// The message that was made, or the written one, or the expression that does not hold.
fn best_message(validation: &Validation, made: Option<&str>) -> String {
    let made = made.filter(|text| text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'));
    let written = Some(validation.message.trim());
    let found = [made, written].into_iter().flatten().find(|text| !text.is_empty());
    found.map_or_else(|| format!("failed expression: {}", validation.expression.text.trim()), str::to_owned)
}

/// Does with a decision what the binding says; returns it if that is to deny.
fn act(
    review: &Review<'_>,
    policy: &Policy<Validations>,
    binding: &Binding,
    index: usize,
    decision: Decision,
) -> Option<Denial> {
    let message = &decision.message;
    for action in &binding.validation_actions {
        told(review, policy, binding, action.enforcement(), &decision);
        match action {
            Action::Deny => {}
            Action::Warn => review.notes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                policy.name, binding.name
            )),
            Action::Audit => {
                let actions: Vec<&str> = binding.validation_actions.iter().map(|a| a.name()).collect();
                let failure = json!([{"message": message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": index, "validationActions": actions}]);
                review.notes.annotate(
                    "validation.policy.admission.k8s.io",
                    "validation_failure",
                    failure.to_string(),
                );
            }
        }
    }
    let denies = binding.validation_actions.contains(&Action::Deny);
    denies.then(|| Denial::new(&policy.name, Some(binding), decision))
}

/// Notes for the audit log by policy and key: different ones of several bindings are told in a row.
#[derive(Default)]
struct Annotations(BTreeMap<(String, String), Vec<String>>);

impl Annotations {
    /// Takes what the policy's expressions note; returns what stands against the request because they cannot.
    fn collect(&mut self, policy: &Policy<Validations>, inputs: &Inputs<'_>) -> Vec<String> {
        let evaluator = Evaluator::new(inputs, BUDGET);
        let mut failures = Vec::new();
        for annotation in &policy.rules.audit_annotations {
            match evaluator.evaluate(&annotation.value) {
                Ok(Val::Text(text)) => self.add(&policy.name, &annotation.key, text.trim()),
                Ok(Val::Null) => {}
                Ok(other) => failures.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    annotation.value.text,
                    other.type_name()
                )),
                Err(_) if policy.ignores_failures => {}
                Err(why) => failures.push(why.to_string()),
            }
        }
        failures
    }

    fn add(&mut self, policy: &str, key: &str, text: &str) {
        let text = &text[..text.floor_char_boundary(ANNOTATION_BYTES_MAX)];
        let all = self.0.entry((policy.to_owned(), key.to_owned())).or_default();
        if !text.is_empty() && !all.iter().any(|known| known == text) {
            all.push(text.to_owned());
        }
    }

    fn publish(self, notes: &Notes) {
        for ((policy, key), all) in self.0 {
            if !all.is_empty() {
                notes.annotate(&policy, &key, all.join(", "));
            }
        }
    }
}
