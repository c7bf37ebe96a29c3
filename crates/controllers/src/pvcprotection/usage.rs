//! Which claims a pod uses.

use api::view::core::{Pod, Volume};
use apimachinery::Value;
use apimachinery::meta::str_at;

use crate::controller::Key;

/// The claims that the pod's volumes name, or that are made for them.
pub fn claims(pod: &Pod) -> Vec<Key> {
    let namespace = &pod.metadata.namespace;
    let of_volumes = pod.spec.volumes.iter();
    let of_volumes = of_volumes.filter_map(|volume| volume.claim_name(&pod.metadata.name));
    of_volumes.map(|name| Key::new(namespace.clone(), name)).collect()
}

/// Whether the claim must stay for the pod's sake. A pod without a node does not count: no kubelet starts a pod whose
/// claim is being deleted.
pub fn uses(pod: &Pod, claim: &Value) -> bool {
    let name = str_at(claim, &["metadata", "name"]);
    let names_it = |volume: &Volume| {
        let source = volume.persistent_volume_claim.as_ref();
        source.is_some_and(|source| source.claim_name == name)
    };
    let has_it_made = |volume: &Volume| {
        volume.ephemeral.is_some()
            && volume.claim_name(&pod.metadata.name).is_some_and(|made| made == name)
            && is_controlled_by(claim, pod)
    };
    !pod.spec.node_name.is_empty()
        && pod.spec.volumes.iter().any(|v| names_it(v) || !is_shut_down(pod) && has_it_made(v))
}

fn is_controlled_by(claim: &Value, pod: &Pod) -> bool {
    let mut owners = claim["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| owner["controller"] == true && owner["uid"] == pod.metadata.uid.as_str())
}

/// Only finalizers keep the pod; they may wait for the claim, so the claim must not wait for them.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.is_being_deleted() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn pod(node: &str, volume: Value, grace: Option<i64>) -> Pod {
        let mut value = json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"},
            "spec": {"nodeName": node, "volumes": [volume]}});
        if let Some(seconds) = grace {
            value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            value["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
        }
        apimachinery::from_value(value).expect("a pod")
    }

    fn claim(name: &str, owner: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a",
            "ownerReferences": [{"controller": true, "kind": "Pod", "name": "p", "uid": owner}]}})
    }

    #[test]
    fn a_claim_is_used_by_every_scheduled_pod_that_names_it_until_the_pod_is_gone() {
        let volume = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        assert!(uses(&pod("n", volume(), None), &claim("c", "")));
        assert!(uses(&pod("n", volume(), Some(0)), &claim("c", "")));
        assert!(!uses(&pod("", volume(), None), &claim("c", "")));
        assert!(!uses(&pod("n", volume(), None), &claim("other", "")));
        assert_eq!(claims(&pod("", volume(), None)), [Key::new("a", "c")]);
    }

    #[test]
    fn a_claim_made_for_a_pod_is_used_until_the_pod_is_shut_down() {
        let volume = || json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}});
        assert!(uses(&pod("n", volume(), None), &claim("p-v", "1")));
        assert!(uses(&pod("n", volume(), Some(30)), &claim("p-v", "1")));
        assert!(!uses(&pod("n", volume(), Some(0)), &claim("p-v", "1")));
        assert!(!uses(&pod("n", volume(), None), &claim("p-v", "2")), "it belongs to another pod");
        assert_eq!(claims(&pod("n", volume(), None)), [Key::new("a", "p-v")]);
    }

    #[test]
    fn other_volumes_use_no_claim() {
        let other = pod("n", json!({"name": "v", "emptyDir": {}}), None);
        assert!(claims(&other).is_empty());
        assert!(!uses(&other, &claim("p-v", "1")));
    }
}
