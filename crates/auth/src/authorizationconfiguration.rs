//! Who decides, in which order: an AuthorizationConfiguration as it is written in a file (`apiserver.config.k8s.io/v1`), or
//! the flags `--authorization-mode` and `--authorization-webhook-*` in its terms. Follows
//! `validation.ValidateAuthorizationConfiguration`, whose messages these are.

use std::collections::HashSet;
use std::time::Duration;

use apimachinery::field::{Error as FieldError, ErrorList, Path};
use apimachinery::names::is_dns1123_subdomain;
use apimachinery::time::parse_duration;
use serde::{Deserialize, Deserializer};

use crate::configfile::{self, Error};
use crate::matchconditions::MatchConditions;

const KIND: &str = "AuthorizationConfiguration";
const WEBHOOK: &str = "Webhook";
/// As upstream without ABAC, which decides by a file of its own form.
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", WEBHOOK];
/// A webhook must decide within this time.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// More conditions than this are refused.
const CONDITIONS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    authorizers: Vec<AuthorizerConfiguration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthorizerConfiguration {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<WebhookConfiguration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookConfiguration {
    #[serde(rename = "authorizedTTL", deserialize_with = "duration")]
    authorized_ttl: Option<Duration>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL", deserialize_with = "duration")]
    unauthorized_ttl: Option<Duration>,
    cache_unauthorized_requests: Option<bool>,
    #[serde(deserialize_with = "duration")]
    timeout: Option<Duration>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    match_conditions: Vec<MatchCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MatchCondition {
    expression: String,
}

/// As Go writes it, `5m0s`.
fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(input)? else { return Ok(None) };
    let parsed = parse_duration(&text).and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.map(Some).ok_or_else(|| serde::de::Error::custom(format!("invalid duration {text:?}")))
}

/// One who decides.
#[derive(Debug)]
pub enum Authorizer {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<Webhook>),
}

/// A server that is asked by SubjectAccessReviews.
#[derive(Debug)]
pub struct Webhook {
    pub name: String,
    /// How to reach it.
    pub kube_config_file: String,
    /// `v1` or `v1beta1`.
    pub version: String,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    pub timeout: Duration,
    /// Whether what it cannot be asked about is refused; otherwise others decide.
    pub denies_on_failure: bool,
    pub conditions: MatchConditions,
}

impl AuthorizationConfiguration {
    pub fn parse(text: &str) -> Result<AuthorizationConfiguration, Error> {
        configfile::read(text, KIND)
    }

    /// Who decides, in order.
    pub fn compile(&self) -> Result<Vec<Authorizer>, Error> {
        let mut validation = Validation::default();
        let authorizers = validation.authorizers(&self.authorizers, &Path::new("authorizers"));
        if validation.errors.is_empty() { Ok(authorizers) } else { Err(Error::Invalid(validation.errors)) }
    }
}

/// The flags `--authorization-mode` and `--authorization-webhook-*`.
#[derive(Clone, Debug)]
pub struct AuthorizationFlags {
    pub modes: Vec<String>,
    pub webhook_config_file: Option<String>,
    pub webhook_version: String,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
}

impl From<AuthorizationFlags> for AuthorizationConfiguration {
    fn from(flags: AuthorizationFlags) -> AuthorizationConfiguration {
        let webhook = || WebhookConfiguration {
            authorized_ttl: Some(flags.authorized_ttl),
            unauthorized_ttl: Some(flags.unauthorized_ttl),
            cache_authorized_requests: Some(!flags.authorized_ttl.is_zero()),
            cache_unauthorized_requests: Some(!flags.unauthorized_ttl.is_zero()),
            timeout: Some(TIMEOUT_MAX),
            subject_access_review_version: flags.webhook_version.clone(),
            failure_policy: "NoOpinion".to_owned(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".to_owned(),
                kube_config_file: flags.webhook_config_file.clone(),
            },
            ..WebhookConfiguration::default()
        };
        let authorizers = flags.modes.iter().map(|mode| AuthorizerConfiguration {
            kind: mode.clone(),
            name: mode.to_lowercase(),
            webhook: (mode == WEBHOOK).then(webhook),
        });
        AuthorizationConfiguration {
            _api_version: String::new(),
            _kind: String::new(),
            authorizers: authorizers.collect(),
        }
    }
}

#[derive(Default)]
struct Validation {
    errors: ErrorList,
}

