//! Policies and bindings as they are stored, with their expressions made ready. Follows `compilePolicy` of both kinds.

use api::admissionregistration::expression::{Composition, Offers, Returns, Types};
use apimachinery::meta::{LabelSelector, str_at};
use apimachinery::{Status, Value};
use cel::{Env, Named};
use serde::Deserialize;

use super::Review;
use super::matching::MatchResources;
use crate::conditions::{Conditions, MatchCondition};
use crate::expression::Expression;
use crate::rules::Matched;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

/// A policy; `R` is what it says of the objects that it is about.
#[derive(Debug)]
pub struct Policy<R> {
    pub name: String,
    pub param_kind: Option<ParamKind>,
    pub ignores_failures: bool,
    pub(super) conditions: Conditions,
    pub(super) variables: Vec<Named>,
    pub rules: R,
    constraints: MatchResources,
}

/// What a ValidatingAdmissionPolicy says.
#[derive(Debug)]
pub struct Validations {
    pub all: Vec<Validation>,
    pub audit_annotations: Vec<AuditAnnotation>,
}

#[derive(Debug)]
pub struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: Option<String>,
}

#[derive(Debug)]
pub struct AuditAnnotation {
    pub key: String,
    pub value: Expression,
}

/// What a MutatingAdmissionPolicy says.
#[derive(Debug)]
pub struct Mutations {
    pub all: Vec<Mutation>,
    /// Whether it is asked again when others have changed the object after it.
    pub reinvokes: bool,
}

#[derive(Debug)]
pub enum Mutation {
    ApplyConfiguration(Expression),
    JsonPatch(Expression),
}

impl<R> Policy<R> {
    fn of(object: &Value, rules: impl FnOnce(&Value, &Composition) -> R) -> Policy<R> {
        let said = &object["spec"];
        let spec = Spec::deserialize(said).unwrap_or_default();
        let mut composition = Composition::new(spec.param_kind.is_some(), Types::default());
        for variable in &spec.variables {
            // One that does not compile fails those who use it.
            let _complaint = composition.add(&variable.name, &variable.expression);
        }
        let rules = rules(said, &composition);
        Policy {
            name: str_at(object, &["metadata", "name"]).to_owned(),
            param_kind: spec.param_kind,
            ignores_failures: spec.failure_policy.as_deref() == Some("Ignore"),
            conditions: Conditions::new(&asking(&composition), &spec.match_conditions),
            variables: composition.named,
            rules,
            constraints: spec.match_constraints,
        }
    }

    /// A policy without rules is about nothing.
    pub(super) fn matches(&self, review: &Review<'_>, object: &Value) -> Result<Option<Matched>, Status> {
        if self.constraints.resource_rules.is_empty() {
            return Ok(None);
        }
        self.constraints.matched(review, object)
    }
}

/// The environment of most expressions, which may ask the authorizer.
fn asking(composition: &Composition) -> Env {
    composition.env(Offers { authorizer: true, ..Offers::default() })
}

impl Policy<Validations> {
    pub fn read(object: &Value) -> Policy<Validations> {
        Policy::of(object, |spec, composition| {
            let spec = ValidatingSpec::deserialize(spec).unwrap_or_default();
            let (asking, plain) = (asking(composition), composition.env(Offers::default()));
            let all = spec.validations.into_iter().map(|validation| validation.compiled(&asking, &plain));
            let annotations = spec.audit_annotations.into_iter().map(|annotation| AuditAnnotation {
                value: Expression::new(&asking, annotation.value_expression.trim(), Returns::TextOrNull),
                key: annotation.key,
            });
            Validations { all: all.collect(), audit_annotations: annotations.collect() }
        })
    }
}

impl Policy<Mutations> {
    pub fn read(object: &Value) -> Policy<Mutations> {
        Policy::of(object, |spec, composition| {
            let spec = MutatingSpec::deserialize(spec).unwrap_or_default();
            let env = composition.env(Offers { authorizer: true, patches: true, ..Offers::default() });
            let all = spec.mutations.into_iter().filter_map(|mutation| mutation.compiled(&env));
            Mutations { all: all.collect(), reinvokes: spec.reinvocation_policy == "IfNeeded" }
        })
    }
}

/// What both kinds of policies have, as it is written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    param_kind: Option<ParamKind>,
    match_constraints: MatchResources,
    match_conditions: Vec<MatchCondition>,
    variables: Vec<Variable>,
    failure_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValidatingSpec {
    validations: Vec<WrittenValidation>,
    audit_annotations: Vec<WrittenAnnotation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenValidation {
    expression: String,
    message: String,
    message_expression: String,
    reason: Option<String>,
}

impl WrittenValidation {
    fn compiled(self, asking: &Env, plain: &Env) -> Validation {
        let message_expression = (!self.message_expression.is_empty())
            .then(|| Expression::new(plain, &self.message_expression, Returns::Text));
        Validation {
            expression: Expression::new(asking, &self.expression, Returns::Bool),
            message: self.message,
            message_expression,
            reason: self.reason,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenAnnotation {
    key: String,
    value_expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MutatingSpec {
    mutations: Vec<WrittenMutation>,
    reinvocation_policy: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenMutation {
    patch_type: String,
    apply_configuration: Option<WrittenPatch>,
    json_patch: Option<WrittenPatch>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenPatch {
    expression: String,
}

impl WrittenMutation {
    fn compiled(self, env: &Env) -> Option<Mutation> {
        let compiled = |written: Option<WrittenPatch>, returns| {
            written.map(|written| Expression::new(env, written.expression.trim(), returns))
        };
        match self.patch_type.as_str() {
            "JSONPatch" => compiled(self.json_patch, Returns::Patches).map(Mutation::JsonPatch),
            _ => compiled(self.apply_configuration, Returns::Configuration).map(Mutation::ApplyConfiguration),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Action {
    Deny,
    Warn,
    Audit,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Deny => "Deny",
            Action::Warn => "Warn",
            Action::Audit => "Audit",
        }
    }

    /// As it is counted.
    pub fn enforcement(self) -> &'static str {
        match self {
            Action::Deny => "deny",
            Action::Warn => "warn",
            Action::Audit => "audit",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<LabelSelector>,
    pub parameter_not_found_action: Option<String>,
}

/// The binding of a policy of either kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    #[serde(skip)]
    pub name: String,
    pub policy_name: String,
    pub param_ref: Option<ParamRef>,
    match_resources: Option<MatchResources>,
    /// Of a ValidatingAdmissionPolicyBinding.
    pub validation_actions: Vec<Action>,
}

impl Binding {
    pub fn read(object: &Value) -> Binding {
        let mut binding = Binding::deserialize(&object["spec"]).unwrap_or_default();
        str_at(object, &["metadata", "name"]).clone_into(&mut binding.name);
        binding
    }

    pub(super) fn matches(&self, review: &Review<'_>, object: &Value) -> Result<bool, Status> {
        match &self.match_resources {
            Some(resources) => Ok(resources.matched(review, object)?.is_some()),
            None => Ok(true),
        }
    }
}
