//! Folders that begin empty and last as long as their pod: on disk, in memory, or of huge pages.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use api::view::core::{EmptyDirVolumeSource, Pod};
use apimachinery::quantity::Quantity;

use super::mounts;
use crate::hugepages;
use crate::resources::PodResources;

/// Where the files of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Disk,
    /// At most so many bytes.
    Memory(i64),
    /// Of pages of so many bytes.
    HugePages(i64),
}

impl Medium {
    fn of(pod: &Pod, source: &EmptyDirVolumeSource, allocatable_bytes: i64) -> Result<Self, String> {
        Ok(match source.medium.as_str() {
            "Memory" => Medium::Memory(memory_size(pod, source, allocatable_bytes)),
            medium if medium.starts_with("HugePages") => Medium::HugePages(page_size(pod, medium)?),
            _ => Medium::Disk,
        })
    }
}

/// Makes the folder, unless it is there. What does not outlive a reboot is mounted anew in the folder that does.
pub fn set_up(
    dir: &Path,
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    allocatable_bytes: i64,
    group: Option<u32>,
) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let medium = Medium::of(pod, source, allocatable_bytes)?;
    if dir.exists() && (medium == Medium::Disk || mounts::is_mount_point(dir).map_err(io)?) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(io)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory(bytes) => mounts::memory(dir, Some(&format!("size={bytes}"))).map_err(io)?,
        Medium::HugePages(size) => mounts::huge_pages(dir, size).map_err(io)?,
    }
    if group.is_some() {
        chown(dir, None, group).map_err(io)?;
    }
    // What the kernel gives a file system in memory: upstream leaves it there.
    let sticky = if matches!(medium, Medium::Memory(_)) { 0o1000 } else { 0 };
    let set_group = if group.is_some() { 0o2000 } else { 0 };
    let mode = 0o777 | sticky | set_group;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(io)
}

/// How much a volume in memory may hold: the least of its own limit, what the pod may use, and what the node has for pods
/// (upstream: `calculateEmptyDirMemorySize`).
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable_bytes: i64) -> i64 {
    let own = source.size_limit.as_ref().and_then(|text| text.parse::<Quantity>().ok());
    let own = own.map(|quantity| quantity.value());
    let of_pod = Some(PodResources::of(pod).cgroup.memory_limit_in_bytes);
    [own, of_pod].into_iter().flatten().filter(|bytes| *bytes > 0).fold(allocatable_bytes, i64::min)
}

/// The size that `HugePages-2Mi` names, or the only one that the pod asks for. Its pods must ask for the pages that a
/// volume is made of (upstream: `getPageSizeMountOption`).
fn page_size(pod: &Pod, medium: &str) -> Result<i64, String> {
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let of_containers = containers.map(|container| &container.resources.requests);
    let of_pod = pod.spec.resources.iter().map(|resources| &resources.requests);
    let names = of_pod.chain(of_containers).flat_map(|list| list.keys());
    let mut sizes: Vec<i64> = names.filter_map(|name| hugepages::size_of(name)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if let Some(named) = medium.strip_prefix("HugePages-") {
        let size = named.parse::<Quantity>().map_err(|error| error.to_string())?.value();
        sizes.retain(|asked| *asked == size);
    }
    match sizes[..] {
        [size] => Ok(size),
        [] => Err(format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )),
        _ => Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes")),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn pod(containers: &[Value]) -> Pod {
        let containers: Vec<_> =
            containers.iter().map(|resources| json!({"name": "a", "resources": resources})).collect();
        apimachinery::from_value(json!({"spec": {"containers": containers}})).expect("a pod")
    }

    #[test]
    fn everybody_may_write_and_in_memory_only_owners_may_remove() {
        let check = |medium: &str, group: Option<u32>, expect: u32| {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = folder.path().join("v");
            let source = EmptyDirVolumeSource { medium: medium.into(), ..Default::default() };
            set_up(&dir, &pod(&[]), &source, 1 << 20, group).expect("made");
            let mode = fs::metadata(&dir).expect("there").permissions().mode() & 0o7777;
            mounts::detach_below(&dir).expect("detached");
            assert_eq!(mode, expect, "{medium:?} {group:?}");
        };
        check("", None, 0o777);
        check("", Some(7), 0o2777);
        check("Memory", None, 0o1777);
        check("Memory", Some(7), 0o3777);
    }

    #[test]
    fn a_volume_in_memory_holds_the_least_of_what_is_allowed() {
        let check = |limits: &[Value], size_limit: Option<&str>, expect: i64| {
            let limits: Vec<_> = limits.iter().map(|limits| json!({"limits": limits})).collect();
            let source =
                EmptyDirVolumeSource { size_limit: size_limit.map(str::to_owned), ..Default::default() };
            assert_eq!(memory_size(&pod(&limits), &source, 1000), expect);
        };
        check(&[json!({})], None, 1000);
        check(&[json!({"memory": "100"}), json!({"memory": "200"})], None, 300);
        check(&[json!({"memory": "100"}), json!({})], None, 1000);
        check(&[json!({"memory": "100"})], Some("50"), 50);
        check(&[json!({})], Some("1Gi"), 1000);
    }

    #[test]
    fn pages_are_of_the_size_that_is_named_or_the_only_one_asked_for() {
        let asks = |names: &[&str]| {
            let lists: Vec<_> = names.iter().map(|name| json!({"requests": {(*name): "4Mi"}})).collect();
            pod(&lists)
        };
        let (small, both) = (asks(&["hugepages-2Mi", "cpu"]), asks(&["hugepages-2Mi", "hugepages-1Gi"]));
        assert_eq!(page_size(&small, "HugePages"), Ok(2 << 20));
        assert_eq!(page_size(&both, "HugePages-1Gi"), Ok(1 << 30));
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes";
        assert_eq!(page_size(&both, "HugePages"), Err(several.to_owned()));
        let none = "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages";
        assert_eq!(page_size(&small, "HugePages-1Gi"), Err(none.to_owned()));
    }
}
