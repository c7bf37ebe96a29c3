//! Removes containers that have ended, of pods that are over, when their disk is needed: what is known of their end the
//! API knows (follows `DeleteAllUnusedContainers` of the kubelet's container garbage collector).

use runtime::cri;

use crate::observe::POD_UID_LABEL;
use crate::worker::Shared;

pub async fn delete_unused(shared: &Shared) {
    let mut client = shared.runtime.runtime.clone();
    let state = cri::ContainerStateValue { state: cri::ContainerState::ContainerExited.into() };
    let filter = cri::ContainerFilter { state: Some(state), ..Default::default() };
    let request = cri::ListContainersRequest { filter: Some(filter) };
    let exited = match client.list_containers(request).await {
        Ok(answer) => answer.into_inner().containers,
        Err(status) => {
            return tracing::warn!(
                error = status.message(),
                "containers that have ended could not be listed"
            );
        }
    };
    let unused = |container: &cri::Container| {
        container.labels.get(POD_UID_LABEL).is_some_and(|uid| shared.active.is_over(uid))
    };
    for container in exited.into_iter().filter(unused) {
        tracing::info!(container = container.id, "removing a container of a pod that is over");
        let request = cri::RemoveContainerRequest { container_id: container.id.clone() };
        if let Err(status) = client.remove_container(request).await {
            tracing::warn!(
                container = container.id,
                error = status.message(),
                "container could not be removed"
            );
        }
    }
}
