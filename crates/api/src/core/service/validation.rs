//! Validation of Services, with their addresses and ports already given out (follows `validateService`,
//! `ValidateServiceUpdate`, `ValidateServiceClusterIPsRelatedFields`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, json};

use super::{CLUSTER_IP_NONE, is_externally_accessible, is_headless, needs_health_check, service_type};
use crate::objectmeta::validate_labels;
use crate::validation::{
    At, PROTOCOLS, dns1123_label, dns1123_subdomain, ip, port_number, port_number_or_name, qualified_name,
    same_field,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SESSION_AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const IP_FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const IP_FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
const TRAFFIC_DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const IP_MODES: [&str; 2] = ["Proxy", "VIP"];
/// One day.
const CLIENT_IP_TIMEOUT_SECONDS_MAX: i64 = 86_400;
/// One address of each family.
const CLUSTER_IPS_MAX: usize = 2;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn validate(obj: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    let kind = service_type(obj);
    let ports = spec.get("ports");
    if ports.is_empty() && !is_headless(obj) && kind != "ExternalName" {
        errors.push(ports.required(""));
    }
    by_type(obj, &spec, &mut errors);
    let mut names = BTreeSet::new();
    for port in ports.items() {
        validate_port(&port, ports.len() > 1, &mut names, &mut errors);
    }
    let selector = spec.get("selector");
    validate_labels(selector.map().map(|_| selector.value), &selector.path, &mut errors);
    session_affinity(&spec, &mut errors);
    cluster_ips(obj, old, &mut errors);
    external_ips(&spec, old, &mut errors);
    spec.get("type").check_enum(&TYPES, &mut errors);
    port_conflicts(kind, &ports, &mut errors);
    source_ranges(&spec, kind, &mut errors);
    load_balancer_fields(&spec, kind, &mut errors);
    traffic(&spec, kind, &mut errors);
    errors
}

pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let either_external = service_type(obj) == "ExternalName" || service_type(old) == "ExternalName";
    let stays_headless = is_headless(obj) && is_headless(old);
    if !either_external && !stays_headless {
        list_update(obj, old, "clusterIPs", "clusterIP", &mut errors);
    }
    if !either_external && !is_headless(obj) && !is_headless(old) {
        list_update(obj, old, "ipFamilies", "ipFamily", &mut errors);
    }
    let (spec, old_spec) = (At::root(obj).get("spec"), At::root(old).get("spec"));
    let both_balanced = service_type(obj) == "LoadBalancer" && service_type(old) == "LoadBalancer";
    if both_balanced && !same_field(spec.value, old_spec.value, "loadBalancerClass") {
        errors.push(spec.get("loadBalancerClass").invalid("may not change once set"));
    }
    let port = spec.get("healthCheckNodePort");
    let both_checked = needs_health_check(spec.value) && needs_health_check(old_spec.value);
    if both_checked && port.int() != old_spec.get("healthCheckNodePort").int() {
        errors.push(port.forbidden("field is immutable"));
    }
    errors.extend(validate(obj, Some(old)));
    errors
}

