//! What a node can do, for who chooses nodes by it: the features of its runtime and of its kubelet (follows
//! `nodestatus.RuntimeHandlers`, `nodestatus.NodeFeatures` and `nodedeclaredfeatures`).

use apimachinery::{Value, json};
use runtime::cri;

/// Features that a scheduler and an API server may only count on where a node declares them, in order.
const DECLARED: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// Puts them into a node's status. A runtime that does not answer has said nothing new.
pub fn add(status: &mut Value, runtime: &cri::StatusResponse) {
    status["declaredFeatures"] = json!(DECLARED);
    if runtime.status.is_none() {
        return;
    }
    status["runtimeHandlers"] = runtime.runtime_handlers.iter().map(handler).collect();
    if let Some(features) = &runtime.features {
        status["features"] = json!({"supplementalGroupsPolicy": features.supplemental_groups_policy});
    }
}

fn handler(handler: &cri::RuntimeHandler) -> Value {
    let features = handler.features.unwrap_or_default();
    json!({"name": handler.name, "features": {
        "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
        "userNamespaces": features.user_namespaces,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_told_with_what_they_can_do() {
        let features = cri::RuntimeHandlerFeatures { user_namespaces: true, ..Default::default() };
        let runtime = cri::StatusResponse {
            status: Some(cri::RuntimeStatus::default()),
            runtime_handlers: vec![
                cri::RuntimeHandler { name: String::new(), features: Some(features) },
                cri::RuntimeHandler { name: "old".to_owned(), features: None },
            ],
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true }),
            ..Default::default()
        };
        let mut status = json!({});
        add(&mut status, &runtime);
        assert_eq!(
            status["runtimeHandlers"],
            json!([
                {"name": "", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": true}},
                {"name": "old", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": false}},
            ])
        );
        assert_eq!(status["features"], json!({"supplementalGroupsPolicy": true}));
    }

    #[test]
    fn a_runtime_that_does_not_answer_changes_nothing() {
        let mut status = json!({});
        add(&mut status, &cri::StatusResponse::default());
        assert_eq!(status, json!({"declaredFeatures": DECLARED}));
    }
}
