//! Pods that write more to the node's disk than they may (follows `localStorageEviction`). Pure.

use api::core::pod::resources::{Counted, pod_limits};
use api::view::core::Pod;
use apimachinery::json;
use apimachinery::quantity::Quantity;

use super::rank::Usage;

const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// Whether anything limits what the pod writes; only then is it worth measuring.
pub fn is_limited(pod: &Pod) -> bool {
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let by_container = |c: &api::view::core::Container| c.resources.limits.contains_key(EPHEMERAL_STORAGE);
    containers.into_iter().any(by_container) || sized_volumes(pod).next().is_some()
}

type Check = fn(&Pod, &Usage) -> Option<String>;

/// The limit that the pod exceeds, as upstream's metrics name it, and what that is, in upstream's words.
pub fn exceeded(pod: &Pod, usage: &Usage) -> Option<(&'static str, String)> {
    let limits: [(&str, Check); 3] = [
        ("emptydirfs.limit", volume),
        ("ephemeralpodfs.limit", whole_pod),
        ("ephemeralcontainerfs.limit", container),
    ];
    limits.into_iter().find_map(|(signal, exceeded)| Some((signal, exceeded(pod, usage)?)))
}

/// Volumes in memory cannot grow beyond their limit.
fn sized_volumes(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    pod.spec.volumes.iter().filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|source| source.medium != "Memory")?;
        let limit: Quantity = source.size_limit.as_ref()?.parse().ok()?;
        (limit.sign() > 0).then_some((volume.name.as_str(), limit))
    })
}

fn volume(pod: &Pod, usage: &Usage) -> Option<String> {
    let used = |name: &str| usage.volumes.iter().find(|(of, _)| of == name).map_or(0, |(_, bytes)| *bytes);
    let (name, limit) = sized_volumes(pod).find(|(name, limit)| used(name) > limit.value())?;
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
}

fn whole_pod(pod: &Pod, usage: &Usage) -> Option<String> {
    let limits = pod_limits(&json!({"spec": pod.spec}), Counted::Spec);
    let limit = limits.get(EPHEMERAL_STORAGE).filter(|limit| usage.disk_bytes > limit.value())?;
    Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn container(pod: &Pod, usage: &Usage) -> Option<String> {
    usage.containers.iter().find_map(|used| {
        let spec = pod.spec.containers.iter().find(|spec| spec.name == used.name)?;
        let limit: Quantity = spec.resources.limits.get(EPHEMERAL_STORAGE)?.parse().ok()?;
        (!limit.is_zero() && used.disk_bytes > limit.value()).then(|| {
            format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", used.name)
        })
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::eviction::rank::ContainerUsage;

    fn check(spec: Value, usage: Usage, expect: Option<(&str, &str)>) {
        let pod: Pod = apimachinery::from_value(json!({"spec": spec})).expect("a pod");
        let found = exceeded(&pod, &usage);
        assert_eq!(found.as_ref().map(|(signal, message)| (*signal, message.as_str())), expect);
        assert!(is_limited(&pod));
    }

    fn container_of(disk_bytes: i64) -> Usage {
        let container = ContainerUsage { name: "a".into(), memory_bytes: 0, disk_bytes };
        Usage { disk_bytes, containers: vec![container], ..Usage::default() }
    }

    #[test]
    fn a_volume_may_grow_to_its_limit_and_no_further() {
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}]});
        let holds = |bytes| Usage { volumes: vec![("v".into(), bytes)], ..Usage::default() };
        check(spec.clone(), holds(1024), None);
        check(
            spec,
            holds(1025),
            Some(("emptydirfs.limit", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ")),
        );
    }

    #[test]
    fn containers_are_limited_alone_and_together() {
        let a = json!({"name": "a", "resources": {"limits": {"ephemeral-storage": "100"}}});
        let b = json!({"name": "b", "resources": {"limits": {"ephemeral-storage": "50"}}});
        let spec = json!({"containers": [a, b]});
        check(spec.clone(), container_of(100), None);
        let alone = "Container a exceeded its local ephemeral storage limit \"100\". ";
        check(spec.clone(), container_of(101), Some(("ephemeralcontainerfs.limit", alone)));
        let together = "Pod ephemeral local storage usage exceeds the total limit of containers 150. ";
        check(spec, container_of(151), Some(("ephemeralpodfs.limit", together)));
    }

    #[test]
    fn what_is_not_limited_is_not_measured() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"containers": [{"name": "a"}],
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}]}}))
        .expect("a pod");
        assert!(!is_limited(&pod));
    }
}
