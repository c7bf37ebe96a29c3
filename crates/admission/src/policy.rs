//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: which of them are about a request, with which parameters, and
//! what follows from what their expressions say. Follows `plugin/policy/generic.policyDispatcher`.

mod definition;
mod matching;
pub mod mutating;
mod params;
mod patch;
pub mod validating;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::meta::value_at;
use apimachinery::{GroupResource, Map, Status, Value};

use crate::expression::{self, Asker, Inputs};
use crate::request::{Notes, World};
use crate::rules::{Attributes, Matched};

pub use definition::{Action, Binding, Mutations, ParamKind, Policy, Validations};
pub use params::Scope;

/// Resources that no policy is asked about: questions that are answered and not stored, by which a cluster lives
/// (upstream: `exclusion.Excluded`).
const EXCLUDED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Knows which kinds are served, and their objects in each version.
pub trait Kinds {
    /// The resource of a kind that holds parameters, and whether its objects are in namespaces.
    fn params_of(&self, kind: &GroupVersionKind) -> Option<Scope>;
    /// A stored object, which holds parameters, in the version of its kind.
    fn param(&self, kind: &GroupVersionKind, object: Arc<Value>) -> Arc<Value>;
    /// An object of the request, as this kind shows it.
    fn shown(&self, kind: &GroupVersionKind, object: &Value) -> Result<Value, Status>;
    /// The object that somebody has changed in this kind, brought into form, as it is judged. `current` is what it was.
    fn taken(&self, kind: &GroupVersionKind, changed: Value, current: &Value) -> Result<Value, Status>;
    /// The object with everything that the configuration says; the error says why it cannot be laid over it.
    fn merged(&self, kind: &GroupVersionKind, object: &Value, configuration: &Value)
    -> Result<Value, String>;
}

/// Is told what the expressions of policies come to, and tells the time, which they do not know.
pub trait Meter {
    /// Since some moment; only differences count.
    fn elapsed(&self) -> Duration;
    fn checked(&self, check: &Check<'_>);
}

/// What an expression of a policy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check<'a> {
    pub policy: &'a str,
    pub binding: &'a str,
    pub error_type: &'static str,
    /// What is done about it; none for a mutation.
    pub action: Option<&'static str>,
    pub took: Duration,
}

/// How upstream sorts what is said against a request or an object (`ErrorType` of both kinds of policies).
fn error_type(message: &str) -> &'static str {
    if message.starts_with("compilation") {
        "compile_error"
    } else if message.starts_with("validation failed due to running out of cost budget") {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}

/// One request that policies are asked about.
pub struct Review<'a> {
    pub request: &'a Attributes,
    pub old: Option<&'a Value>,
    pub world: &'a dyn World,
    pub kinds: &'a dyn Kinds,
    pub notes: &'a Notes,
    pub meter: &'a dyn Meter,
}

impl Review<'_> {
    /// Whether policies have a say in this at all.
    fn is_exempt(&self) -> bool {
        let resource = &self.request.resource;
        self.request.configures_admission()
            || EXCLUDED.contains(&(resource.group.as_str(), resource.resource.as_str()))
    }

    fn forms(&self, matched: &Matched, object: &Value) -> Result<Forms, Status> {
        let conditions = Matched { resource: self.request.resource.clone(), kind: matched.kind.clone() };
        Ok(Forms {
            object: self.kinds.shown(&matched.kind, object)?,
            old_object: self.kinds.shown(&matched.kind, self.old.unwrap_or(&Value::Null))?,
            request: expression::request(self.request, matched),
            condition_request: expression::request(self.request, &conditions),
            namespace: self.namespace()?,
        })
    }

    fn asker(&self) -> Asker<'_> {
        Asker { attributes: self.request, world: self.world }
    }

    /// What may be seen of the namespace that the request is in (upstream: `CreateNamespaceObject`).
    fn namespace(&self) -> Result<Value, Status> {
        const METADATA: [&str; 12] = [
            "name",
            "generateName",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "labels",
            "annotations",
            "finalizers",
        ];
        let request = self.request;
        let is_namespace = request.kind.kind == "Namespace" && request.kind.group.is_empty();
        if request.namespace.is_empty() || is_namespace {
            return Ok(Value::Null);
        }
        let found = self.world.get("namespaces", "", &request.namespace);
        let found = found
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace))?;
        let picked = |part: Option<&Value>, fields: &[&str]| -> Value {
            let pick = |field: &&str| Some(((*field).to_owned(), part?.get(*field)?.clone()));
            fields.iter().filter_map(pick).collect::<Map>().into()
        };
        let mut shown = picked(Some(&found), &["spec", "status"]);
        shown["metadata"] = picked(value_at(&found, &["metadata"]), &METADATA);
        Ok(shown)
    }
}

