//! Webhooks as they are configured, and what is said to them and by them; pure. Who calls them is the API server.

pub mod review;

use apimachinery::meta::{LabelSelector, str_at};
use apimachinery::status::StatusDetails;
use apimachinery::{Status, Value};
use serde::Deserialize;

use crate::conditions::{Conditions, MatchCondition};
use crate::expression::{self, Asker, Inputs};
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

/// One webhook of a configuration.
#[derive(Debug, Default, Deserialize)]
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
    match_conditions: Vec<MatchCondition>,
    #[serde(skip)]
    conditions: Conditions,
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
        for hook in &mut hooks {
            hook.configuration = name.to_owned();
            hook.conditions = Conditions::of_webhook(&hook.match_conditions);
        }
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

    /// In which form the webhook wants to see this request, by its rules and selectors. Follows `ShouldCallHook`.
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

    /// Whether it looks at more than rules and selectors before it wants to be asked.
    pub fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Whether its conditions hold for the objects in the form in which it wants to see them.
    pub fn meets_conditions(
        &self,
        request: &Attributes,
        matched: &Matched,
        object: &Value,
        old: &Value,
        world: &dyn World,
    ) -> Result<bool, Status> {
        let seen = Matched { resource: request.resource.clone(), kind: matched.kind.clone() };
        let inputs = Inputs {
            object,
            old_object: old,
            request: &expression::request(request, &seen),
            params: &Value::Null,
            namespace: &Value::Null,
            asker: Some(&Asker { attributes: request, world }),
            variables: &[],
        };
        let held = self.conditions.hold(&inputs, self.ignores_failures());
        held.map_err(|why| request.forbidden(object, why))
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
    fn conditions_are_asked_about_the_request_and_its_objects() {
        let holds = |expression: &str, failure_policy: &str| {
            let configuration = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "w",
                "failurePolicy": failure_policy, "matchConditions": [{"name": "a", "expression": expression}]}]});
            let hooks = Webhook::of_configuration(&configuration);
            assert!(hooks[0].has_conditions());
            let request = attributes(Operation::Create, "deployments", "ns");
            let matched = Matched { resource: request.resource.clone(), kind: request.kind.clone() };
            let world = Objects::default().allowing("breakglass", "w");
            let object = json!({"metadata": {"name": "x"}});
            let held = hooks[0].meets_conditions(&request, &matched, &object, &Value::Null, &world);
            held.map_err(|status| (status.code, status.message))
        };
        assert_eq!(
            holds("request.resource.resource == 'deployments' && oldObject == null", "Fail"),
            Ok(true)
        );
        assert_eq!(holds("object.metadata.name != 'x'", "Fail"), Ok(false));
        let allowed = "authorizer.group('g').resource('webhooks').name('w').check('breakglass').allowed()";
        assert_eq!(holds(allowed, "Fail"), Ok(true));
        assert_eq!(holds("object.spec.a", "Ignore"), Ok(false));
        let missing = "deployments.apps \"x\" is forbidden: expression 'object.spec.a == 1' resulted in error: no such key: spec";
        assert_eq!(holds("object.spec.a == 1", "Fail"), Err((403, missing.to_owned())));
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
