//! Policies and bindings as they are stored.

use apimachinery::meta::{LabelSelector, str_at};
use apimachinery::{Status, Value};
use serde::Deserialize;

use super::Review;
use crate::rules::{self, Matched, Rule};
use crate::webhook::MatchCondition;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Variable {
    pub name: String,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Validation {
    pub expression: String,
    pub message: String,
    pub message_expression: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditAnnotation {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

/// `MatchResources`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MatchResources {
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
    resource_rules: Vec<Rule>,
    exclude_resource_rules: Vec<Rule>,
    match_policy: Option<String>,
}

impl MatchResources {
    /// The form in which the request is matched, if it is. Follows `matching.Matcher`.
    fn matched(&self, review: &Review<'_>, all_without_rules: bool) -> Result<Option<Matched>, Status> {
        let everything = LabelSelector::default();
        let selector = self.namespace_selector.as_ref().unwrap_or(&everything);
        let namespace = rules::namespace_selected(selector, review.request, review.object, review.world);
        if namespace == Ok(false) {
            return Ok(None);
        }
        let selector = self.object_selector.as_ref().unwrap_or(&everything);
        if !rules::object_selected(selector, review.object, review.old) {
            return Ok(None);
        }
        let equivalent = self.match_policy.as_deref() != Some("Exact");
        if rules::matched(&self.exclude_resource_rules, equivalent, review.request).is_some() {
            return Ok(None);
        }
        let matched = if self.resource_rules.is_empty() && all_without_rules {
            let request = review.request;
            Some(Matched { resource: request.resource.clone(), kind: request.kind.clone() })
        } else {
            rules::matched(&self.resource_rules, equivalent, review.request)
        };
        // An unknown namespace matters only to those who are concerned.
        let Some(matched) = matched else { return Ok(None) };
        namespace.map(|_| Some(matched))
    }
}

/// A ValidatingAdmissionPolicy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    #[serde(skip)]
    pub name: String,
    pub param_kind: Option<ParamKind>,
    match_constraints: MatchResources,
    pub match_conditions: Vec<MatchCondition>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub audit_annotations: Vec<AuditAnnotation>,
    failure_policy: Option<String>,
}

impl Policy {
    pub fn read(object: &Value) -> Policy {
        let mut policy = Policy::deserialize(&object["spec"]).unwrap_or_default();
        str_at(object, &["metadata", "name"]).clone_into(&mut policy.name);
        policy
    }

    pub fn ignores_failures(&self) -> bool {
        self.failure_policy.as_deref() == Some("Ignore")
    }

    pub(super) fn matches(&self, review: &Review<'_>) -> Result<Option<Matched>, Status> {
        self.match_constraints.matched(review, false)
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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<LabelSelector>,
    pub parameter_not_found_action: Option<String>,
}

/// A ValidatingAdmissionPolicyBinding.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    #[serde(skip)]
    pub name: String,
    pub policy_name: String,
    pub param_ref: Option<ParamRef>,
    match_resources: Option<MatchResources>,
    pub validation_actions: Vec<Action>,
}

impl Binding {
    pub fn read(object: &Value) -> Binding {
        let mut binding = Binding::deserialize(&object["spec"]).unwrap_or_default();
        str_at(object, &["metadata", "name"]).clone_into(&mut binding.name);
        binding
    }

    pub(super) fn matches(&self, review: &Review<'_>) -> Result<bool, Status> {
        match &self.match_resources {
            Some(resources) => Ok(resources.matched(review, true)?.is_some()),
            None => Ok(true),
        }
    }
}
