//! The audit policy: which requests are told of, and how much of them (follows `k8s.io/apiserver/pkg/audit/policy`).

use std::path::Path;

use apimachinery::codec::{Format, decode_untyped};
use apimachinery::field::{Error as FieldError, ErrorList, Path as FieldPath};
use apimachinery::names::is_dns1123_subdomain;
use apimachinery::{Value, json};
use auth::Attributes;
use serde::{Deserialize, Serialize};

/// How much is told of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

pub const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// Why a policy cannot be used, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("failed to read file path {0:?}: {1}")]
    Read(String, std::io::Error),
    #[error("failed decoding: {why}: from file {path}")]
    Decode { path: String, why: String },
    #[error("unknown group version field {found} in policy: from file {path}")]
    GroupVersion { path: String, found: String },
    #[error("{why}: from file {path}")]
    Invalid { path: String, why: String },
    #[error("loaded illegal policy with 0 rules: from file {0}")]
    NoRules(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

/// An empty list matches everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    pub fn load(path: &Path) -> Result<Policy, PolicyError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| PolicyError::Read(shown.clone(), error))?;
        Policy::parse(&text, &shown)
    }

    fn parse(text: &str, path: &str) -> Result<Policy, PolicyError> {
        let path = path.to_owned();
        let failed = |why: String| PolicyError::Decode { path: path.clone(), why };
        let read = decode_untyped(Format::Yaml, text.as_bytes());
        let (document, doubled) = read.map_err(|error| failed(error.to_string()))?;
        if document["apiVersion"] != "audit.k8s.io/v1" || document["kind"] != "Policy" {
            let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            let found = format!("{}, Kind={}", text("apiVersion"), text("kind"));
            return Err(PolicyError::GroupVersion { path, found });
        }
        let unknown = unknown_fields(&document).into_iter().map(|field| format!("unknown field {field:?}"));
        let wrong: Vec<String> = doubled.into_iter().chain(unknown).collect();
        if !wrong.is_empty() {
            tracing::warn!(
                "Audit policy contains errors, falling back to lenient decoding: strict decoding error: {}",
                wrong.join(", ")
            );
        }
        let errors = validate(&document);
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let why = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
            return Err(PolicyError::Invalid { path, why });
        }
        let policy = Policy::deserialize(&document).map_err(|error| failed(error.to_string()))?;
        if policy.rules.is_empty() {
            return Err(PolicyError::NoRules(path));
        }
        Ok(policy)
    }

    /// By the first rule that matches; a request that none matches is not told of.
    pub fn evaluate(&self, request: &Attributes<'_>, known_user: bool) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(request, known_user));
        let Some(rule) = rule else {
            return Verdict {
                level: Level::None,
                omit_stages: self.omit_stages.clone(),
                omit_managed_fields: self.omit_managed_fields,
            };
        };
        Verdict {
            level: rule.level,
            omit_stages: [&self.omit_stages[..], &rule.omit_stages[..]].concat(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn matches(&self, request: &Attributes<'_>, known_user: bool) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        let is_among = |users: &[String]| known_user && has(users, &request.user.name);
        if !self.users.is_empty() && !is_among(&self.users) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| request.user.is_in(group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource_request()
                && (self.namespaces.is_empty() || has(&self.namespaces, request.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(request)));
        }
        if !self.non_resource_urls.is_empty() {
            let matches = |spec: &String| path_matches(request.path, spec);
            return !request.is_resource_request() && self.non_resource_urls.iter().any(matches);
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        if self.group != request.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let (resource, subresource) = (request.resource, request.subresource);
        let whole =
            if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == request.name);
        named
            && self.resources.iter().any(|wanted| {
                *wanted == whole
                    || wanted == "*"
                    || (!subresource.is_empty() && wanted.strip_prefix("*/") == Some(subresource))
                    || wanted.strip_suffix("/*") == Some(resource)
            })
    }
}

fn path_matches(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || (spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*')))
}

fn texts<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a str)> {
    items(value, field).iter().map(|item| item.as_str().unwrap_or_default()).enumerate()
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Fields that a policy does not have, by their paths.
fn unknown_fields(document: &Value) -> Vec<String> {
    const POLICY: &[&str] = &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
    const RULE: &[&str] = &[
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
    ];
    const RESOURCES: &[&str] = &["group", "resources", "resourceNames"];
    let mut found = Vec::new();
    let mut look = |value: &Value, known: &[&str], path: &str| {
        let keys = value.as_object().into_iter().flat_map(|fields| fields.keys());
        found.extend(keys.filter(|key| !known.contains(&key.as_str())).map(|key| format!("{path}{key}")));
    };
    look(document, POLICY, "");
    for (index, rule) in items(document, "rules").iter().enumerate() {
        look(rule, RULE, &format!("rules[{index}]."));
        for (inner, resources) in items(rule, "resources").iter().enumerate() {
            look(resources, RESOURCES, &format!("rules[{index}].resources[{inner}]."));
        }
    }
    found
}

fn validate(document: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_stages(document, &FieldPath::new("omitStages"), &mut errors);
    for (index, rule) in items(document, "rules").iter().enumerate() {
        let at = FieldPath::new("rules").index(index);
        match rule["level"].as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required(&at.child("level"), "")),
            level if LEVELS.contains(&level) => {}
            level => errors.push(FieldError::not_supported(&at.child("level"), level, &LEVELS)),
        }
        validate_urls(rule, &at.child("nonResourceURLs"), &mut errors);
        validate_resources(rule, &at.child("resources"), &mut errors);
        validate_stages(rule, &at.child("omitStages"), &mut errors);
        let urls = items(rule, "nonResourceURLs");
        let of_resources = ["resources", "namespaces"].iter().any(|field| !items(rule, field).is_empty());
        if !urls.is_empty() && of_resources {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&at.child("nonResourceURLs"), json!(urls), detail));
        }
    }
    errors
}

