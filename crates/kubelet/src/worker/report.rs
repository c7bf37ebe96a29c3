//! Tells the API what became of the pod.

use std::time::Instant;

use api::resource::PODS;
use api::view::core::{Pod, PodStatus};
use apimachinery::{Value, json};
use client::{DeleteOptions, PatchType};
use jiff::Timestamp;

use super::Worker;
use crate::observe::Observed;
use crate::pod::resize::RESIZE_CONDITIONS;
use crate::pod::status::{NodeFacts, pod_status};
use crate::staticpods;

/// A status that was written.
pub(super) struct Reported {
    pub status: PodStatus,
    /// Of the pod that came of it.
    version: u64,
}

impl Reported {
    fn new(status: PodStatus, written: &Value) -> Self {
        Reported {
            status,
            version: version(written["metadata"]["resourceVersion"].as_str().unwrap_or_default()),
        }
    }

    /// Whether somebody else has changed since what only this node knows, as the node's controller does when it has
    /// not heard of the node for long (upstream's `needsReconcile`).
    fn is_overwritten(&self, known: &Pod) -> bool {
        let in_order = |mut status: PodStatus| {
            status.conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
            status
        };
        version(&known.metadata.resource_version) > self.version
            && in_order(laid_over(&self.status, known.status.clone())) != in_order(known.status.clone())
    }
}

/// Versions of one kind are in order (KEP 5504).
fn version(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

impl Worker {
    /// Writes the status if it differs from what was written last, or is there no more; false when it must be tried again.
    pub(super) async fn report(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        ended: bool,
        now: Timestamp,
    ) -> bool {
        let host_ips = self.shared.config.host_ips();
        let node = NodeFacts { host_ips: &host_ips, runtime_name: &self.shared.runtime_name };
        let status = pod_status(pod, observed, &self.memory, &node, ended, now);
        let known = self.mirror.as_ref().unwrap_or(&self.pod);
        let is_overwritten = self.reported.as_ref().is_some_and(|reported| reported.is_overwritten(known));
        let reported = self.reported.as_ref().map(|reported| &reported.status);
        if reported == Some(&status) && !is_overwritten {
            return true;
        }
        let since = *self.unreported.get_or_insert_with(Instant::now);
        let before = reported.filter(|_| !is_overwritten).unwrap_or(&known.status);
        let meta = match &self.mirror {
            Some(mirror) => &mirror.metadata,
            // There is nobody to tell yet.
            None if staticpods::is_static(pod) => return true,
            None => &pod.metadata,
        };
        let patch = json!({"metadata": {"uid": meta.uid}, "status": status_patch(&status, before)});
        let written = self
            .shared
            .client
            .patch(PODS, &meta.namespace, &meta.name, Some("status"), PatchType::Strategic, &patch)
            .await;
        match written {
            Ok(written) => {
                self.shared.metrics.workers.status_synced(since);
                self.unreported = None;
                self.shared.metrics.pod_reported(pod, &status, Timestamp::now());
                self.shared.started.terminated(before, &status);
                self.reported = Some(Reported::new(status, &written));
                return true;
            }
            // A static pod outlives its mirrors.
            Err(error) if error.is_not_found() && self.mirror.is_some() => return true,
            Err(error) if error.is_not_found() => self.gone = true,
            Err(error) => {
                tracing::warn!(pod = %meta.namespaced_name(), %error, "status could not be written, will retry")
            }
        }
        false
    }

    /// Confirms the end: the object goes for good. A pod of the same name but another uid is left alone.
    /// False when it must be tried again.
    pub(super) async fn delete_from_api(&self, pod: &Pod) -> bool {
        let meta = &pod.metadata;
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(meta.uid.clone()),
            ..Default::default()
        };
        match self.shared.client.delete(PODS, &meta.namespace, &meta.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                tracing::warn!(pod = %meta.namespaced_name(), %error, "pod could not be removed from the API, will retry");
                false
            }
            _ => true,
        }
    }
}

/// The status as a strategic merge patch: fields that were there and are empty now are set to null.
fn status_patch(status: &PodStatus, before: &PodStatus) -> Value {
    let encode = |status: &PodStatus| apimachinery::to_value(status).expect("a status always encodes");
    let mut patch = encode(status);
    // The API server computes it at creation.
    patch.as_object_mut().expect("a struct is an object").remove("qosClass");
    // Merged by address otherwise: the pod would keep those of a sandbox that is gone.
    if let Some(addresses) = patch.get_mut("podIPs").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    let told = |kind: &str| status.conditions.iter().any(|c| c.kind == kind);
    let over = before.conditions.iter().map(|c| c.kind.as_str());
    let over = over.filter(|kind| RESIZE_CONDITIONS.contains(kind) && !told(kind));
    let over: Vec<Value> = over.map(|kind| json!({"$patch": "delete", "type": kind})).collect();
    let before = encode(before);
    if let Some(conditions) = patch.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions.iter_mut() {
            let same = |known: &&Value| known["type"] == condition["type"];
            if let Some(known) = before["conditions"].as_array().and_then(|all| all.iter().find(same)) {
                clear_lost_fields(condition, known, &[]);
            }
        }
        conditions.extend(over);
    }
    clear_lost_fields(&mut patch, &before, &["qosClass", "conditions", "phase", "nominatedNodeName"]);
    patch
}

