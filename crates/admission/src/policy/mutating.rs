//! MutatingAdmissionPolicy: its mutations change the object one after another. Follows `plugin/policy/mutating`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta::str_at;
use apimachinery::patch::{JsonPatchError, json_patch_operations};
use apimachinery::status::StatusCause;
use apimachinery::{Status, Value};
use cel::{BUDGET, Val};

use super::definition::{Binding, Mutation, Mutations, Policy};
use super::{Check, Failed, Forms, Found, Invocation, Review, error_type, patch, select};
use crate::expression::{Asker, Evaluator, Expression};
use crate::request::Operation;
use crate::rounds::Rounds;

/// Why a mutation came to nothing.
enum Failure {
    /// The policy is at fault, and its failure policy decides.
    OfPolicy(String),
    /// What the client is told whatever the policy says.
    Refused(Box<Status>),
}

/// One round. Returns whether those who come after should be asked again.
pub fn mutate(
    review: &Review<'_>,
    object: &mut Value,
    policies: &[Arc<Policy<Mutations>>],
    bindings: &[Arc<Binding>],
    rounds: &mut Rounds,
) -> Result<bool, Status> {
    // There is nothing to change in what is deleted.
    if review.is_exempt() || review.request.operation == Operation::Delete {
        return Ok(false);
    }
    rounds.begin(object);
    let (mut failures, mut invocations) = (Vec::new(), Vec::new());
    for found in select(review, object, policies, bindings) {
        match found {
            Found::Misconfigured { policy, .. } if policy.ignores_failures => {}
            Found::Misconfigured { failed, .. } => failures.push(Refusal::misconfigured(&failed)),
            Found::Invocation(invocation) => invocations.push(invocation),
        }
    }
    let mut has_mutated = false;
    for invocation in &invocations {
        let mut run = Run { review, invocation, object: &mut *object, failures: Vec::new() };
        has_mutated |= run.invoke(rounds)?;
        if !invocation.policy.ignores_failures {
            failures.extend(run.failures);
        }
    }
    if has_mutated {
        rounds.somebody_changed();
    }
    rounds.end(object);
    refusal(review, object, failures).map_or(Ok(has_mutated), Err)
}

/// What a policy has to say against the request.
struct Refusal {
    message: String,
    /// Empty where upstream leaves `Forbidden`.
    reason: &'static str,
}

impl Refusal {
    fn misconfigured(failed: &Failed<'_>) -> Refusal {
        let Failed { policy, binding, why } = failed;
        let message = match binding {
            Some(binding) => told(policy, binding, why),
            None => format!("policy {policy:?} denied request: {why}"),
        };
        Refusal { message, reason: "" }
    }
}

fn told(policy: &str, binding: &Binding, why: &str) -> String {
    format!("policy '{policy}' with binding '{}' denied request: {why}", binding.name)
}

/// The answer that tells the first refusal, and all of them in its details.
fn refusal(review: &Review<'_>, object: &Value, refusals: Vec<Refusal>) -> Option<Status> {
    let first = refusals.first()?;
    let mut status = review.request.forbidden(object, "admission request denied by policy");
    first.message.clone_into(&mut status.message);
    if !first.reason.is_empty() {
        first.reason.clone_into(&mut status.reason);
    }
    if let Some(details) = &mut status.details {
        let causes = refusals.into_iter().map(|refusal| refusal.message);
        details.causes.extend(causes.map(|message| StatusCause { message, ..StatusCause::default() }));
    }
    Some(status)
}

/// A policy at work.
struct Run<'r, 'p> {
    review: &'r Review<'r>,
    invocation: &'r Invocation<'p, Mutations>,
    object: &'r mut Value,
    failures: Vec<Refusal>,
}

