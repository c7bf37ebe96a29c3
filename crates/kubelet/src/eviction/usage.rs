//! What each pod uses. This walks folders and asks the runtime, and is done only when something depends on it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use api::view::core::Pod;
use runtime::cri;

use super::rank::{ContainerUsage, Usage};
use crate::config::Config;
use crate::observe::POD_UID_LABEL;
use crate::worker::{Runtime, log_directory};

/// Bytes of a block as `st_blocks` counts them.
const BLOCK_BYTES: i64 = 512;

/// Of these pods, those that the runtime knows.
pub async fn measure(
    runtime: &Runtime,
    config: &Config,
    pods: Vec<Arc<Pod>>,
) -> Result<HashMap<String, Usage>, tonic::Status> {
    let request = cri::ListPodSandboxStatsRequest::default();
    let stats = runtime.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats;
    let mut by_uid: HashMap<String, cri::PodSandboxStats> = stats
        .into_iter()
        .filter_map(|stats| Some((stats.attributes.as_ref()?.labels.get(POD_UID_LABEL)?.clone(), stats)))
        .collect();
    let config = config.clone();
    let walked = tokio::task::spawn_blocking(move || {
        let of = |pod: Arc<Pod>| {
            let stats = by_uid.remove(&pod.metadata.uid)?;
            Some((pod.metadata.uid.clone(), usage(&config, &pod, &stats)))
        };
        pods.into_iter().filter_map(of).collect()
    });
    walked.await.map_err(|panicked| tonic::Status::internal(panicked.to_string()))
}

fn usage(config: &Config, pod: &Pod, stats: &cri::PodSandboxStats) -> Usage {
    let value = |value: &Option<cri::UInt64Value>| {
        value.as_ref().map_or(0, |value| i64::try_from(value.value).unwrap_or(i64::MAX))
    };
    let linux = stats.linux.clone().unwrap_or_default();
    let memory = |memory: &Option<cri::MemoryUsage>| {
        memory.as_ref().map_or(0, |memory| value(&memory.working_set_bytes))
    };
    let mut found = Usage {
        memory_bytes: memory(&linux.memory),
        processes: linux.process.as_ref().map_or(0, |process| value(&process.process_count)),
        ..Usage::default()
    };
    for container in &linux.containers {
        let name = container.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map(|m| m.name.clone());
        let name = name.unwrap_or_default();
        let (log_bytes, log_inodes) = tree(&log_directory(config, pod).join(&name));
        let layer = container.writable_layer.as_ref();
        let disk_bytes = layer.map_or(0, |layer| value(&layer.used_bytes)).saturating_add(log_bytes);
        found.disk_bytes += disk_bytes;
        found.inodes += layer.map_or(0, |layer| value(&layer.inodes_used)).saturating_add(log_inodes);
        found.containers.push(ContainerUsage { name, memory_bytes: memory(&container.memory), disk_bytes });
    }
    for (name, bytes, inodes) in volumes(config, pod) {
        found.disk_bytes += bytes;
        found.inodes += inodes;
        found.volumes.push((name, bytes));
    }
    found
}

/// The volumes that take room of the node's disk: whatever else a pod mounts is another's, or memory.
fn volumes(config: &Config, pod: &Pod) -> impl Iterator<Item = (String, i64, i64)> {
    pod.spec.volumes.iter().filter_map(|volume| {
        let on_disk = volume.empty_dir.as_ref().is_some_and(|source| source.medium.is_empty());
        let plugin = match (on_disk, &volume.config_map, &volume.downward_api) {
            (true, ..) => "empty-dir",
            (_, Some(_), _) => "configmap",
            (.., Some(_)) => "downward-api",
            _ => return None,
        };
        let (bytes, inodes) = tree(&crate::volumes::volume_dir(&config.root_dir, pod, plugin, &volume.name));
        Some((volume.name.clone(), bytes, inodes))
    })
}

/// Bytes and inodes of a tree within its file system; files with several names count once. What disappears meanwhile
/// is not counted. Pods choose how deep their trees are, so this keeps its own stack.
pub fn tree(root: &Path) -> (i64, i64) {
    let Ok(device) = fs::symlink_metadata(root).map(|metadata| metadata.dev()) else { return (0, 0) };
    let (mut bytes, mut inodes) = (0, 0);
    let mut linked = std::collections::HashSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device
            || metadata.nlink() > 1 && !metadata.is_dir() && !linked.insert(metadata.ino())
        {
            continue;
        }
        bytes += i64::try_from(metadata.blocks()).unwrap_or(i64::MAX).saturating_mul(BLOCK_BYTES);
        inodes += 1;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_what_is_on_disk_once() {
        let root = std::env::temp_dir().join(format!("usage-tree-{}", std::process::id()));
        fs::create_dir_all(root.join("a")).expect("makes");
        fs::write(root.join("a/file"), vec![1; 8192]).expect("writes");
        let (before, inodes) = tree(&root);
        assert!(before >= 8192);
        assert_eq!(inodes, 3);
        fs::hard_link(root.join("a/file"), root.join("link")).expect("links");
        let (after, inodes) = tree(&root);
        assert!(after < before + 8192);
        assert_eq!(inodes, 3);
        fs::remove_dir_all(&root).expect("removes");
        assert_eq!(tree(&root), (0, 0));
    }
}
