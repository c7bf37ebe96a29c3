//! Makes the claims of generic ephemeral volumes; they go with their pods (follows upstream's
//! `pkg/controller/volume/ephemeral`).

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS};
use api::view::PartialObject;
use api::view::core::{Pod, Volume};
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, controller_of, itself};
use crate::ownership::controller_reference;
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};

const FAILED_BINDING: &str = "FailedBinding";

struct EphemeralVolumes {
    pods: Informer<Pod>,
    claims: Informer<PartialObject>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(EphemeralVolumes {
        pods: informers.get(),
        claims: informers.get_selected(PERSISTENT_VOLUME_CLAIMS, ""),
    })
}

#[async_trait]
impl Controller for EphemeralVolumes {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PODS, &self.pods, |delta| match delta {
            Delta::Added(pod) | Delta::Updated { new: pod, .. } if needs_claims(pod) => itself(delta),
            _ => Vec::new(),
        });
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, |delta| match delta {
            Delta::Deleted(_) => controller_of(delta, PODS),
            _ => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let claim = |name: &str| self.claims.get(&key.namespace, name);
        Ok(reconcile(&pod, |name| {
            claim(name).map(|claim| claim.metadata.is_controlled_by(&pod.metadata.uid))
        }))
    }
}

fn needs_claims(pod: &Pod) -> bool {
    !pod.metadata.is_being_deleted()
        && !pod.is_terminal()
        && pod.spec.volumes.iter().any(|volume| volume.ephemeral.is_some())
}

/// `is_ours` says whether a claim of this name belongs to the pod; `None` when there is none.
fn reconcile(pod: &Pod, is_ours: impl Fn(&str) -> Option<bool>) -> Plan {
    let mut plan = Plan::default();
    if !needs_claims(pod) {
        return plan;
    }
    let regarding = reference(PODS, &pod.metadata);
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let ephemeral = pod.spec.volumes.iter().filter(|volume| volume.ephemeral.is_some());
    for (volume, claim) in ephemeral.filter_map(|volume| Some((volume, volume.claim_name(name)?))) {
        let failed = |why: String| {
            let message = format!("ephemeral volume {}: {why}", volume.name);
            Event::warning(regarding.clone(), FAILED_BINDING, message)
        };
        match is_ours(&claim) {
            Some(true) => {}
            Some(false) => plan.events.push(failed(format!(
                "PVC {namespace}/{claim} was not created for pod {namespace}/{name} (pod is not owner)"
            ))),
            None => plan.steps.push(Step {
                action: creation(pod, volume, &claim),
                done: None,
                failed: Some(failed(format!("create PVC {claim}: {ERROR}"))),
            }),
        }
    }
    plan
}

fn creation(pod: &Pod, volume: &Volume, claim: &str) -> Action {
    let template = volume.ephemeral.clone().unwrap_or_default().volume_claim_template;
    let object = json!({
        "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version(), "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "metadata": {
            "name": claim, "namespace": pod.metadata.namespace,
            "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            "ownerReferences": [controller_reference(PODS, &pod.metadata)],
        },
        "spec": template["spec"],
    });
    Action::create(PERSISTENT_VOLUME_CLAIMS, &pod.metadata.namespace, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "emptyDir": {}}]);
        let metadata = json!({"name": "p", "namespace": "d", "uid": "1"});
        apimachinery::from_value(json!({"metadata": metadata, "spec": {"volumes": volumes}})).expect("a pod")
    }

    #[test]
    fn a_claim_is_made_once_as_its_template_says_and_belongs_to_the_pod() {
        let plan = reconcile(&pod(), |_| None);
        let [Step { action: Action::Create { object, .. }, .. }] = plan.steps.as_slice() else {
            panic!("{plan:?}")
        };
        assert_eq!(object["metadata"]["name"], "p-v");
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "1");
        assert_eq!(object["spec"]["accessModes"][0], "ReadWriteOnce");
        assert!(reconcile(&pod(), |_| Some(true)).is_empty());
    }

    #[test]
    fn somebody_elses_claim_is_not_taken_and_an_ending_pod_gets_none() {
        let plan = reconcile(&pod(), |_| Some(false));
        assert!(plan.steps.is_empty());
        assert_eq!(
            plan.events[0].message,
            "ephemeral volume v: PVC d/p-v was not created for pod d/p (pod is not owner)"
        );
        let mut ending = pod();
        ending.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
        assert!(reconcile(&ending, |_| None).is_empty());
    }
}
