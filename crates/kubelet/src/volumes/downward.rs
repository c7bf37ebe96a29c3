//! The downward API: facts about the pod itself (follows `fieldpath` and `resource.ExtractContainerResourceValue`).

use std::fmt::Write as _;

use api::view::core::{Container, Pod, ResourceFieldSelector};
use apimachinery::meta::StringMap;
use apimachinery::quantity::Quantity;

use crate::resources::effective_limits;

/// What a container without limits may use at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocatable {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

/// The text of a `fieldRef`.
pub fn field(pod: &Pod, path: &str, pod_ips: &[String], host_ips: &[String]) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        return match map {
            "metadata.labels" => Ok(meta.labels.get(key).cloned().unwrap_or_default()),
            "metadata.annotations" => Ok(meta.annotations.get(key).cloned().unwrap_or_default()),
            _ => Err(format!("fieldPath {path:?} does not support subscript")),
        };
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => host_ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` as `("metadata.labels", "key")`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted, values quoted as Go does.
fn format_map(map: &StringMap) -> String {
    let mut text = String::new();
    for (key, value) in map {
        writeln!(text, "{key}={value:?}").expect("writing to a String does not fail");
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// The number of a `resourceFieldRef`, divided by its divisor and rounded up.
pub fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    allocatable: &Allocatable,
) -> Result<String, String> {
    let named = pod
        .spec
        .containers
        .iter()
        .chain(&pod.spec.init_containers)
        .find(|c| c.name == selector.container_name);
    let container = if selector.container_name.is_empty() { container } else { named };
    let container = container.ok_or_else(|| format!("container {:?} not found", selector.container_name))?;
    let (list, name) = selector.resource.split_once('.').unwrap_or(("", &selector.resource));
    let said = match list {
        "limits" => effective_limits(pod, container).remove(name),
        "requests" => container.resources.requests.get(name).cloned(),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let said: Option<Quantity> = said.and_then(|text| text.parse().ok());
    // A limit of nothing is none.
    let said = said.filter(|amount| list != "limits" || !amount.is_zero());
    let milli = name == "cpu";
    let value = match (said, list) {
        (Some(quantity), _) if milli => quantity.milli_value(),
        (Some(quantity), _) => quantity.value(),
        (None, "limits") => whole_node(name, allocatable),
        (None, _) => 0,
    };
    let divisor: Quantity = match selector.divisor.as_str() {
        "" | "0" => "1".parse().expect("1 is a quantity"),
        text => text.parse().map_err(|_| format!("divisor {text:?} is not a quantity"))?,
    };
    let divisor = if milli { divisor.milli_value() } else { divisor.value() }.max(1);
    Ok(((value + divisor - 1) / divisor).to_string())
}

fn whole_node(name: &str, allocatable: &Allocatable) -> i64 {
    match name {
        "cpu" => allocatable.milli_cpu,
        "memory" => allocatable.memory_bytes,
        "ephemeral-storage" => allocatable.ephemeral_storage_bytes,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}}))
        .expect("a pod");
        let node = Allocatable { milli_cpu: 4000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 0 };
        let check = |name: &str, divisor: &str, expect: &str| {
            let selector = ResourceFieldSelector {
                container_name: "a".into(),
                resource: name.into(),
                divisor: divisor.into(),
            };
            assert_eq!(resource(&pod, None, &selector, &node).as_deref(), Ok(expect), "{name}");
        };
        check("limits.cpu", "", "2");
        check("limits.cpu", "1m", "1500");
        check("limits.memory", "1Mi", "64");
        check("limits.ephemeral-storage", "0", "0");
        check("requests.cpu", "1m", "0");
    }

    #[test]
    fn a_container_without_a_limit_has_that_of_its_pod() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {
            "resources": {"limits": {"memory": "64Mi"}},
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "0"}}}]}}))
        .expect("a pod");
        let node = Allocatable { milli_cpu: 4000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 0 };
        let check = |name: &str, expect: &str| {
            let selector = ResourceFieldSelector { resource: name.into(), ..Default::default() };
            let told = resource(&pod, Some(&pod.spec.containers[0]), &selector, &node);
            assert_eq!(told.as_deref(), Ok(expect), "{name}");
        };
        check("limits.memory", "67108864");
        check("limits.cpu", "4");
    }

    #[test]
    fn maps_are_printed_sorted_and_quoted() {
        let pod: Pod = apimachinery::from_value(json!({"metadata": {"labels": {"b": "x\"y", "a": "1"}}}))
            .expect("a pod");
        assert_eq!(field(&pod, "metadata.labels", &[], &[]).as_deref(), Ok("a=\"1\"\nb=\"x\\\"y\""));
        assert_eq!(field(&pod, "metadata.labels['b']", &[], &[]).as_deref(), Ok("x\"y"));
        let host_ips = ["192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        assert_eq!(field(&pod, "status.hostIP", &[], &host_ips).as_deref(), Ok("192.0.2.1"));
        assert_eq!(field(&pod, "status.hostIPs", &[], &host_ips).as_deref(), Ok("192.0.2.1,2001:db8::1"));
        assert!(field(&pod, "spec.nonsense", &[], &[]).is_err());
    }
}
