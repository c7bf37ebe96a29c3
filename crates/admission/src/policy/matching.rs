//! Which requests a policy or a binding is about. Follows `matching.Matcher`.

use apimachinery::meta::LabelSelector;
use apimachinery::{Status, Value};
use serde::Deserialize;

use super::Review;
use crate::rules::{self, Matched, Rule};

/// `MatchResources`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchResources {
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
    pub resource_rules: Vec<Rule>,
    exclude_resource_rules: Vec<Rule>,
    match_policy: Option<String>,
}

impl MatchResources {
    /// The form in which the request is matched, if it is. Without rules it is in its own.
    pub fn matched(&self, review: &Review<'_>, object: &Value) -> Result<Option<Matched>, Status> {
        let everything = LabelSelector::default();
        let selector = self.namespace_selector.as_ref().unwrap_or(&everything);
        let namespace = rules::namespace_selected(selector, review.request, object, review.world);
        if namespace == Ok(false) {
            return Ok(None);
        }
        let selector = self.object_selector.as_ref().unwrap_or(&everything);
        if !rules::object_selected(selector, object, review.old) {
            return Ok(None);
        }
        let equivalent = self.match_policy.as_deref() != Some("Exact");
        if rules::matched(&self.exclude_resource_rules, equivalent, review.request).is_some() {
            return Ok(None);
        }
        let matched = if self.resource_rules.is_empty() {
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
