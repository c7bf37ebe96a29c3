//! What the node, its pods and their containers use (follows the kubelet's `stats` providers). Nothing is read unless
//! somebody asks.

pub mod cgroup;
pub mod node;
pub mod rate;
pub mod summary;
pub mod volumes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::cri;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::Config;
use crate::observe::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};
use crate::worker::Runtime;
use node::NodeReading;
use rate::Rates;

/// Those who ask within this time share one reading.
const READING_KEPT: Duration = Duration::from_secs(1);

/// All figures of one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Timestamp,
    pub node: NodeReading,
    pub node_rate: Option<u64>,
    pub node_fs: Filesystem,
    pub image_fs: Filesystem,
    pub pods: Vec<PodReading>,
}

#[derive(Clone, Debug, Default)]
pub struct PodReading {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub started_at: Timestamp,
    pub usage: cri::LinuxPodSandboxStats,
    /// Billionths of a processor.
    pub cpu_rate: Option<u64>,
    pub containers: Vec<ContainerReading>,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerReading {
    pub id: String,
    pub name: String,
    pub image: String,
    pub started_at: Timestamp,
    pub usage: cri::ContainerStats,
    pub cpu_rate: Option<u64>,
}

/// A file system, and how much of it is used for what it is looked at for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub available_bytes: u64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub inodes_used: u64,
}

impl Filesystem {
    /// Of the file system that holds `path`; all zero where it cannot be read.
    pub fn of(path: &std::path::Path) -> Filesystem {
        let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return Filesystem::default() };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Filesystem {
            available_bytes: bytes(stat.blocks_available()),
            capacity_bytes: bytes(stat.blocks()),
            used_bytes: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
            inodes: stat.files(),
            inodes_free: stat.files_free(),
            inodes_used: stat.files().saturating_sub(stat.files_free()),
        }
    }
}

pub fn number(value: Option<&cri::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

#[derive(Default)]
pub struct Provider {
    state: Mutex<State>,
    pub volumes: volumes::Volumes,
}

#[derive(Default)]
struct State {
    last: Option<(Instant, Arc<Reading>)>,
    rates: Rates,
}

impl Provider {
    /// What is used now, or was a moment ago.
    pub async fn read(&self, config: &Config, runtime: &Runtime) -> Result<Arc<Reading>, tonic::Status> {
        let mut state = self.state.lock().await;
        if let Some((at, reading)) = &state.last
            && at.elapsed() < READING_KEPT
        {
            return Ok(reading.clone());
        }
        let mut reading = read(config, runtime).await?;
        state.rates.learn(&mut reading);
        let reading = Arc::new(reading);
        state.last = Some((Instant::now(), reading.clone()));
        Ok(reading)
    }
}

async fn read(config: &Config, runtime: &Runtime) -> Result<Reading, tonic::Status> {
    let mut client = runtime.runtime.clone();
    let asked = client.list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await;
    let usages = asked?.into_inner().stats;
    let sandboxes = client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.into_inner().items;
    let containers = client.list_containers(cri::ListContainersRequest::default()).await?;
    let sandboxes: HashMap<String, i64> = sandboxes.into_iter().map(|s| (s.id, s.created_at)).collect();
    let containers: HashMap<String, cri::Container> =
        containers.into_inner().containers.into_iter().map(|c| (c.id.clone(), c)).collect();
    let info = runtime.images.clone().image_fs_info(cri::ImageFsInfoRequest {}).await?.into_inner();
    Ok(Reading {
        at: Timestamp::now(),
        node: NodeReading::read(),
        node_rate: None,
        node_fs: Filesystem::of(&config.root_dir),
        image_fs: image_fs(info.image_filesystems.first()),
        pods: usages.into_iter().map(|usage| pod(usage, &sandboxes, &containers)).collect(),
    })
}

/// The file system is as large as it is; of what is used on it, only images count.
fn image_fs(usage: Option<&cri::FilesystemUsage>) -> Filesystem {
    let Some(usage) = usage else { return Filesystem::default() };
    let place = usage.fs_id.as_ref().map(|id| id.mountpoint.as_str()).unwrap_or_default();
    Filesystem {
        used_bytes: number(usage.used_bytes.as_ref()).unwrap_or_default(),
        inodes_used: number(usage.inodes_used.as_ref()).unwrap_or_default(),
        ..Filesystem::of(place.as_ref())
    }
}

fn pod(
    stats: cri::PodSandboxStats,
    sandboxes: &HashMap<String, i64>,
    containers: &HashMap<String, cri::Container>,
) -> PodReading {
    let attributes = stats.attributes.unwrap_or_default();
    let mut usage = stats.linux.unwrap_or_default();
    let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
    let started = std::mem::take(&mut usage.containers);
    PodReading {
        name: label(POD_NAME_LABEL),
        namespace: label(POD_NAMESPACE_LABEL),
        uid: label(POD_UID_LABEL),
        started_at: time(sandboxes.get(&attributes.id).copied().unwrap_or_default()),
        usage,
        cpu_rate: None,
        containers: started.into_iter().map(|usage| container(usage, containers)).collect(),
    }
}

fn container(usage: cri::ContainerStats, known: &HashMap<String, cri::Container>) -> ContainerReading {
    let attributes = usage.attributes.clone().unwrap_or_default();
    let known = known.get(&attributes.id);
    let image = known.and_then(|known| known.image.as_ref());
    ContainerReading {
        name: attributes.labels.get(CONTAINER_NAME_LABEL).cloned().unwrap_or_default(),
        id: attributes.id,
        image: image.map(|image| image.user_specified_image.clone()).unwrap_or_default(),
        started_at: time(known.map_or(0, |known| known.created_at)),
        usage,
        cpu_rate: None,
    }
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}