/// The request in the form in which a policy wants to see it.
struct Forms {
    object: Value,
    old_object: Value,
    request: Value,
    /// As match conditions see it: with the resource that was asked for, not the one that matched.
    condition_request: Value,
    namespace: Value,
}

impl Forms {
    fn inputs<'a, R>(
        &'a self,
        policy: &'a Policy<R>,
        params: &'a Value,
        asker: Option<&'a Asker<'a>>,
    ) -> Inputs<'a> {
        Inputs {
            object: &self.object,
            old_object: &self.old_object,
            request: &self.request,
            params,
            namespace: &self.namespace,
            asker,
            variables: &policy.variables,
        }
    }

    /// Whether the policy's conditions hold.
    fn meets<R>(&self, policy: &Policy<R>, params: &Value, asker: &Asker<'_>) -> Result<bool, String> {
        if policy.conditions.is_empty() {
            return Ok(true);
        }
        let inputs = Inputs {
            request: &self.condition_request,
            namespace: &Value::Null,
            ..self.inputs(policy, params, Some(asker))
        };
        policy.conditions.hold(&inputs, policy.ignores_failures)
    }
}

/// A policy that is to be evaluated.
struct Invocation<'p, R> {
    policy: &'p Policy<R>,
    binding: &'p Binding,
    matched: Matched,
    /// Null where the policy has none.
    params: Arc<Value>,
}

/// A policy that could not be asked, or of which nothing good came.
struct Failed<'p> {
    policy: &'p str,
    /// None when the policy itself is at fault.
    binding: Option<&'p Binding>,
    why: String,
}

/// What a policy bound by a binding comes to before anything is evaluated.
enum Found<'p, R> {
    Invocation(Invocation<'p, R>),
    Misconfigured { policy: &'p Policy<R>, failed: Failed<'p> },
}

/// All policies with all bindings that are about the request, once for each of their parameters.
fn select<'p, R>(
    review: &Review<'_>,
    object: &Value,
    policies: &'p [Arc<Policy<R>>],
    bindings: &'p [Arc<Binding>],
) -> Vec<Found<'p, R>> {
    let mut found = Vec::new();
    for policy in policies {
        let mut own = bindings.iter().filter(|binding| binding.policy_name == policy.name).peekable();
        if own.peek().is_none() {
            continue;
        }
        let misconfigured = |binding: Option<&'p Binding>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            let why = format!("failed to configure {what}: {why}");
            Found::Misconfigured { policy, failed: Failed { policy: &policy.name, binding, why } }
        };
        let matched = match policy.matches(review, object) {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(status) => {
                found.push(misconfigured(None, status.message));
                continue;
            }
        };
        let source = match params::Source::of(policy.param_kind.as_ref(), review.kinds) {
            Ok(source) => source,
            Err(why) => {
                found.push(misconfigured(None, why));
                continue;
            }
        };
        for binding in own {
            match bound(review, object, binding, source.as_ref()) {
                Ok(all) => found.extend(all.into_iter().map(|params| {
                    Found::Invocation(Invocation { policy, binding, matched: matched.clone(), params })
                })),
                Err(why) => found.push(misconfigured(Some(binding), why)),
            }
        }
    }
    found
}

/// The parameters with which a binding has its policy evaluated, none when it is not about the request.
fn bound(
    review: &Review<'_>,
    object: &Value,
    binding: &Binding,
    source: Option<&params::Source>,
) -> Result<Vec<Arc<Value>>, String> {
    match binding.matches(review, object) {
        Ok(true) => params::collect(source, binding.param_ref.as_ref(), review),
        Ok(false) => Ok(Vec::new()),
        Err(status) => Err(status.message),
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
