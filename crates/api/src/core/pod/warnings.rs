//! What the writer of a pod or template should know though it is accepted (follows `GetWarningsForPod`).

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::field::Path;
use apimachinery::meta::str_at;

use crate::validation::At;

const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const DEPRECATED_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const FRACTIONAL: [&str; 2] = ["ephemeral-storage", "memory"];

pub fn for_pod(pod: &Value) -> Vec<String> {
    let mut warnings: Vec<String> =
        super::hostname_warning(str_at(pod, &["metadata", "name"]), "the Pod's hostname")
            .into_iter()
            .collect();
    warnings.extend(for_template(&At::root(pod)));
    warnings
}

/// Warnings about a pod template at its place, or about a pod at the root.
pub fn for_template(template: &At) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = template.get("spec");
    for constraint in spec.get("topologySpreadConstraints").items() {
        let selector = constraint.get("labelSelector");
        if !selector.is_set() {
            warnings.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
        }
    }
    let annotations = template.at(&["metadata", "annotations"]);
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if annotations.get(key).is_set() {
            warnings.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    for volume in spec.get("volumes").items() {
        for (source, message) in DEPRECATED_VOLUMES {
            if volume.get(source).is_set() {
                warnings.push(format!("{}: {message}", volume.get(source).path));
            }
        }
    }
    duplicates(&spec.get("hostAliases"), "ip", &mut warnings);
    duplicates(&spec.get("imagePullSecrets"), "name", &mut warnings);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", secret.get("name").path));
        }
    }
    containers(&spec, &mut warnings);
    if spec.get("terminationGracePeriodSeconds").int() < 0 {
        let path = spec.get("terminationGracePeriodSeconds").path;
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn duplicates(list: &At, field: &str, warnings: &mut Vec<String>) {
    let mut seen = Vec::new();
    for item in list.items() {
        let at = item.get(field);
        if seen.contains(&at.text()) {
            warnings.push(format!("{}: duplicate {field} {:?}", at.path, at.text()));
        }
        seen.push(at.text());
    }
}

fn containers(spec: &At, warnings: &mut Vec<String>) {
    let mut ports = BTreeMap::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            for field in ["limits", "requests"] {
                fractional(&container.get("resources").get(field), warnings);
            }
            hidden_variables(&container, warnings);
            for port in container.get("ports").items() {
                overlapping_port(&port, &mut ports, warnings);
            }
        }
    }
}

/// Bytes come whole.
fn fractional(amounts: &At, warnings: &mut Vec<String>) {
    for name in FRACTIONAL {
        if let Some(amount) = amounts.get(name).quantity().filter(|q| q.milli_value() % 1000 != 0) {
            warnings.push(format!(
                "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
                amounts.path.key(name)
            ));
        }
    }
}

/// A later variable of the same name that does not build on the earlier one.
fn hidden_variables(container: &At, warnings: &mut Vec<String>) {
    let mut seen = Vec::new();
    for variable in container.get("env").items() {
        let name = variable.get("name").text();
        if !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        let (reference, value) = (format!("$({name})"), variable.get("value").text());
        if variable.get("valueFrom").is_set() || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
}

type Ports<'a> = BTreeMap<(i64, &'a str), Vec<(Path, &'a str, i64)>>;

fn overlapping_port<'a>(port: &At<'a>, all: &mut Ports<'a>, warnings: &mut Vec<String>) {
    let (host_ip, host_port) = (port.get("hostIP").text(), port.get("hostPort").int());
    let others = all.entry((port.get("containerPort").int(), port.get("protocol").text())).or_default();
    for (path, other_ip, other_port) in others.iter() {
        let what = match () {
            () if host_ip == *other_ip && host_port == *other_port => "duplicate",
            () if host_port == 0 || *other_port == 0 => "overlapping",
            () if host_port == *other_port && host_ip.is_empty() != other_ip.is_empty() => {
                "dangerously ambiguous"
            }
            () => continue,
        };
        warnings.push(format!("{}: {what} port definition with {path}", port.path));
    }
    others.push((port.path.clone(), host_ip, host_port));
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn check(spec: Value, expect: &[&str]) {
        assert_eq!(for_pod(&json!({"metadata": {"name": "p"}, "spec": spec})), expect);
    }

    #[test]
    fn doubtful_parts_are_pointed_out() {
        check(json!({"containers": [{"name": "a"}]}), &[]);
        check(
            json!({"containers": [{"env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]}]}),
            &[
                "spec.containers[0].env[1]: hides previous definition of \"X\", which may be dropped when using apply",
            ],
        );
        check(
            json!({"containers": [{"ports": [{"containerPort": 80}, {"containerPort": 80}]}]}),
            &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        );
        check(
            json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}], "imagePullSecrets": [{}]}),
            &[
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ],
        );
    }

    #[test]
    fn a_name_with_dots_makes_a_poor_hostname() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {}});
        assert!(for_pod(&pod)[0].starts_with("metadata.name: this is used in the Pod's hostname"));
    }
}
