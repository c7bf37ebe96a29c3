//! Webhooks as they are configured, and what is said to them and by them; pure. Who calls them is the API server.

pub mod review;

use apimachinery::meta::{LabelSelector, str_at};
use apimachinery::status::StatusDetails;
use apimachinery::{Status, Value};
use serde::Deserialize;

use crate::request::World;
use crate::rules::{self, Attributes, Matched, Rule};

/// How long a webhook may take that does not say (upstream's default of `timeoutSeconds`).
const TIMEOUT_SECONDS: u64 = 10;
const BAD_REQUEST: u16 = 400;

/// `WebhookClientConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConfig {
    pub url: Option<String>,
    pub service: Option<ServiceReference>,
    /// PEM in base64.
    pub ca_bundle: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub path: Option<String>,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchCondition {
    pub name: String,
    pub expression: String,
}

/// One webhook of a configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    pub name: String,
    pub client_config: ClientConfig,
    pub rules: Vec<Rule>,
    failure_policy: Option<String>,
    match_policy: Option<String>,
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
    side_effects: Option<String>,
    timeout_seconds: Option<u64>,
    pub admission_review_versions: Vec<String>,
    reinvocation_policy: Option<String>,
    pub match_conditions: Vec<MatchCondition>,
    /// The name of the configuration it is in.
    #[serde(skip)]
    pub configuration: String,
}

impl Webhook {
    /// The webhooks of a stored configuration, in its order.
    pub fn of_configuration(configuration: &Value) -> Vec<Webhook> {
        let hooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        let mut hooks: Vec<Webhook> =
            hooks.iter().filter_map(|hook| Webhook::deserialize(hook).ok()).collect();
        hooks.iter_mut().for_each(|hook| hook.configuration = name.to_owned());
        hooks
    }

    /// Whether the request goes on when the webhook cannot be asked.
    pub fn ignores_failures(&self) -> bool {
        self.failure_policy.as_deref() == Some("Ignore")
    }

    pub fn reinvokes(&self) -> bool {
        self.reinvocation_policy.as_deref() == Some("IfNeeded")
    }

    pub fn timeout_seconds(&self) -> u64 {
        self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS)
    }

    /// Refuses to call a webhook in a dry run that would do more than answer.
    pub fn check_dry_run(&self, dry_run: bool) -> Result<(), Status> {
        match self.side_effects.as_deref() {
            Some("None" | "NoneOnDryRun") => Ok(()),
            _ if !dry_run => Ok(()),
            _ => Err(Status::bad_request(format!(
                "admission webhook {:?} does not support dry run",
                self.name
            ))),
        }
    }

    /// In which form the webhook wants to see this request; match conditions are left to the caller.
    /// Follows `ShouldCallHook`.
    pub fn wants(
        &self,
        request: &Attributes,
        object: &Value,
        old: Option<&Value>,
        world: &dyn World,
    ) -> Result<Option<Matched>, Status> {
        let everything = LabelSelector::default();
        let selector = self.namespace_selector.as_ref().unwrap_or(&everything);
        // An unknown namespace matters only if the rules match.
        let namespace = rules::namespace_selected(selector, request, object, world);
        if namespace == Ok(false) {
            return Ok(None);
        }
        let selector = self.object_selector.as_ref().unwrap_or(&everything);
        if !rules::object_selected(selector, object, old) {
            return Ok(None);
        }
        let equivalent = self.match_policy.as_deref() != Some("Exact");
        let Some(matched) = rules::matched(&self.rules, equivalent, request) else { return Ok(None) };
        namespace.map(|_| Some(matched))
    }
}

/// The refusal of a webhook, as the client sees it. Follows `ToStatusErr`.
pub fn denial(webhook: &str, result: Option<&Value>) -> Status {
    let said = result.unwrap_or(&Value::Null);
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (str_at(said, &["message"]), str_at(said, &["reason"])) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    // A code below 400 would be no refusal.
    let code = said["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    let mut status = Status::failure(code.max(BAD_REQUEST), str_at(said, &["reason"]), message);
    status.details = StatusDetails::deserialize(&said["details"]).ok().map(Box::new);
    status
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::request::Operation;
    use crate::rules::tests::attributes;
    use crate::testing::Objects;

    #[test]
    fn a_denial_says_who_denied_and_why() {
        let table = [
            (None, 400, "admission webhook \"w\" denied the request without explanation"),
            (Some(json!({"message": "no"})), 400, "admission webhook \"w\" denied the request: no"),
            (
                Some(json!({"code": 403, "reason": "Forbidden"})),
                403,
                "admission webhook \"w\" denied the request: Forbidden",
            ),
            (
                Some(json!({"code": 200, "status": "Success", "message": "m"})),
                400,
                "admission webhook \"w\" denied the request: m",
            ),
        ];
        for (result, code, message) in table {
            let status = denial("w", result.as_ref());
            assert_eq!(
                (status.code, status.message.as_str(), status.status.as_str()),
                (code, message, "Failure")
            );
        }
    }

    #[test]
    fn a_webhook_is_asked_when_rules_and_selectors_agree() {
        let configuration = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "w", "sideEffects": "Some",
            "rules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1beta1"], "resources": ["deployments"]}],
            "objectSelector": {"matchLabels": {"a": "b"}}}]});
        let hooks = Webhook::of_configuration(&configuration);
        let create = attributes(Operation::Create, "deployments", "ns");
        let world = Objects::default().with("namespaces", json!({"metadata": {"name": "ns"}}));
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        let matched = hooks[0].wants(&create, &labelled, None, &world).expect("is decided");
        assert_eq!(matched.expect("matches").resource.version, "v1beta1");
        assert_eq!(hooks[0].wants(&create, &json!({"metadata": {}}), None, &world), Ok(None));
        assert!(hooks[0].check_dry_run(false).is_ok());
        let refused = hooks[0].check_dry_run(true).expect_err("has side effects");
        assert_eq!(refused.message, "admission webhook \"w\" does not support dry run");
    }
}
