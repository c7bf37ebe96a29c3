//! How full the volumes of pods are. Folders have to be walked for that, so an answer is kept for a while.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::view::core::Pod;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Filesystem;
use crate::config::Config;
use crate::csi::{self, Drivers};
use crate::eviction::usage::tree;
use crate::volumes::{VOLUMES, pod_dir};

/// How long an answer is kept (upstream's `volumeStatsAggPeriod`).
const KEPT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// The claim that it was made for.
    pub claim: Option<String>,
    pub fs: Filesystem,
    /// Whether its driver finds something wrong with it; `None` where none tells.
    pub is_abnormal: Option<bool>,
}

/// By pod uid.
pub type ByPod = HashMap<String, Vec<Volume>>;

#[derive(Default)]
pub struct Volumes {
    last: Mutex<Option<(Instant, Arc<ByPod>)>>,
}

impl Volumes {
    pub async fn read(&self, config: &Config, drivers: &Drivers, pods: Vec<Arc<Pod>>) -> Arc<ByPod> {
        let mut last = self.last.lock().await;
        if let Some((at, known)) = &*last
            && at.elapsed() < KEPT
        {
            return known.clone();
        }
        let (root, measured) = (config.root_dir.clone(), pods.clone());
        let measure = move || measured.iter().map(|pod| (pod.metadata.uid.clone(), of(&root, pod))).collect();
        let mut found: ByPod = tokio::task::spawn_blocking(measure).await.unwrap_or_default();
        for pod in &pods {
            let told = csi::stats(drivers, &config.root_dir, &pod.metadata.uid).await;
            let volumes = told.into_iter().filter_map(|usage| of_driver(pod, usage));
            found.entry(pod.metadata.uid.clone()).or_default().extend(volumes);
        }
        let found = Arc::new(found);
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

/// A volume that its driver tells of.
fn of_driver(pod: &Pod, usage: csi::Usage) -> Option<Volume> {
    let volume = pod.spec.volumes.iter().find(|volume| volume.name == usage.name)?;
    let claim = volume.claim_name(&pod.metadata.name);
    Some(Volume { name: usage.name, claim, fs: usage.fs, is_abnormal: usage.is_abnormal })
}

/// The pod's volumes that are on this node's disks or mounted below the pod's folder.
fn of(root: &Path, pod: &Pod) -> Vec<Volume> {
    let folder = pod_dir(root, &pod.metadata.uid).join(VOLUMES);
    let plugins: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let find = |name: &str| plugins.iter().map(|plugin| plugin.join(name)).find(|path| path.exists());
    // Drivers tell of their own.
    let measured = pod.spec.volumes.iter().filter(|volume| volume.csi.is_none()).filter_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        let fs = measure(&find(&volume.name)?);
        Some(Volume { name: volume.name.clone(), claim, fs, is_abnormal: None })
    });
    measured.collect()
}

/// A volume that is a file system of its own knows what is in it; of others only a walk tells.
fn measure(path: &Path) -> Filesystem {
    let fs = Filesystem::of(path);
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if device(path) != path.parent().and_then(device) {
        return fs;
    }
    let (bytes, inodes) = tree(path);
    let unsigned = |count: i64| u64::try_from(count).unwrap_or_default();
    Filesystem { used_bytes: unsigned(bytes), inodes_used: unsigned(inodes), ..fs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_full_as_what_is_in_it() {
        let root = std::env::temp_dir().join(format!("volume-stats-{}", std::process::id()));
        let folder = root.join("pods/u/volumes/kubernetes.io~empty-dir/scratch");
        std::fs::create_dir_all(&folder).expect("makes");
        std::fs::write(folder.join("file"), vec![1; 8192]).expect("writes");
        let pod = apimachinery::json!({"metadata": {"uid": "u"}, "spec": {"volumes": [
            {"name": "scratch", "emptyDir": {}}, {"name": "gone", "emptyDir": {}}]}});
        let found = of(&root, &apimachinery::from_value(pod).expect("a pod"));
        std::fs::remove_dir_all(&root).expect("removes");
        assert_eq!(found.len(), 1);
        assert!(found[0].fs.used_bytes >= 8192 && found[0].fs.capacity_bytes > found[0].fs.used_bytes);
        assert_eq!(found[0].fs.inodes_used, 2);
    }
}
