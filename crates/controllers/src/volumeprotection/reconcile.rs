//! Whether an object is in use, and so whether its finalizer stays.

use api::resource::Resource;
use api::view::Object;
use api::view::core::Pod;
use apimachinery::json;
use apimachinery::meta::ObjectMeta;
use serde::Deserialize;

use crate::plan::{Action, Plan};

/// As much of a PersistentVolume as matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub metadata: ObjectMeta,
    pub status: VolumeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    pub phase: String,
}

impl Object for Volume {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Protection {
    pub resource: Resource,
    pub finalizer: &'static str,
}

/// Every object has the finalizer, until it is being deleted and nobody uses it.
pub fn protect(protection: Protection, meta: &ObjectMeta, is_used: impl FnOnce() -> bool) -> Plan {
    let mut plan = Plan::default();
    let has = meta.finalizers.iter().any(|finalizer| finalizer == protection.finalizer);
    let mut finalizers = meta.finalizers.clone();
    if meta.is_being_deleted() {
        if !has || is_used() {
            return plan;
        }
        finalizers.retain(|finalizer| finalizer != protection.finalizer);
    } else if has {
        return plan;
    } else {
        finalizers.push(protection.finalizer.to_owned());
    }
    plan.act(Action::patch(protection.resource, meta, json!({"metadata": {"finalizers": finalizers}})));
    plan
}

/// The claims a pod names.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let sources = pod.spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    sources.map(|source| source.claim_name.clone()).collect()
}

/// Whether a pod on a node holds a claim: one that is being deleted does until it has ended.
pub fn uses(pod: &Pod, claim: &str) -> bool {
    !pod.is_terminal() && !pod.spec.node_name.is_empty() && claims_of(pod).iter().any(|name| name == claim)
}

#[cfg(test)]
mod tests {
    use api::resource::PERSISTENT_VOLUME_CLAIMS;

    use super::*;

    const PROTECTION: Protection =
        Protection { resource: PERSISTENT_VOLUME_CLAIMS, finalizer: "kubernetes.io/pvc-protection" };

    /// The finalizers that an object with these gets, if any are written.
    fn check(finalizers: &[&str], deleted: bool, used: bool, expect: Option<&[&str]>) {
        let meta = ObjectMeta {
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deletion_timestamp: deleted.then_some(jiff::Timestamp::UNIX_EPOCH),
            ..ObjectMeta::default()
        };
        let plan = protect(PROTECTION, &meta, || used);
        let written = plan.steps.first().map(|step| match &step.action {
            Action::Patch { patch, .. } => patch["metadata"]["finalizers"].clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(written, expect.map(|list| json!(list)), "{finalizers:?} {deleted} {used}");
    }

    #[test]
    fn the_finalizer_goes_when_nobody_uses_what_is_deleted() {
        let own = PROTECTION.finalizer;
        check(&[own, "x"], true, false, Some(&["x"]));
        check(&[own], true, true, None);
        check(&["x"], true, false, None);
        check(&["x"], false, false, Some(&["x", own]));
        check(&[own], false, true, None);
    }

    #[test]
    fn a_pod_holds_its_claims_while_it_may_run() {
        let pod = |node: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({"status": {"phase": phase}, "spec": {"nodeName": node,
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
            .expect("a pod")
        };
        assert!(uses(&pod("n", "Running"), "c"));
        assert!(!uses(&pod("n", "Running"), "d"));
        assert!(!uses(&pod("", "Pending"), "c"));
        assert!(!uses(&pod("n", "Succeeded"), "c"));
    }
}