fn validate_stages(owner: &Value, at: &FieldPath, errors: &mut ErrorList) {
    for (index, stage) in texts(owner, "omitStages").filter(|(_, stage)| !STAGES.contains(stage)) {
        let detail = format!("allowed stages are {}", STAGES.join(","));
        errors.push(FieldError::invalid(&at.index(index), stage, detail));
    }
}

fn validate_urls(rule: &Value, at: &FieldPath, errors: &mut ErrorList) {
    for (index, url) in texts(rule, "nonResourceURLs").filter(|(_, url)| *url != "*") {
        if !url.starts_with('/') {
            let detail = "non-resource URL rules must begin with a '/' character";
            errors.push(FieldError::invalid(&at.index(index), url, detail));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let detail = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(FieldError::invalid(&at.index(index), url, detail));
        }
    }
}

fn validate_resources(rule: &Value, at: &FieldPath, errors: &mut ErrorList) {
    for resources in items(rule, "resources") {
        let group = resources["group"].as_str().unwrap_or_default();
        let complaints = if matches!(group, "" | "*") { Vec::new() } else { is_dns1123_subdomain(group) };
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(&at.child("group"), group, complaints.join(",")));
        }
        let names = items(resources, "resourceNames");
        if !names.is_empty() && items(resources, "resources").is_empty() {
            let detail = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(&at.child("resourceNames"), json!(names), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    fn policy(rest: &str) -> Result<Policy, String> {
        Policy::parse(&format!("{HEAD}{rest}"), "p").map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "omitStages: [RequestReceived]\nrules:\n\
             - {level: None, users: [\"system:kube-proxy\"], verbs: [watch]}\n\
             - {level: RequestResponse, resources: [{group: \"\", resources: [\"pods/*\", secrets]}]}\n\
             - {level: Request, namespaces: [kube-system], omitManagedFields: true}\n\
             - {level: Metadata, nonResourceURLs: [\"/api*\"], omitStages: [ResponseStarted]}\n",
        )
        .expect("a policy");
        let ann = UserInfo::new("ann", ["dev"]);
        let check = |verb, resource, subresource, namespace, expect| {
            let request = Attributes {
                verb,
                resource,
                subresource,
                namespace,
                path: "/api/v1",
                ..Attributes::of(&ann)
            };
            assert_eq!(policy.evaluate(&request, true).level, expect, "{verb} {resource}/{subresource}");
        };
        check("get", "secrets", "", "a", Level::RequestResponse);
        check("get", "pods", "log", "a", Level::RequestResponse);
        check("get", "pods", "", "a", Level::RequestResponse);
        check("get", "configmaps", "", "kube-system", Level::Request);
        check("get", "configmaps", "", "a", Level::None);
        check("get", "", "", "", Level::Metadata);
        let proxy = UserInfo::new("system:kube-proxy", [""; 0]);
        let watch = Attributes { verb: "watch", resource: "secrets", ..Attributes::of(&proxy) };
        assert_eq!(policy.evaluate(&watch, true).level, Level::None);
        let path = Attributes { verb: "get", path: "/apis", ..Attributes::of(&ann) };
        assert_eq!(
            policy.evaluate(&path, true).omit_stages,
            [Stage::RequestReceived, Stage::ResponseStarted]
        );
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        assert_eq!(
            policy("rules: []").err().as_deref(),
            Some("loaded illegal policy with 0 rules: from file p")
        );
        assert_eq!(
            policy("rules: [{level: Some}]").err().as_deref(),
            Some(
                "rules[0].level: Unsupported value: \"Some\": supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\": from file p"
            )
        );
        assert_eq!(
            policy("rules: [{level: None, nonResourceURLs: [\"x\"]}]").err().as_deref(),
            Some(
                "rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' character: from file p"
            )
        );
        assert!(Policy::parse("kind: Policy", "p").is_err());
        assert!(policy("rules: [{level: None, usrs: [x]}]").is_ok(), "unknown fields are only warned of");
    }
}
