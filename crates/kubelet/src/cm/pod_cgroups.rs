//! The cgroup of each pod, which holds those of its containers, and the tiers by quality of service above it (follows
//! `pod_container_manager_linux.go` and `qos_container_manager_linux.go`).

use std::io;
use std::sync::Mutex;

use api::view::core::Pod;
use runtime::Cgroups;
use runtime::cri::LinuxContainerResources;

use crate::resources::{cpu_shares, cpu_weight, pod_cgroup, tier};

const BURSTABLE: &str = "Burstable";
const BEST_EFFORT: &str = "BestEffort";

pub struct PodCgroups {
    cgroups: Cgroups,
    /// The cgroup below which all pods live.
    root: String,
    /// What the burstable pods have of the CPU together, as it was last written.
    burstable_milli_cpu: Mutex<Option<i64>>,
}

impl PodCgroups {
    pub fn detect(root: &str) -> io::Result<Self> {
        let cgroups = Cgroups::detect()?;
        Ok(PodCgroups { cgroups, root: root.to_owned(), burstable_milli_cpu: Mutex::default() })
    }

    pub fn is_v2(&self) -> bool {
        self.cgroups.is_v2()
    }

    /// Makes the pod's cgroup if it is missing, and sets it to `resources`.
    pub fn set(&self, pod: &Pod, resources: &LinuxContainerResources) -> io::Result<()> {
        let path = pod_cgroup(&self.root, pod);
        self.cgroups.create(&path)?;
        apply(&self.cgroups, &path, resources)
    }

    /// Removes the cgroup of a pod of which nothing runs any more.
    pub async fn remove(&self, pod: &Pod) -> io::Result<()> {
        self.cgroups.remove(&pod_cgroup(&self.root, pod)).await
    }

    /// Gives burstable pods together what they request, and those that request nothing what is left.
    pub fn share(&self, burstable_milli_cpu: i64) -> io::Result<()> {
        let mut written = self.burstable_milli_cpu.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *written == Some(burstable_milli_cpu) {
            return Ok(());
        }
        for (qos_class, milli_cpu) in [(BURSTABLE, burstable_milli_cpu), (BEST_EFFORT, 0)] {
            let path = format!("{}{}", self.root, tier(qos_class));
            let shares = LinuxContainerResources { cpu_shares: cpu_shares(milli_cpu), ..Default::default() };
            self.cgroups.create(&path)?;
            apply(&self.cgroups, &path, &shares)?;
        }
        *written = Some(burstable_milli_cpu);
        Ok(())
    }
}

/// Sets a cgroup of the kubelet's own: it reckons weights otherwise than runtimes do for containers.
pub fn apply(cgroups: &Cgroups, path: &str, resources: &LinuxContainerResources) -> io::Result<()> {
    let mut resources = resources.clone();
    if cgroups.is_v2() && resources.cpu_shares > 0 {
        let shares = std::mem::take(&mut resources.cpu_shares);
        resources.unified.insert("cpu.weight".to_owned(), cpu_weight(shares).to_string());
    }
    cgroups.apply(path, &resources)
}
