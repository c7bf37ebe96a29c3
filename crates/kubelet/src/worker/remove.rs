//! Takes what is left of a pod from the node, and then the pod from the API.

use std::path::Path;

use api::view::core::Pod;

use super::{Shared, Worker, log_directory};
use crate::observe::Observed;
use crate::{csi, volumes};

impl Worker {
    /// Removes the pod's remains from the node, then from the API; false when the API must be told again.
    pub(super) async fn remove(&mut self, pod: &Pod, observed: &Observed) -> Result<bool, tonic::Status> {
        for sandbox in &observed.sandboxes {
            let request = runtime::cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            self.shared.runtime.runtime.clone().remove_pod_sandbox(request).await?;
        }
        if !self.free_volumes(pod).await {
            return Ok(false);
        }
        if let Err(error) = self.shared.cgroups.remove(pod).await {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), %error, "cgroup of a removed pod remains");
        }
        self.shared.users.release(&pod.metadata.uid);
        let logs = log_directory(&self.shared.config, pod);
        if let Err(error) = remove_files(&self.shared.config.root_dir, &pod.metadata.uid, &logs) {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), %error, "files of a removed pod remain");
        }
        Ok(self.gone || self.delete_from_api(pod).await)
    }

    /// Takes the volumes of a pod away of which nothing runs any more: memory that they hold is the node's again, and
    /// what is attached can go elsewhere. False when that must be tried again.
    pub(super) async fn free_volumes(&mut self, pod: &Pod) -> bool {
        if !self.volumes_freed {
            let Shared { config, client, csi_drivers, .. } = &*self.shared;
            let (root, uid) = (&config.root_dir, &pod.metadata.uid);
            let unmounting = self.shared.metrics.volumes.unmounting(uid);
            let freed = match csi::tear_down(client, csi_drivers, root, &config.node_name, uid).await {
                Ok(()) => volumes::free(root, uid).map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            if let Err(why) = &freed {
                tracing::warn!(pod = %pod.metadata.namespaced_name(), why, "volumes remain, will retry");
            }
            unmounting.ended(freed.is_ok());
            self.volumes_freed = freed.is_ok();
        }
        self.volumes_freed
    }
}

fn remove_files(root: &Path, uid: &str, logs: &Path) -> std::io::Result<()> {
    volumes::tear_down(root, uid)?;
    match std::fs::remove_dir_all(logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
