//! One rule, and whether it allows a request (upstream: RuleAllows and the rbac/v1 helpers).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::attributes::Attributes;

/// A verb, group, resource, name or path in a rule; equal words of one index share their memory.
pub type Word = Arc<str>;

/// `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "words", skip_serializing_if = "<[Word]>::is_empty")]
    pub api_groups: Box<[Word]>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "words",
        skip_serializing_if = "<[Word]>::is_empty"
    )]
    pub non_resource_urls: Box<[Word]>,
    #[serde(deserialize_with = "words", skip_serializing_if = "<[Word]>::is_empty")]
    pub resource_names: Box<[Word]>,
    #[serde(deserialize_with = "words", skip_serializing_if = "<[Word]>::is_empty")]
    pub resources: Box<[Word]>,
    #[serde(deserialize_with = "words")]
    pub verbs: Box<[Word]>,
}

/// A list of words; null is none.
fn words<'de, D: Deserializer<'de>>(input: D) -> Result<Box<[Word]>, D::Error> {
    Ok(Option::<Box<[Word]>>::deserialize(input)?.unwrap_or_default())
}

pub(super) fn has(words: &[Word], wanted: &str) -> bool {
    words.iter().any(|word| &**word == wanted)
}

pub(super) fn has_or_all(words: &[Word], wanted: &str) -> bool {
    words.iter().any(|word| matches!(&**word, "*") || &**word == wanted)
}

impl PolicyRule {
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, request.verb) {
            return false;
        }
        if !request.is_resource_request() {
            return self.non_resource_urls.iter().any(|url| url_covers(url, request.path));
        }
        has_or_all(&self.api_groups, request.group)
            && self.resources.iter().any(|resource| resource_covers(resource, request))
            && (self.resource_names.is_empty() || has(&self.resource_names, request.name))
    }

    /// Calls `with` on every list of words.
    pub(super) fn each_list(&mut self, mut with: impl FnMut(&mut Box<[Word]>)) {
        with(&mut self.api_groups);
        with(&mut self.non_resource_urls);
        with(&mut self.resource_names);
        with(&mut self.resources);
        with(&mut self.verbs);
    }
}

/// `pods`, `pods/log`, `*/scale` or `*`.
fn resource_covers(rule: &str, request: &Attributes<'_>) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => request.subresource.is_empty() && rule == request.resource,
        Some((resource, subresource)) => {
            !request.subresource.is_empty()
                && subresource == request.subresource
                && (resource == "*" || resource == request.resource)
        }
    }
}

/// `/healthz`, `/healthz/*` or `*`.
pub(super) fn url_covers(rule: &str, path: &str) -> bool {
    rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

impl fmt::Display for PolicyRule {
    /// Upstream's compact form: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = parts.iter().filter(|(_, words)| !words.is_empty()).map(|(name, words)| {
            let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            format!("{name}:[{}]", quoted.join(" "))
        });
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::user::UserInfo;

    /// A request reads `verb group/resource[/subresource] [name]`, or `verb /path`.
    fn check(rule: Value, request: &str, expect: bool) {
        let rule: PolicyRule = apimachinery::from_value(rule).expect("a rule");
        let user = UserInfo::anonymous();
        let mut words = request.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let mut attributes = Attributes { verb: word(), ..Attributes::of(&user) };
        let what = word();
        if what.starts_with('/') {
            attributes.path = what;
        } else {
            let mut parts = what.split('/');
            let mut part = || parts.next().unwrap_or_default();
            (attributes.group, attributes.resource, attributes.subresource) = (part(), part(), part());
            attributes.group = attributes.group.trim_start_matches("core");
            attributes.name = word();
        }
        assert_eq!(rule.allows(&attributes), expect, "{rule} {request}");
    }

    #[test]
    fn a_rule_allows_what_all_its_parts_match() {
        let pods = json!({"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]});
        check(pods.clone(), "get core/pods a", true);
        check(pods.clone(), "list core/pods", true);
        check(pods.clone(), "get core/pods/log a", true);
        check(pods.clone(), "get core/pods/exec a", false);
        check(pods.clone(), "delete core/pods a", false);
        check(pods.clone(), "get apps/pods a", false);
        check(pods, "get /pods", false);
    }

    #[test]
    fn stars_stand_for_everything_of_their_place() {
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        check(all.clone(), "delete apps/deployments/status a", true);
        check(all, "get /metrics", false);
        let scales = json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]});
        check(scales.clone(), "update apps/deployments/scale a", true);
        check(scales.clone(), "update apps/deployments a", false);
        check(scales, "update apps/deployments/status a", false);
    }

    #[test]
    fn names_and_paths_narrow_a_rule() {
        let one =
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]});
        check(one.clone(), "get core/secrets a", true);
        check(one.clone(), "get core/secrets b", false);
        check(one, "get core/secrets", false);
        let paths = json!({"nonResourceURLs": ["/healthz", "/api/*"], "verbs": ["get"]});
        check(paths.clone(), "get /healthz", true);
        check(paths.clone(), "get /healthz/ping", false);
        check(paths.clone(), "get /api/v1", true);
        check(paths, "post /api/v1", false);
        check(json!({"nonResourceURLs": ["*"], "verbs": ["*"], "apiGroups": null}), "post /x", true);
    }
}
