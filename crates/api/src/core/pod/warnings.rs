//! What the writer of a pod or template should know though it is accepted (follows `GetWarningsForPod`).

mod containers;
mod paths;

use apimachinery::meta::str_at;
use apimachinery::{Value, names};

use super::validation::annotations::SECCOMP_POD;
use crate::core::persistentvolumeclaim;
use crate::validation::{At, ip, node_labels};

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

/// Resources that are counted in bytes.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

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
    let annotations = template.at(&["metadata", "annotations"]);
    node_selection(&spec, &mut warnings);
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(message) = node_labels::deprecation(key.text()) {
            warnings.push(format!("{}: {} is {message}", key.path, key.text()));
        }
        matches_no_pod(&constraint, &mut warnings);
    }
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if annotations.get(key).is_set() {
            warnings.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    for volume in spec.get("volumes").items() {
        for (source, message) in DEPRECATED_VOLUMES {
            if let Some(source) = volume.field(source) {
                warnings.push(format!("{}: {message}", source.path));
            }
        }
        let claim = volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]);
        warnings.extend(persistentvolumeclaim::spec_warnings(&claim));
    }
    warnings.extend(spec.get("volumes").items().flat_map(|volume| paths::overlapping(&volume)));
    duplicates(&spec.get("hostAliases"), "ip", &mut warnings);
    duplicates(&spec.get("imagePullSecrets"), "name", &mut warnings);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", secret.get("name").path));
        }
    }
    BYTES.iter().for_each(|name| fractional(&spec.get("overhead"), name, &mut warnings));
    if !spec.at(&["securityContext", "seccompProfile"]).is_set() {
        containers::seccomp(&annotations, SECCOMP_POD, &mut warnings);
    }
    containers::all(&spec, &annotations, &mut warnings);
    if spec.get("terminationGracePeriodSeconds").int() < 0 {
        let path = spec.get("terminationGracePeriodSeconds").path;
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_affinity(&spec.get("affinity"), &mut warnings);
    let addresses = spec.at(&["dnsConfig", "nameservers"]);
    warnings.extend(addresses.items().filter_map(|address| ip::warning(&address)));
    warnings.extend(spec.get("hostAliases").items().filter_map(|alias| ip::warning(&alias.get("ip"))));
    warnings
}

/// Labels of nodes that pods should no longer ask for.
fn node_selection(spec: &At, warnings: &mut Vec<String>) {
    for (label, at) in spec.get("nodeSelector").entries() {
        if let Some(message) = node_labels::deprecation(label) {
            warnings.push(format!("{}: {message}", at.path));
        }
    }
    let affinity = spec.at(&["affinity", "nodeAffinity"]);
    let required = affinity.at(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    warnings.extend(required.items().flat_map(|term| node_labels::in_expressions(&term)));
    for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        let preference = term.get("preference");
        warnings.extend(node_labels::in_expressions(&preference));
        for value in preference.get("matchExpressions").items().flat_map(|e| e.get("values").items()) {
            for complaint in names::is_label_value(value.text()) {
                warnings.push(format!("{}: {} is invalid, {complaint}", value.path, value.text()));
            }
        }
    }
}

fn pod_affinity(affinity: &At, warnings: &mut Vec<String>) {
    for terms in ["podAffinity", "podAntiAffinity"].map(|field| affinity.get(field)) {
        for term in terms.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            matches_no_pod(&term, warnings);
        }
        for weighted in terms.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            matches_no_pod(&weighted.get("podAffinityTerm"), warnings);
        }
    }
}

fn matches_no_pod(term: &At, warnings: &mut Vec<String>) {
    let selector = term.get("labelSelector");
    if !selector.is_set() {
        warnings.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
    }
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

/// Bytes come whole.
fn fractional(amounts: &At, name: &str, warnings: &mut Vec<String>) {
    if let Some(amount) = amounts.get(name).quantity().filter(|q| q.milli_value() % 1000 != 0) {
        warnings.push(format!(
            "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
            amounts.path.key(name)
        ));
    }
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
    fn ports_that_confuse_are_pointed_out() {
        let port = |name: &str, number: i64, host_ip: &str| json!({"name": name, "containerPort": number, "protocol": "TCP", "hostIP": host_ip});
        check(
            json!({"initContainers": [{"ports": [port("web", 80, "")]}], "containers": [{"ports": [port("web", 81, "127.0.0.1")]}]}),
            &[
                "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:web HostPort:0 ContainerPort:81 Protocol:TCP HostIP:127.0.0.1}",
                "spec.containers[0].ports[0]: duplicate port name \"web\" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]",
            ],
        );
    }

    #[test]
    fn old_node_labels_and_selectors_of_nothing_are_pointed_out() {
        check(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "affinity": {
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"preference": {
                    "matchExpressions": [{"key": "beta.kubernetes.io/arch", "values": ["-"]}]}}]},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}}}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: - is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
            ],
        );
    }

    #[test]
    fn annotations_that_fields_replaced_are_pointed_out() {
        let key = "container.apparmor.security.beta.kubernetes.io/c";
        let template = |profile: Value| {
            json!({"template": {"metadata": {"annotations": {key: "localhost/x", SECCOMP_POD: "unconfined"}},
                "spec": {"securityContext": {"appArmorProfile": profile}, "containers": [{"name": "c"}]}}})
        };
        let seccomp = format!(
            "template.metadata.annotations[{SECCOMP_POD}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
        );
        let app_armor = format!(
            "template.metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        );
        let warnings = |object: &Value| for_template(&At::root(object).get("template"));
        assert_eq!(warnings(&template(Value::Null)), [seccomp.clone(), app_armor]);
        let same = json!({"type": "Localhost", "localhostProfile": "x"});
        assert_eq!(warnings(&template(same)), [seccomp]);
    }

    #[test]
    fn a_name_with_dots_makes_a_poor_hostname() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {}});
        assert!(for_pod(&pod)[0].starts_with("metadata.name: this is used in the Pod's hostname"));
    }
}