impl Validation {
    fn authorizers(&mut self, all: &[AuthorizerConfiguration], path: &Path) -> Vec<Authorizer> {
        if all.is_empty() {
            let why = "at least one authorization mode must be defined";
            self.errors.push(FieldError::required(path, why));
        }
        let (mut types, mut names) = (HashSet::new(), HashSet::new());
        let mut authorizers = Vec::new();
        for (i, one) in all.iter().enumerate() {
            let (path, kind) = (path.index(i), one.kind.as_str());
            let at = path.child("type");
            if kind.is_empty() {
                self.errors.push(FieldError::required(&at, ""));
            } else if !TYPES.contains(&kind) {
                self.errors.push(FieldError::not_supported(&at, kind, &TYPES));
            } else if !types.insert(kind) && kind != WEBHOOK {
                self.errors.push(FieldError::duplicate(&at, kind));
            } else {
                self.name(&one.name, &mut names, &path.child("name"));
                authorizers.extend(self.authorizer(one, &path));
            }
        }
        authorizers
    }

    fn name<'t>(&mut self, name: &'t str, seen: &mut HashSet<&'t str>, path: &Path) {
        let complaints = is_dns1123_subdomain(name);
        if name.is_empty() {
            self.errors.push(FieldError::required(path, ""));
        } else if !seen.insert(name) {
            self.errors.push(FieldError::duplicate(path, name));
        } else if !complaints.is_empty() {
            let why = format!("authorizer name is invalid: {}", complaints.join(", "));
            self.errors.push(FieldError::invalid(path, name, why));
        }
    }

    fn authorizer(&mut self, one: &AuthorizerConfiguration, path: &Path) -> Option<Authorizer> {
        let at = path.child("webhook");
        if one.kind != WEBHOOK && one.webhook.is_some() {
            let why = "may only be specified when type=Webhook";
            self.errors.push(FieldError::invalid(&at, "non-null", why));
        }
        match (one.kind.as_str(), &one.webhook) {
            ("AlwaysAllow", _) => Some(Authorizer::AlwaysAllow),
            ("AlwaysDeny", _) => Some(Authorizer::AlwaysDeny),
            ("Node", _) => Some(Authorizer::Node),
            ("RBAC", _) => Some(Authorizer::Rbac),
            (_, Some(webhook)) => Some(Authorizer::Webhook(Box::new(self.webhook(&one.name, webhook, &at)))),
            (_, None) => {
                self.errors.push(FieldError::required(&at, "required when type=Webhook"));
                None
            }
        }
    }

    fn webhook(&mut self, name: &str, webhook: &WebhookConfiguration, path: &Path) -> Webhook {
        let timeout = self.given(webhook.timeout, &path.child("timeout"));
        if timeout > TIMEOUT_MAX {
            let (at, found) = (path.child("timeout"), format!("{}s", timeout.as_secs()));
            self.errors.push(FieldError::invalid(&at, found, "must be > 0s and <= 30s"));
        }
        let mut ttl = |given: Option<Duration>, is_cached: Option<bool>, field: &str| match is_cached {
            Some(false) => Duration::ZERO,
            _ => self.given(given, &path.child(field)),
        };
        let authorized_ttl = ttl(webhook.authorized_ttl, webhook.cache_authorized_requests, "authorizedTTL");
        let unauthorized_ttl =
            ttl(webhook.unauthorized_ttl, webhook.cache_unauthorized_requests, "unauthorizedTTL");
        let version = &webhook.subject_access_review_version;
        self.one_of(version, &["v1", "v1beta1"], &path.child("subjectAccessReviewVersion"));
        let at = path.child("matchConditionSubjectAccessReviewVersion");
        let condition_version = &webhook.match_condition_subject_access_review_version;
        if !condition_version.is_empty() {
            self.one_of(condition_version, &["v1"], &at);
        } else if !webhook.match_conditions.is_empty() {
            self.errors.push(FieldError::required(&at, "required if match conditions are specified"));
        }
        self.one_of(&webhook.failure_policy, &["NoOpinion", "Deny"], &path.child("failurePolicy"));
        let kube_config_file = self.connection(&webhook.connection_info, &path.child("connectionInfo"));
        Webhook {
            name: name.to_owned(),
            kube_config_file,
            version: version.clone(),
            authorized_ttl,
            unauthorized_ttl,
            timeout,
            denies_on_failure: webhook.failure_policy == "Deny",
            conditions: self.conditions(&webhook.match_conditions, &path.child("matchConditions")),
        }
    }

    fn given(&mut self, given: Option<Duration>, path: &Path) -> Duration {
        let given = given.unwrap_or_default();
        if given.is_zero() {
            self.errors.push(FieldError::required(path, ""));
        }
        given
    }

    fn one_of(&mut self, text: &str, known: &[&str], path: &Path) {
        if text.is_empty() {
            self.errors.push(FieldError::required(path, ""));
        } else if !known.contains(&text) {
            self.errors.push(FieldError::not_supported(path, text, known));
        }
    }

    /// The kubeconfig that says how to reach a webhook. `InClusterConfig` is for API servers that run in another cluster.
    fn connection(&mut self, info: &ConnectionInfo, path: &Path) -> String {
        self.one_of(&info.kind, &["KubeConfigFile"], &path.child("type"));
        let at = path.child("kubeConfigFile");
        let file = info.kube_config_file.clone().unwrap_or_default();
        if file.is_empty() {
            self.errors.push(FieldError::required(&at, ""));
        } else if !std::path::Path::new(&file).is_absolute() {
            self.errors.push(FieldError::invalid(&at, file.as_str(), "must be an absolute path"));
        }
        file
    }

    fn conditions(&mut self, conditions: &[MatchCondition], path: &Path) -> MatchConditions {
        let (mut compiled, mut seen) = (MatchConditions::default(), HashSet::new());
        if conditions.len() > CONDITIONS_MAX {
            self.errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
            return compiled;
        }
        for (i, MatchCondition { expression }) in conditions.iter().enumerate() {
            let path = path.index(i).child("expression");
            if expression.trim().is_empty() {
                self.errors.push(FieldError::required(&path, ""));
            } else if !seen.insert(expression) {
                self.errors.push(FieldError::duplicate(&path, expression.as_str()));
            } else if let Err(why) = compiled.add(expression) {
                self.errors.push(FieldError::invalid(&path, expression.as_str(), why));
            }
        }
        compiled
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn compile(authorizers: Value) -> Result<Vec<Authorizer>, Error> {
        let file =
            json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": KIND, "authorizers": authorizers});
        AuthorizationConfiguration::parse(&file.to_string())?.compile()
    }

    fn webhook(more: Value) -> Value {
        let mut webhook = json!({"timeout": "3s", "authorizedTTL": "5m", "unauthorizedTTL": "30s",
            "subjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/a"}});
        webhook.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"type": "Webhook", "name": "w", "webhook": webhook})
    }

    #[test]
    fn those_who_decide_stand_in_the_order_of_the_file() {
        let conditions = json!({"matchConditionSubjectAccessReviewVersion": "v1",
            "matchConditions": [{"expression": "has(request.resourceAttributes)"}]});
        let found = compile(
            json!([{"type": "Node", "name": "node"}, webhook(conditions), {"type": "RBAC", "name": "rbac"}]),
        );
        let found = found.expect("is usable");
        assert!(matches!(found[..], [Authorizer::Node, Authorizer::Webhook(_), Authorizer::Rbac]));
        let Authorizer::Webhook(asked) = &found[1] else { unreachable!("it was one") };
        assert_eq!((asked.timeout.as_secs(), asked.authorized_ttl.as_secs()), (3, 300));
        assert!(asked.denies_on_failure);
        let uncached =
            compile(json!([webhook(json!({"cacheAuthorizedRequests": false, "authorizedTTL": null}))]));
        let found = uncached.expect("is usable");
        let Authorizer::Webhook(asked) = &found[0] else { unreachable!("it was one") };
        assert!(asked.authorized_ttl.is_zero());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |authorizers: Value, expect: &str| {
            let found = compile(authorizers).expect_err("is refused").to_string();
            assert!(found.contains(expect), "{found}");
        };
        check(json!([]), "authorizers: Required value: at least one authorization mode must be defined");
        check(
            json!([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}]),
            "authorizers[1].type: Duplicate value: \"RBAC\"",
        );
        check(json!([{"type": "ABAC", "name": "a"}]), "authorizers[0].type: Unsupported value");
        check(json!([{"type": "RBAC", "name": ""}]), "authorizers[0].name: Required value");
        check(json!([webhook(json!({"timeout": "31s"}))]), "must be > 0s and <= 30s");
        check(
            json!([webhook(json!({"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "a"}}))]),
            "must be an absolute path",
        );
        check(
            json!([webhook(json!({"matchConditions": [{"expression": "true"}]}))]),
            "required if match conditions are specified",
        );
        check(json!([webhook(json!({"failurePolicy": "Allow"}))]), "failurePolicy: Unsupported value");
        check(json!([webhook(json!({"authorizedTTL": "soon"}))]), "invalid duration");
        check(
            json!([{"type": "RBAC", "name": "r", "webhook": {}}]),
            "may only be specified when type=Webhook",
        );
    }

    #[test]
    fn the_flags_say_the_same_in_fewer_words() {
        let flags = |modes: &[&str], file: Option<&str>| AuthorizationFlags {
            modes: modes.iter().map(|mode| (*mode).to_owned()).collect(),
            webhook_config_file: file.map(str::to_owned),
            webhook_version: "v1beta1".to_owned(),
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::ZERO,
        };
        let compile = |modes, file| AuthorizationConfiguration::from(flags(modes, file)).compile();
        let found = compile(&["Node", "Webhook"], Some("/a")).expect("is usable");
        assert!(matches!(&found[1], Authorizer::Webhook(asked) if asked.unauthorized_ttl.is_zero()));
        assert!(compile(&["Webhook"], None).is_err());
        assert!(compile(&["Node", "Node"], None).is_err());
    }
}
