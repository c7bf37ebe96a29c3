//! The cgroup of each pod, which holds those of its containers, and the tiers by quality of service above it (follows
//! `pod_container_manager_linux.go` and `qos_container_manager_linux.go`).

use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use api::view::core::Pod;
use runtime::Cgroups;
use runtime::cri::{HugepageLimit, LinuxContainerResources};

use crate::hugepages::{HugePages, page_size_name};
use crate::metrics::Metrics;
use crate::resources::{cpu_shares, cpu_weight, pod_cgroup, tier};

const BURSTABLE: &str = "Burstable";
const BEST_EFFORT: &str = "BestEffort";
/// As many bytes of huge pages as there are (upstream: `setHugePagesUnbounded`).
const UNBOUNDED: u64 = 1 << 62;

/// The sizes of huge pages that the kernel has; they stay the same while it runs.
static PAGE_SIZES: LazyLock<Vec<String>> =
    LazyLock::new(|| HugePages::read().into_iter().map(|pages| page_size_name(pages.size)).collect());

pub struct PodCgroups {
    cgroups: Cgroups,
    /// The cgroup below which all pods live.
    root: String,
    metrics: Arc<Metrics>,
    /// What the burstable pods have of the CPU together, as it was last written.
    burstable_milli_cpu: Mutex<Option<i64>>,
}

impl PodCgroups {
    pub fn detect(root: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        let cgroups = Cgroups::detect()?;
        Ok(PodCgroups { cgroups, root: root.to_owned(), metrics, burstable_milli_cpu: Mutex::default() })
    }

    pub fn is_v2(&self) -> bool {
        self.cgroups.is_v2()
    }

    /// Makes the pod's cgroup if it is missing, and sets it to `resources`.
    pub fn set(&self, pod: &Pod, resources: &LinuxContainerResources) -> io::Result<()> {
        let path = pod_cgroup(&self.root, pod);
        let began = Instant::now();
        let operation = if self.cgroups.exists(&path) { "update" } else { "create" };
        self.cgroups.create(&path)?;
        apply(&self.cgroups, &path, resources)?;
        self.metrics.cgroup_changed(operation, began);
        Ok(())
    }

    /// Removes the cgroup of a pod of which nothing runs any more.
    pub async fn remove(&self, pod: &Pod) -> io::Result<()> {
        let began = Instant::now();
        self.cgroups.remove(&pod_cgroup(&self.root, pod)).await?;
        self.metrics.cgroup_changed("destroy", began);
        Ok(())
    }

    /// Gives burstable pods together what they request, and those that request nothing what is left.
    pub fn share(&self, burstable_milli_cpu: i64) -> io::Result<()> {
        let mut written = self.burstable_milli_cpu.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *written == Some(burstable_milli_cpu) {
            return Ok(());
        }
        for (qos_class, milli_cpu) in [(BURSTABLE, burstable_milli_cpu), (BEST_EFFORT, 0)] {
            let path = format!("{}{}", self.root, tier(qos_class));
            let shares = LinuxContainerResources {
                cpu_shares: cpu_shares(milli_cpu),
                hugepage_limits: PAGE_SIZES
                    .iter()
                    .map(|size| HugepageLimit { page_size: size.clone(), limit: UNBOUNDED })
                    .collect(),
                ..Default::default()
            };
            self.cgroups.create(&path)?;
            apply(&self.cgroups, &path, &shares)?;
        }
        *written = Some(burstable_milli_cpu);
        Ok(())
    }
}

/// Sets a cgroup of the kubelet's own: it reckons weights otherwise than runtimes do for containers, and lets nobody
/// have huge pages of a size that is not spoken of.
pub fn apply(cgroups: &Cgroups, path: &str, resources: &LinuxContainerResources) -> io::Result<()> {
    let mut resources = resources.clone();
    if cgroups.is_v2() && resources.cpu_shares > 0 {
        let shares = std::mem::take(&mut resources.cpu_shares);
        resources.unified.insert("cpu.weight".to_owned(), cpu_weight(shares).to_string());
    }
    withhold_others(&mut resources.hugepage_limits, &PAGE_SIZES);
    cgroups.apply(path, &resources)
}

/// Follows `maybeSetHugetlb`.
fn withhold_others(limits: &mut Vec<HugepageLimit>, sizes: &[String]) {
    for page_size in sizes {
        if limits.iter().all(|limit| limit.page_size != *page_size) {
            limits.push(HugepageLimit { page_size: page_size.clone(), limit: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_a_pod_does_not_ask_for_are_not_to_be_had() {
        let limit = |size: &str, limit| HugepageLimit { page_size: size.to_owned(), limit };
        let mut limits = vec![limit("2MB", 4 << 20)];
        withhold_others(&mut limits, &["2MB", "1GB"].map(str::to_owned));
        assert_eq!(limits, [limit("2MB", 4 << 20), limit("1GB", 0)]);
    }
}