pub fn validate_status(obj: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let ingress = At::root(obj).at(&["status", "loadBalancer", "ingress"]);
    if service_type(obj) != "LoadBalancer" && !ingress.is_empty() {
        errors.push(ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    let old = At::root(old).at(&["status", "loadBalancer", "ingress"]);
    let old_ips: Vec<&str> = old.items().map(|i| i.get("ip").text()).collect();
    for point in ingress.items() {
        let (address, mode, hostname) = (point.get("ip"), point.get("ipMode"), point.get("hostname"));
        if !address.is_empty() {
            ip::legacy(&address, &old_ips, &mut errors);
        }
        match (address.is_empty(), mode.is_set()) {
            (false, false) => errors.push(mode.required("must be specified when `ip` is set")),
            (true, true) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            _ => mode.check_optional_enum(&IP_MODES, &mut errors),
        }
        if !hostname.is_empty() {
            dns1123_subdomain(&hostname, &mut errors);
            if hostname.text().parse::<std::net::IpAddr>().is_ok() {
                errors.push(hostname.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}

fn by_type(obj: &Value, spec: &At, errors: &mut ErrorList) {
    let kind = service_type(obj);
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(obj) => {
            let path = spec.path.child("clusterIPs").index(0);
            errors.push(Error::invalid(
                &path,
                CLUSTER_IP_NONE,
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(field).is_empty() {
                    errors.push(spec.get(field).forbidden("may not be set for ExternalName services"));
                }
            }
            let name = spec.get("externalName");
            let text = name.text().strip_suffix('.').unwrap_or(name.text());
            if text.is_empty() {
                errors.push(name.required(""));
            } else {
                let value = Value::from(text);
                dns1123_subdomain(&At::new(&value, name.path), errors);
            }
        }
        _ => {}
    }
}

fn validate_port<'a>(
    port: &At<'a>,
    require_name: bool,
    names: &mut BTreeSet<&'a str>,
    errors: &mut ErrorList,
) {
    let name = port.get("name");
    match (name.is_empty(), require_name) {
        (true, true) => errors.push(name.required("")),
        (true, false) => {}
        (false, _) => {
            dns1123_label(&name, errors);
            if !names.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
    }
    port_number(&port.get("port"), errors);
    port.get("protocol").check_enum(&PROTOCOLS, errors);
    port_number_or_name(&port.get("targetPort"), errors);
    if let Some(protocol) = port.field("appProtocol") {
        qualified_name(&protocol, errors);
    }
}

fn session_affinity(spec: &At, errors: &mut ErrorList) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.check_enum(&SESSION_AFFINITIES, errors);
    match affinity.text() {
        "ClientIP" => {
            const REQUIRED: &str = "when session affinity type is ClientIP";
            let (client_ip, timeout) = (config.get("clientIP"), config.at(&["clientIP", "timeoutSeconds"]));
            if let Some(missing) = [&config, &client_ip, &timeout].into_iter().find(|at| !at.is_set()) {
                errors.push(missing.required(REQUIRED));
            } else if !(1..=CLIENT_IP_TIMEOUT_SECONDS_MAX).contains(&timeout.int()) {
                let detail = format!("must be greater than 0 and less than {CLIENT_IP_TIMEOUT_SECONDS_MAX}");
                errors.push(timeout.invalid(detail));
            }
        }
        "None" if config.is_set() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

/// Addresses, families and their policy, as far as that takes no knowledge of the cluster
/// (follows `ValidateServiceClusterIPsRelatedFields`).
pub fn cluster_ips(obj: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    if service_type(obj) == "ExternalName" {
        return;
    }
    let spec = At::root(obj).get("spec");
    let (single, list) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let ips = list.texts();
    match (single.text(), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.push(list.invalid("must be empty when `clusterIP` is not specified")),
        (_, None) => errors.push(list.required("")),
        (single, Some(first)) if single != *first => {
            errors.push(list.invalid("first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in spec.get("ipFamilies").items() {
        family.check_optional_enum(&IP_FAMILIES, errors);
        if !seen.insert(family.text()) {
            errors.push(family.duplicate());
        }
    }
    spec.get("ipFamilyPolicy").check_optional_enum(&IP_FAMILY_POLICIES, errors);
    if !valid_ips(&list, &ips, old, errors) {
        return;
    }
    if ips.len() > 1 && !ip::is_dual_stack(&ips) {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
    families_match(obj, &spec, &list, errors);
}

/// What is wrong with the addresses that a Service asks for, which is said before any are given away.
pub fn asked_addresses(obj: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    if service_type(obj) != "ExternalName" {
        let list = At::root(obj).at(&["spec", "clusterIPs"]);
        valid_ips(&list, &list.texts(), old, &mut errors);
    }
    errors
}

/// Whether the addresses are good enough for the checks that follow.
fn valid_ips(list: &At, ips: &[&str], old: Option<&Value>, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    let old = old.map(|old| At::root(old).at(&["spec", "clusterIPs"]).texts()).unwrap_or_default();
    for (index, item) in list.items().enumerate() {
        if index == 0 && item.text() == CLUSTER_IP_NONE {
            if ips.len() > 1 {
                errors.push(list.invalid("'None' must be the first and only value"));
            }
            continue;
        }
        ip::legacy(&item, &old, errors);
    }
    let valid = errors.len() == before;
    if ips.len() > CLUSTER_IPS_MAX {
        errors.push(list.invalid(format!("may only hold up to {CLUSTER_IPS_MAX} values")));
    }
    valid
}

/// Addresses are of the families they are listed for.
fn families_match(obj: &Value, spec: &At, list: &At, errors: &mut ErrorList) {
    if is_headless(obj) || list.is_empty() {
        return;
    }
    let families = spec.get("ipFamilies").texts();
    for (index, (address, family)) in list.items().zip(&families).enumerate() {
        if ip::is_ipv6(address.text()) != (*family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(address.invalid(detail));
        }
    }
}

/// The first item of a list of addresses or families never changes; the second may come and go.
fn list_update(obj: &Value, old: &Value, field: &str, what: &str, errors: &mut ErrorList) {
    let (new, old) = (At::root(obj).at(&["spec", field]), At::root(old).at(&["spec", field]));
    let (values, old_values) = (new.texts(), old.texts());
    let mut refuse = |index: usize, detail: String| {
        errors.push(Error::invalid(&new.path.index(index), json!(values), detail));
    };
    if values.len() == old_values.len() {
        for (index, _) in old_values.iter().enumerate().filter(|(i, old)| values[*i] != **old) {
            refuse(index, "may not change once set".to_owned());
        }
        return;
    }
    match (values.first(), old_values.first()) {
        (None, Some(_)) => refuse(0, format!("primary {what} can not be unset")),
        (Some(new), Some(old)) if new != old => refuse(0, "may not change once set".to_owned()),
        _ => {}
    }
    let policy = At::root(obj).at(&["spec", "ipFamilyPolicy"]);
    if values.len() == 1 && old_values.len() > 1 && policy.text() != "SingleStack" {
        errors.push(
            policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {what}")),
        );
    }
}

fn external_ips(spec: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let old = old.map(|old| At::root(old).at(&["spec", "externalIPs"]).texts()).unwrap_or_default();
    for address in spec.get("externalIPs").items() {
        let before = errors.len();
        ip::legacy(&address, &old, errors);
        if errors.len() == before {
            ip::endpoint(&address, errors);
        }
    }
}

fn port_conflicts(kind: &str, ports: &At, errors: &mut ErrorList) {
    let (mut node_ports, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut duplicates = Vec::new();
    for port in ports.items() {
        let node_port = port.get("nodePort");
        let protocol = port.get("protocol").text();
        if kind == "ClusterIP" && node_port.int() != 0 {
            errors.push(node_port.forbidden("may not be used when `type` is 'ClusterIP'"));
        }
        if node_port.int() != 0 && !node_ports.insert((protocol, node_port.int())) {
            duplicates.push(node_port.duplicate());
        }
        let number = port.get("port").int();
        if !numbers.insert((protocol, number)) {
            let key = json!({"name": "", "protocol": protocol, "port": number, "targetPort": 0});
            duplicates.push(Error::duplicate(&port.path, key));
        }
    }
    errors.extend(duplicates);
}

fn source_ranges(spec: &At, kind: &str, errors: &mut ErrorList) {
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.is_empty() {
        return;
    }
    // The capital is upstream's.
    let path = spec.path.child("LoadBalancerSourceRanges");
    if kind != "LoadBalancer" {
        errors.push(Error::forbidden(&path, ONLY_LOAD_BALANCER));
    }
    for (index, range) in ranges.texts().into_iter().enumerate() {
        ip::cidr(&path.index(index), range.trim(), &[], errors);
    }
}

fn load_balancer_fields(spec: &At, kind: &str, errors: &mut ErrorList) {
    let (allocate, class) = (spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass"));
    match (kind == "LoadBalancer", allocate.is_set()) {
        (false, true) => errors.push(allocate.forbidden(ONLY_LOAD_BALANCER)),
        (true, false) => errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    if class.is_set() {
        if kind == "LoadBalancer" {
            qualified_name(&class, errors);
        } else {
            errors.push(class.forbidden(ONLY_LOAD_BALANCER));
        }
    }
}

fn traffic(spec: &At, kind: &str, errors: &mut ErrorList) {
    let external = spec.get("externalTrafficPolicy");
    if is_externally_accessible(spec.value) {
        external.check_enum(&TRAFFIC_POLICIES, errors);
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health_check = spec.get("healthCheckNodePort");
    if health_check.int() != 0 {
        if needs_health_check(spec.value) {
            port_number(&health_check, errors);
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(health_check.invalid(detail));
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    if !internal.is_set() && matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.push(internal.required(""));
    }
    internal.check_optional_enum(&TRAFFIC_POLICIES, errors);
    spec.get("trafficDistribution").check_optional_enum_of(&TRAFFIC_DISTRIBUTIONS, errors);
}
