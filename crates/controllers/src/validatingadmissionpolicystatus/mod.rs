//! Tells in the status of a ValidatingAdmissionPolicy which of its expressions cannot be right (follows upstream's
//! `validatingadmissionpolicystatus`).

mod types;

use api::admissionregistration::typechecking;
use api::resource::VALIDATING_ADMISSION_POLICIES;
use api::view::admissionregistration::ValidatingAdmissionPolicy;
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};
use types::Types;

struct PolicyStatus {
    policies: Informer<ValidatingAdmissionPolicy>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(PolicyStatus { policies: informers.get() })
}

#[async_trait]
impl Controller for PolicyStatus {
    fn watch(&self, watches: &mut Watches) {
        watches.on(VALIDATING_ADMISSION_POLICIES, &self.policies, itself);
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(policy) = self.policies.get("", &key.name) else { return Ok(Plan::default()) };
        if is_observed(&policy) {
            return Ok(Plan::default());
        }
        let types = Types::of(client, &policy.spec).await?;
        Ok(reconcile(&policy, &types))
    }
}

fn is_observed(policy: &ValidatingAdmissionPolicy) -> bool {
    policy.metadata.generation <= policy.status["observedGeneration"].as_i64().unwrap_or_default()
}

fn reconcile(policy: &ValidatingAdmissionPolicy, types: &Types) -> Plan {
    let mut plan = Plan::default();
    if is_observed(policy) {
        return plan;
    }
    let warnings = typechecking::expression_warnings(&policy.spec, &types.objects, &types.params);
    let mut status = if policy.status.is_object() { policy.status.clone() } else { json!({}) };
    status["observedGeneration"] = policy.metadata.generation.into();
    status["typeChecking"] = match warnings.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": Value::Array(warnings)}),
    };
    plan.act(Action::update_status(VALIDATING_ADMISSION_POLICIES, &policy.metadata, status));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_policy_is_checked_once_for_each_generation() {
        let mut cluster = Cluster::new();
        let spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["*"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas > '1'"}]});
        let policy = json!({"metadata": {"name": "p", "generation": 1}, "spec": spec});
        cluster.create(VALIDATING_ADMISSION_POLICIES, policy);
        let types = Types {
            objects: vec![(
                apimachinery::gvk::GroupVersionKind::new("apps", "v1", "Deployment"),
                typechecking::built_in("io.k8s.api.apps.v1.Deployment"),
            )],
            params: types::UNKNOWN,
        };
        let decide = |cluster: &Cluster| {
            reconcile(&cluster.get::<ValidatingAdmissionPolicy>("", "p").expect("it is there"), &types)
        };
        let plan = decide(&cluster);
        cluster.apply(&plan);
        let told = cluster.value(VALIDATING_ADMISSION_POLICIES, "", "p").expect("it is there");
        let warning = &told["status"]["typeChecking"]["expressionWarnings"][0];
        assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
        assert_eq!(told["status"]["observedGeneration"], 1);
        assert!(decide(&cluster).is_empty());
    }
}