impl Run<'_, '_> {
    /// Whether a mutation has been carried out.
    fn invoke(&mut self, rounds: &mut Rounds) -> Result<bool, Status> {
        let Invocation { policy, binding, matched, params } = self.invocation;
        let asker = self.review.asker();
        let forms = self.review.forms(matched, self.object)?;
        match forms.meets(policy, params, &asker) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                self.fail(&why);
                return Ok(false);
            }
        }
        let id = identity(policy, binding, params);
        if !rounds.includes(&id) {
            return Ok(false);
        }
        let before = self.object.clone();
        let mut has_mutated = false;
        for mutation in policy.rules.all.iter().filter(|_| !before.is_null()) {
            let began = self.review.meter.elapsed();
            let changed = self.changed(mutation, &asker);
            self.told(&changed, self.review.meter.elapsed().saturating_sub(began));
            match changed {
                Ok(next) => {
                    *self.object = next;
                    has_mutated = true;
                }
                Err(Failure::OfPolicy(why)) => self.fail(&why),
                Err(Failure::Refused(status)) => return Err(*status),
            }
        }
        if *self.object != before {
            rounds.somebody_changed();
        }
        if policy.rules.reinvokes {
            rounds.may_ask_again(id);
        }
        Ok(has_mutated)
    }

    fn told(&self, changed: &Result<Value, Failure>, took: Duration) {
        let error_type = match changed {
            Ok(_) => "no_error",
            Err(Failure::OfPolicy(why)) => error_type(why),
            Err(Failure::Refused(status)) => error_type(&status.message),
        };
        let Invocation { policy, binding, .. } = self.invocation;
        let (policy, binding) = (policy.name.as_str(), binding.name.as_str());
        self.review.meter.checked(&Check { policy, binding, error_type, action: None, took });
    }

    fn fail(&mut self, why: &str) {
        let Invocation { policy, binding, .. } = self.invocation;
        self.failures.push(Refusal { message: told(&policy.name, binding, why), reason: "Invalid" });
    }

    /// The object after one mutation.
    fn changed(&self, mutation: &Mutation, asker: &Asker<'_>) -> Result<Value, Failure> {
        let kind = &self.invocation.matched.kind;
        let kinds = self.review.kinds;
        let refused = |status: Status| Failure::Refused(Box::new(status));
        let forms = self.review.forms(&self.invocation.matched, self.object).map_err(refused)?;
        match mutation {
            Mutation::ApplyConfiguration(expression) => {
                let mut configuration = self.evaluate(expression, &forms, asker, patch::configuration)?;
                for field in ["apiVersion", "kind"] {
                    configuration[field] = forms.object[field].clone();
                }
                let merged = kinds.merged(kind, &forms.object, &configuration);
                let merged =
                    merged.map_err(|why| Failure::OfPolicy(format!("error applying patch: {why}")))?;
                let taken = kinds.taken(kind, merged, self.object);
                taken.map_err(|status| Failure::OfPolicy(status.message))
            }
            Mutation::JsonPatch(expression) => {
                let operations = self.evaluate(expression, &forms, asker, patch::operations)?;
                match json_patch_operations(forms.object, operations) {
                    Ok(patched) => {
                        let taken = kinds.taken(kind, patched, self.object);
                        taken.map_err(|status| refused(Status::internal(status.message)))
                    }
                    // A test that fails says that the patch is not meant for this object.
                    Err(JsonPatchError::Test(_)) => Ok(self.object.clone()),
                    Err(why) => Err(Failure::OfPolicy(format!("JSON Patch: {why}"))),
                }
            }
        }
    }

    /// What the expression makes of the object as it is now.
    fn evaluate(
        &self,
        expression: &Expression,
        forms: &Forms,
        asker: &Asker<'_>,
        read: fn(&Val<'_>) -> Result<Value, String>,
    ) -> Result<Value, Failure> {
        if let Some(why) = expression.complaint() {
            return Err(Failure::OfPolicy(why.to_owned()));
        }
        let Invocation { policy, params, .. } = self.invocation;
        let evaluator = Evaluator::new(&forms.inputs(policy, params, Some(asker)), BUDGET);
        let made = evaluator.evaluate(expression).map_err(|why| Failure::OfPolicy(why.to_string()))?;
        read(&made).map_err(Failure::OfPolicy)
    }
}

/// What tells one invocation from others of the same request.
fn identity(policy: &Policy<Mutations>, binding: &Binding, params: &Value) -> String {
    let text = |field| str_at(params, &["metadata", field]);
    [policy.name.as_str(), &binding.name, text("namespace"), text("name")].join("/")
}