/// What was written last, with what others have written since.
pub(super) fn laid_over(reported: &PodStatus, known: PodStatus) -> PodStatus {
    let own =
        |kind: &str| RESIZE_CONDITIONS.contains(&kind) || reported.conditions.iter().any(|c| c.kind == kind);
    let foreign = known.conditions.into_iter().filter(|c| !own(&c.kind));
    PodStatus {
        conditions: foreign.chain(reported.conditions.iter().cloned()).collect(),
        qos_class: known.qos_class,
        nominated_node_name: known.nominated_node_name,
        resource_claim_statuses: known.resource_claim_statuses,
        extended_resource_claim_status: known.extended_resource_claim_status,
        ..reported.clone()
    }
}

/// Sets to null what `before` has and `patch` has not, so that it is not merged into what is new.
fn clear_lost_fields(patch: &mut Value, before: &Value, kept: &[&str]) {
    let (Value::Object(patch), Value::Object(before)) = (patch, before) else { return };
    for key in before.keys().filter(|key| !kept.contains(&key.as_str())) {
        patch.entry(key.clone()).or_insert(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use api::view::core::PodIp;
    use apimachinery::meta::Condition;

    use super::*;

    #[test]
    fn what_others_write_into_the_status_stays() {
        let status = |value: Value| apimachinery::from_value::<PodStatus>(value).expect("a status");
        let reported =
            status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        let claims = json!({"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "p-a-x"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "p-x", "requestMappings": []}});
        let mut known = claims.clone();
        known["conditions"] =
            json!([{"type": "Ready", "status": "False"}, {"type": "Mine", "status": "True"}]);
        let found = laid_over(&reported, status(known));
        let conditions: Vec<_> = found.conditions.iter().map(|c| (&*c.kind, &*c.status)).collect();
        assert_eq!(conditions, [("Mine", "True"), ("Ready", "True")]);
        let expect = status(claims);
        assert_eq!(found.resource_claim_statuses, expect.resource_claim_statuses);
        assert_eq!(found.extended_resource_claim_status, expect.extended_resource_claim_status);
        assert_eq!(found.phase, "Running");
    }

    #[test]
    fn what_others_make_of_a_node_not_heard_of_is_noticed() {
        let status = |ready: &str, more: &str| -> PodStatus {
            let conditions = json!([{"type": more, "status": "True"}, {"type": "Ready", "status": ready}]);
            apimachinery::from_value(json!({"phase": "Running", "conditions": conditions})).expect("a status")
        };
        let written = json!({"metadata": {"resourceVersion": "99"}});
        let reported = Reported::new(status("True", "Initialized"), &written);
        let check = |version: &str, conditions: &[(&str, &str)], expect: bool| {
            let conditions: Vec<Value> =
                conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
            let pod = json!({"metadata": {"resourceVersion": version},
                "status": {"phase": "Running", "qosClass": "BestEffort", "conditions": conditions}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            assert_eq!(reported.is_overwritten(&pod), expect, "{version} {conditions:?}");
        };
        check("99", &[("Ready", "True"), ("Initialized", "True")], false);
        check("100", &[("Ready", "True"), ("Initialized", "True"), ("Mine", "True")], false);
        check("100", &[("Initialized", "True"), ("Ready", "False")], true);
        check("100", &[("Initialized", "True")], true);
        check("98", &[("Initialized", "True"), ("Ready", "False")], false);
    }

    #[test]
    fn a_new_address_replaces_the_old_one_and_what_is_gone_is_nulled() {
        let status = |ip: &str, reason: &str| PodStatus {
            pod_ip: ip.into(),
            pod_ips: vec![PodIp { ip: ip.into() }],
            reason: reason.into(),
            ..Default::default()
        };
        let patch = status_patch(&status("10.0.0.2", ""), &status("10.0.0.1", "Evicted"));
        assert_eq!(patch["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}]));
        assert_eq!((&patch["podIP"], &patch["reason"]), (&json!("10.0.0.2"), &Value::Null));
        assert!(patch.get("qosClass").is_none());
    }

    #[test]
    fn a_condition_that_holds_again_loses_the_reason_why_it_did_not() {
        let status = |status: &str, reason: &str| PodStatus {
            conditions: vec![Condition {
                kind: "Ready".into(),
                status: status.into(),
                reason: reason.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let patch = status_patch(&status("True", ""), &status("False", "ContainersNotReady"));
        assert_eq!(patch["conditions"], json!([{"type": "Ready", "status": "True", "reason": null}]));
    }

    #[test]
    fn a_resize_condition_that_is_over_is_deleted() {
        let status = |kinds: &[&str]| PodStatus {
            conditions: kinds
                .iter()
                .map(|kind| Condition { kind: (*kind).into(), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let before = status(&["Ready", "PodResizeInProgress", "ForeignKind"]);
        let patch = status_patch(&status(&["Ready"]), &before);
        assert_eq!(patch["conditions"][1], json!({"$patch": "delete", "type": "PodResizeInProgress"}));
        assert_eq!(patch["conditions"].as_array().map(Vec::len), Some(2));
    }
}
