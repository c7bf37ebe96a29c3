//! Takes what is left of a pod from the node, and then the pod from the API.

use std::path::Path;

use api::view::core::Pod;

use super::{Worker, log_directory};
use crate::csi;
use crate::observe::Observed;

impl Worker {
    /// Removes the pod's remains from the node, then from the API; false when the API must be told again.
    pub(super) async fn remove(&mut self, pod: &Pod, observed: &Observed) -> Result<bool, tonic::Status> {
        for sandbox in &observed.sandboxes {
            let request = runtime::cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            self.shared.runtime.runtime.clone().remove_pod_sandbox(request).await?;
        }
        let config = &self.shared.config;
        let (client, drivers, uid) = (&self.shared.client, &self.shared.csi_drivers, &pod.metadata.uid);
        if let Err(error) = csi::tear_down(client, drivers, &config.root_dir, &config.node_name, uid).await {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), error, "volumes remain mounted, will retry");
            return Ok(false);
        }
        if let Err(error) = self.shared.cgroups.remove(pod).await {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), %error, "cgroup of a removed pod remains");
        }
        self.shared.users.release(uid);
        let logs = log_directory(config, pod);
        if let Err(error) = remove_files(&self.shared.config.root_dir, &pod.metadata.uid, &logs) {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), %error, "files of a removed pod remain");
        }
        Ok(self.gone || self.delete_from_api(pod).await)
    }
}

fn remove_files(root: &Path, uid: &str, logs: &Path) -> std::io::Result<()> {
    crate::volumes::tear_down(root, uid)?;
    match std::fs::remove_dir_all(logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
