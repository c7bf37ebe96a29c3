//! The conditions that statuses list.

use apimachinery::Value;

use crate::defaults::{Fill, each, fill, object};
use crate::resource::{self, Resource};

/// Kinds whose conditions have more times than when they last changed.
const MORE_TIMES: [(Resource, &str); 6] = [
    (resource::PODS, "lastProbeTime"),
    (resource::JOBS, "lastProbeTime"),
    (resource::PERSISTENT_VOLUME_CLAIMS, "lastProbeTime"),
    (resource::DEPLOYMENTS, "lastUpdateTime"),
    (resource::CERTIFICATE_SIGNING_REQUESTS, "lastUpdateTime"),
    (resource::NODES, "lastHeartbeatTime"),
];

/// Writes the times of conditions that nobody has given: Go's types have no other way to leave them out.
pub fn write_times(kind: &Resource, obj: &mut Value) {
    let Some(status) = object(obj, "status") else { return };
    for condition in each(status, "conditions") {
        fill(condition, &[("lastTransitionTime", Fill::Null)]);
        for (_, time) in MORE_TIMES.iter().filter(|(of, _)| of == kind) {
            fill(condition, &[(*time, Fill::Null)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn times_that_are_not_given_are_written_as_none() {
        let check = |kind: Resource, condition: Value, expect: Value| {
            let mut obj = json!({"status": {"conditions": [condition]}});
            write_times(&kind, &mut obj);
            assert_eq!(obj["status"]["conditions"][0], expect);
        };
        let ready = json!({"type": "Ready"});
        check(resource::NAMESPACES, ready.clone(), json!({"type": "Ready", "lastTransitionTime": null}));
        let both = json!({"type": "Ready", "lastProbeTime": null, "lastTransitionTime": null});
        check(resource::PODS, ready, both.clone());
        check(resource::PODS, both.clone(), both);
    }
}
