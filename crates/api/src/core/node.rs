//! Node (follows `pkg/registry/core/node`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::names;
use jiff::Timestamp;

use super::pod::validation::TAINT_EFFECTS;
use crate::columns::{AGE, NAME, NONE, UNKNOWN, age, column, items, name, wide};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::objectmeta::validate_label_name;
use crate::strategy::{Column, Strategy, keep};
use crate::validation::{At, ip, resource_quantity};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
/// One CIDR of each family.
const POD_CIDRS_MAX: usize = 2;

const COLUMNS: [Column; 10] = [
    NAME,
    column("Status", "string", "Whether the node is ready and takes new pods."),
    column("Roles", "string", "Roles given by labels."),
    AGE,
    column("Version", "string", "Version of its kubelet."),
    wide("Internal-IP", "string", "Address inside the cluster."),
    wide("External-IP", "string", "Address outside the cluster."),
    wide("OS-Image", "string", "Operating system."),
    wide("Kernel-Version", "string", "Kernel and architecture."),
    wide("Container-Runtime", "string", "Container runtime and its version."),
];

pub struct Node;

/// What a node says of itself; upstream always writes all of it.
const NODE_INFO: [&str; 10] = [
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
];

impl Strategy for Node {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        let Some(status) = object(obj, "status") else { return };
        fill(status, &[("daemonEndpoints", Fill::Empty), ("nodeInfo", Fill::Empty)]);
        if let Some(endpoint) = object_or_new(&mut status["daemonEndpoints"], "kubeletEndpoint") {
            fill(endpoint, &[("Port", Fill::Int(0))]);
        }
        fill(&mut status["nodeInfo"], &NODE_INFO.map(|field| (field, Fill::Text(""))));
        if status.get("allocatable").is_none_or(Value::is_null)
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status["allocatable"] = capacity;
        }
        if let Some(spec) = object(obj, "spec") {
            sync_pod_cidrs(spec);
        }
    }

    /// A node may bring its status along: the kubelet registers with both.
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_config_source(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        if old.pointer("/spec/configSource").is_none() {
            drop_config_source(obj);
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        taints(obj, &mut errors);
        resources(obj, &mut errors);
        swap(obj, &mut errors);
        declared_features(obj, &mut errors);
        pod_cidrs(&At::root(obj).at(&["spec", "podCIDRs"]), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        errors.extend(self.validate_status_update(obj, old));
        errors
    }

    /// `ValidateNodeUpdate`, to which an update of the whole node comes after `ValidateNode`.
    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        resources(obj, &mut errors);
        declared_features(obj, &mut errors);
        addresses(obj, &mut errors);
        unchanged_identity(obj, old, &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = At::root(obj).get("spec");
        let mut warnings = Vec::new();
        if spec.get("configSource").is_set() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.get("externalID").is_empty() {
            warnings
                .push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        let unschedulable = obj.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        vec![("spec.unschedulable", unschedulable.to_string())]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let info = |field: &str| str_at(obj, &["status", "nodeInfo", field]);
        let known = |text: &str| if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() };
        let mut kernel = known(info("kernelVersion"));
        if !info("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info("architecture"));
        }
        vec![
            name(obj),
            status(obj).into(),
            roles(obj).into(),
            age(obj, now),
            info("kubeletVersion").into(),
            address(obj, "InternalIP").into(),
            address(obj, "ExternalIP").into(),
            known(info("osImage")).into(),
            kernel.into(),
            known(info("containerRuntimeVersion")).into(),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`; whichever is given fills the other, and where they disagree the one stands for
/// all.
fn sync_pod_cidrs(spec: &mut Value) {
    let first = items(spec, &["podCIDRs"]).first().cloned();
    let single = spec.get("podCIDR").filter(|cidr| cidr.as_str() != Some("") && !cidr.is_null()).cloned();
    match (single, first) {
        (Some(cidr), first) if first.as_ref() != Some(&cidr) => spec["podCIDRs"] = Value::Array(vec![cidr]),
        (None, Some(cidr)) => spec["podCIDR"] = cidr,
        _ => {}
    }
}

fn drop_config_source(obj: &mut Value) {
    if let Some(spec) = obj.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("configSource");
    }
}

fn taints(obj: &Value, errors: &mut ErrorList) {
    // Upstream reports taints under `metadata`.
    let taints = At::root(obj).at(&["spec", "taints"]).under(&Path::new("metadata").child("taints"));
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let [key, value, effect] = ["key", "value", "effect"].map(|field| taint.get(field));
        validate_label_name(key.text(), &key.path, errors);
        let complaints = names::is_label_value(value.text());
        if !complaints.is_empty() {
            errors.push(Error::invalid(&value.path, value.text(), complaints.join(";")));
        }
        effect.check_enum_of(&TAINT_EFFECTS, errors);
        if !seen.insert((key.text(), effect.text())) {
            let mut error = taint.duplicate();
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn resources(obj: &Value, errors: &mut ErrorList) {
    for list in ["capacity", "allocatable"] {
        let amounts = At::root(obj).at(&["status", list]);
        for (resource, quantity) in amounts.entries() {
            resource_quantity(resource, &quantity.under(&amounts.path.child(resource)), errors);
        }
    }
}

/// Upstream reports this under `metadata`, too.
fn swap(obj: &Value, errors: &mut ErrorList) {
    let swap = At::root(obj).at(&["status", "nodeInfo", "swap"]);
    let swap = swap.under(&Path::new("metadata").child("nodeSwapStatus"));
    if let Some(capacity) = swap.get("capacity").set() {
        capacity.check_positive(errors);
    }
}

/// Segments like `MyFeature/mySubFeature`: letters and digits, the first beginning with a capital.
fn is_feature_name(name: &str) -> bool {
    let segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_alphabetic())
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(segment)
}

fn declared_features(obj: &Value, errors: &mut ErrorList) {
    let mut before = None;
    for feature in At::root(obj).at(&["status", "declaredFeatures"]).items() {
        let name = feature.text();
        match before {
            Some(before) if before == name => errors.push(feature.duplicate()),
            Some(before) if before > name => {
                errors.push(feature.invalid("list must be sorted alphabetically"));
            }
            _ => {}
        }
        if name.len() > names::DNS1123_SUBDOMAIN_MAX {
            let max = names::DNS1123_SUBDOMAIN_MAX;
            let detail = format!("invalid feature name {name:?}: must be no more than {max} characters");
            errors.push(feature.invalid(detail));
        } else if !is_feature_name(name) {
            let detail = format!(
                "invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' \
                 (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            );
            errors.push(feature.invalid(detail));
        }
        before = Some(name);
    }
}

fn addresses(obj: &Value, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for address in At::root(obj).at(&["status", "addresses"]).items() {
        if seen.contains(&address.value) {
            errors.push(address.duplicate());
        }
        seen.push(address.value);
    }
}

fn pod_cidrs(cidrs: &At, errors: &mut ErrorList) {
    for cidr in cidrs.items() {
        ip::cidr(&cidr.path, cidr.text(), &[], errors);
    }
    let addresses: Vec<&str> = cidrs.texts().iter().filter_map(|c| c.split('/').next()).collect();
    if cidrs.len() > POD_CIDRS_MAX || (cidrs.len() == POD_CIDRS_MAX && !ip::is_dual_stack(&addresses)) {
        errors.push(cidrs.invalid("may specify no more than one CIDR for each IP family"));
    }
}

/// What is given to a node once stays with it.
fn unchanged_identity(obj: &Value, old_obj: &Value, errors: &mut ErrorList) {
    let (new, old) = (At::root(obj).get("spec"), At::root(old_obj).get("spec"));
    let cidrs = [&old, &new].map(|spec| spec.get("podCIDRs").texts());
    let changed = match &cidrs {
        [old, _] if old.is_empty() => 0,
        [old, new] if old.len() != new.len() => 1,
        [old, new] => old.iter().zip(new).filter(|(old, new)| old != new).count(),
    };
    let detail = "node updates may not change podCIDR except from \"\" to valid";
    errors.extend((0..changed).map(|_| new.get("podCIDRs").forbidden(detail)));
    if !old.get("providerID").is_empty() && new.get("providerID").text() != old.get("providerID").text() {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(new.get("providerID").forbidden(detail));
    }
    taints(obj, errors);
    if new.get("externalID").text() != old.get("externalID").text() {
        errors.push(new.get("externalID").forbidden("may not be updated"));
    }
}

fn status(obj: &Value) -> String {
    let ready = items(obj, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Ready");
    let word = match ready.map(|condition| str_at(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = obj.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if cordoned { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn roles(obj: &Value) -> String {
    let labels = obj.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(obj: &'a Value, kind: &str) -> &'a str {
    let of_kind = |address: &&Value| str_at(address, &["type"]) == kind;
    items(obj, &["status", "addresses"]).iter().find(of_kind).map_or(NONE, |a| str_at(a, &["address"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_row_tells_readiness_roles_and_addresses() {
        let obj = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"}}});
        let cells = Node.row(&obj, Timestamp::UNIX_EPOCH);
        let text: Vec<&str> = cells.iter().filter_map(Value::as_str).collect();
        assert_eq!(
            text,
            [
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,x",
                UNKNOWN,
                "v1.36.0",
                "10.0.0.1",
                NONE,
                UNKNOWN,
                "6.1 (amd64)",
                UNKNOWN
            ]
        );
    }

    #[test]
    fn capacity_is_allocatable_until_told_otherwise() {
        let mut obj = json!({"status": {"capacity": {"cpu": "2"}}, "spec": {"podCIDR": "10.0.0.0/24"}});
        Node.default(&mut obj);
        assert_eq!(obj["status"]["allocatable"], json!({"cpu": "2"}));
        assert_eq!(obj["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
        obj["spec"]["podCIDRs"] = json!(["10.0.1.0/24", "fd00::/64"]);
        Node.default(&mut obj);
        assert_eq!(obj["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
    }

    #[test]
    fn taints_are_unique_and_identity_stays() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let obj = json!({"spec": {"taints": [taint, taint]}});
        expect_errors(
            &Node.validate(&obj),
            &[
                "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique",
            ],
        );
        let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
        let new = json!({"spec": {"podCIDRs": ["10.0.1.0/24"], "providerID": "b"}});
        expect_errors(
            &Node.validate_update(&new, &old),
            &["spec.podCIDRs: Forbidden", "spec.providerID: Forbidden"],
        );
    }

    #[test]
    fn features_are_declared_once_in_order_and_by_their_names() {
        let check = |features: &[&str], expect: &[&str]| {
            let obj = json!({"status": {"declaredFeatures": features}});
            expect_errors(&Node.validate(&obj), expect);
        };
        check(&["A", "B/c", "Ba1/D"], &[]);
        check(
            &["B", "A", "A"],
            &[
                "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically",
                "status.declaredFeatures[2]: Duplicate value: \"A\"",
            ],
        );
        for bad in ["a", "", "A/", "A//b", "A/1", "A-b"] {
            check(
                &[bad],
                &[&format!("status.declaredFeatures[0]: Invalid value: \"{bad}\": invalid feature name")],
            );
        }
        let long = "A".repeat(254);
        check(
            &[&long],
            &[&format!(
                "status.declaredFeatures[0]: Invalid value: \"{long}\": invalid feature name \"{long}\": must be no more than 253 characters"
            )],
        );
    }

    #[test]
    fn an_update_of_a_node_leaves_its_status() {
        let old = json!({"spec": {}, "status": {"a": 1}});
        let mut new = json!({"spec": {"unschedulable": true}});
        Node.prepare_for_update(&mut new, &old);
        assert_eq!(new, json!({"spec": {"unschedulable": true}, "status": {"a": 1}}));
    }
}
