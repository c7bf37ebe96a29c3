//! Service (follows `pkg/registry/core/service`). IP families, addresses and ports are given out by the caller, who
//! knows the cluster's, between preparation and validation.

mod columns;
mod validation;

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::{json, names};
use jiff::Timestamp;

use crate::columns::items;
use crate::defaults::{Fill, each, fill, object, object_or_new};
use crate::strategy::{Column, NameRule, Strategy, drop_field, keep};
use crate::validation::{At, ip, same_field};

pub use validation::{asked_addresses, cluster_ips as validate_cluster_ips};

/// `clusterIP` of a Service without an address of its own.
pub const CLUSTER_IP_NONE: &str = "None";
/// How long a client sticks to an endpoint: three hours.
const CLIENT_IP_TIMEOUT_SECONDS: i64 = 10_800;

const SPEC: &[(&str, Fill)] = &[("sessionAffinity", Fill::Text("None")), ("type", Fill::Text("ClusterIP"))];

pub struct Service;

impl Strategy for Service {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty)]);
        if let Some(spec) = object(obj, "spec") {
            default_spec(spec);
        }
        default_status(obj);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"loadBalancer": {}});
        normalize_cluster_ips(obj, None);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        drop_type_dependent(obj, old);
        keep_allocated(obj, old);
        normalize_cluster_ips(obj, Some(old));
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        default_status(obj);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate(obj, None)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old)
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_status(obj, old)
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(obj)
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", str_at(obj, &["spec", "clusterIP"]).to_owned()),
            ("spec.type", str_at(obj, &["spec", "type"]).to_owned()),
        ]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        &columns::COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        columns::row(obj, now)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    /// Since 1.36 a label of RFC 1123, which may start with a digit.
    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }
}

fn service_type(obj: &Value) -> &str {
    str_at(obj, &["spec", "type"])
}

/// Whether the Service is there to be found by DNS only.
pub fn is_headless(obj: &Value) -> bool {
    items(obj, &["spec", "clusterIPs"]) == [Value::from(CLUSTER_IP_NONE)]
}

/// Whether clients outside the cluster reach it (follows `ExternallyAccessible`).
pub fn is_externally_accessible(spec: &Value) -> bool {
    match str_at(spec, &["type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(spec, &["externalIPs"]).is_empty(),
        _ => false,
    }
}

/// Whether load balancers ask each node if it has endpoints (follows `NeedsHealthCheck`).
pub fn needs_health_check(spec: &Value) -> bool {
    str_at(spec, &["type"]) == "LoadBalancer" && str_at(spec, &["externalTrafficPolicy"]) == "Local"
}

fn needs_node_port(obj: &Value) -> bool {
    matches!(service_type(obj), "NodePort" | "LoadBalancer")
}

fn default_spec(spec: &mut Value) {
    fill(spec, SPEC);
    match str_at(spec, &["sessionAffinity"]) {
        "None" => drop_field(spec, "sessionAffinityConfig"),
        "ClientIP" if spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").is_none() => {
            spec["sessionAffinityConfig"] =
                json!({"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT_SECONDS}});
        }
        _ => {}
    }
    for port in each(spec, "ports") {
        fill(port, &[("protocol", Fill::Text("TCP"))]);
        let target_unset = port.get("targetPort").is_none_or(|t| t.is_null() || t == 0 || t == "");
        if target_unset && let Some(number) = port.get("port").cloned() {
            port["targetPort"] = number;
        }
    }
    if is_externally_accessible(spec) {
        fill(spec, &[("externalTrafficPolicy", Fill::Text("Cluster"))]);
    }
    if matches!(str_at(spec, &["type"]), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, &[("internalTrafficPolicy", Fill::Text("Cluster"))]);
    }
    if str_at(spec, &["type"]) == "LoadBalancer" {
        fill(spec, &[("allocateLoadBalancerNodePorts", Fill::Bool(true))]);
    }
}

fn default_status(obj: &mut Value) {
    let is_load_balancer = service_type(obj) == "LoadBalancer";
    let Some(load_balancer) =
        object_or_new(obj, "status").and_then(|status| object_or_new(status, "loadBalancer"))
    else {
        return;
    };
    for ingress in each(load_balancer, "ingress").filter(|_| is_load_balancer) {
        if !str_at(ingress, &["ip"]).is_empty() {
            fill(ingress, &[("ipMode", Fill::Text("VIP"))]);
        }
    }
}

/// Keeps `clusterIP` and `clusterIPs` in step for clients that know only the first (follows `normalizeClusterIPs`).
fn normalize_cluster_ips(obj: &mut Value, old: Option<&Value>) {
    let single = str_at(obj, &["spec", "clusterIP"]).to_owned();
    let unset = items(obj, &["spec", "clusterIPs"]).is_empty();
    let Some(old) = old else {
        if !single.is_empty() && unset {
            obj["spec"]["clusterIPs"] = json!([single]);
        }
        return;
    };
    let (spec, old_spec) = (&obj["spec"], old.get("spec").unwrap_or(&Value::Null));
    let same_list = same_field(spec, old_spec, "clusterIPs");
    let old_single = str_at(old_spec, &["clusterIP"]);
    match () {
        () if single == old_single && unset => keep(&mut obj["spec"], old_spec, "clusterIPs"),
        () if single != old_single && single.is_empty() && same_list => {
            drop_field(&mut obj["spec"], "clusterIPs")
        }
        () if single != old_single && (same_list || unset) && !single.is_empty() => {
            obj["spec"]["clusterIPs"] = json!([single]);
        }
        () => {}
    }
}

/// What was given out stays when an update leaves it out (follows `patchAllocatedValues`).
fn keep_allocated(obj: &mut Value, old: &Value) {
    let old_spec = old.get("spec").unwrap_or(&Value::Null);
    let external = |obj: &Value| service_type(obj) == "ExternalName";
    if !external(obj) && !external(old) && str_at(obj, &["spec", "clusterIP"]).is_empty() {
        keep(&mut obj["spec"], old_spec, "clusterIP");
        if items(obj, &["spec", "clusterIPs"]).is_empty() {
            keep(&mut obj["spec"], old_spec, "clusterIPs");
        }
    }
    if needs_node_port(obj) && needs_node_port(old) {
        keep_node_ports(obj, old);
    }
    if needs_health_check(&obj["spec"]) && needs_health_check(old_spec) {
        let unset = obj.pointer("/spec/healthCheckNodePort").is_none_or(|p| p.is_null() || p == 0);
        if unset {
            keep(&mut obj["spec"], old_spec, "healthCheckNodePort");
        }
    }
}

/// Ports of the same name keep their node port, unless another port of the update has taken it.
fn keep_node_ports(obj: &mut Value, old: &Value) {
    let node_port = |port: &Value| port.get("nodePort").and_then(Value::as_i64).filter(|n| *n != 0);
    let taken: Vec<i64> = items(obj, &["spec", "ports"]).iter().filter_map(node_port).collect();
    for port in each(&mut obj["spec"], "ports") {
        if node_port(port).is_some() {
            continue;
        }
        let before = items(old, &["spec", "ports"]).iter().find(|old| same_field(old, port, "name"));
        if let Some(number) = before.and_then(node_port).filter(|n| !taken.contains(n)) {
            port["nodePort"] = number.into();
        }
    }
}

/// Clears what the new type has no use for, if the update did not also change it (follows `dropTypeDependentFields`).
fn drop_type_dependent(obj: &mut Value, old: &Value) {
    let (was, is) = (service_type(old).to_owned(), service_type(obj).to_owned());
    let old_spec = old.get("spec").unwrap_or(&Value::Null);
    let spec = &mut obj["spec"];
    let mut drop_unchanged = |fields: &[&str]| {
        if fields.iter().all(|field| same_field(spec, old_spec, field)) {
            fields.iter().for_each(|field| drop_field(spec, field));
        }
    };
    if was != "ExternalName" && is == "ExternalName" {
        drop_unchanged(&["clusterIP", "clusterIPs"]);
        drop_unchanged(&["ipFamilies"]);
        drop_unchanged(&["ipFamilyPolicy"]);
    }
    if was == "LoadBalancer" && is != "LoadBalancer" {
        drop_unchanged(&["allocateLoadBalancerNodePorts"]);
        drop_unchanged(&["loadBalancerClass"]);
    }
    if needs_health_check(old_spec) && !needs_health_check(&obj["spec"]) {
        let spec = &mut obj["spec"];
        if same_field(spec, old_spec, "healthCheckNodePort") {
            drop_field(spec, "healthCheckNodePort");
        }
    }
    if is_externally_accessible(old_spec)
        && !is_externally_accessible(&obj["spec"])
        && same_field(&obj["spec"], old_spec, "externalTrafficPolicy")
    {
        drop_field(&mut obj["spec"], "externalTrafficPolicy");
    }
    if needs_node_port(old) && !needs_node_port(obj) {
        drop_node_ports(obj, old);
    }
    if is != "LoadBalancer"
        && let Some(status) = object(obj, "status")
    {
        status["loadBalancer"] = json!({});
    }
}

fn drop_node_ports(obj: &mut Value, old: &Value) {
    let numbers = |obj: &Value| -> Vec<i64> {
        items(obj, &["spec", "ports"])
            .iter()
            .filter_map(|p| p.get("nodePort")?.as_i64())
            .filter(|n| *n != 0)
            .collect()
    };
    let known = numbers(old);
    if numbers(obj).iter().all(|number| known.contains(number)) {
        for port in each(&mut obj["spec"], "ports") {
            drop_field(port, "nodePort");
        }
    }
}

fn warnings(obj: &Value) -> Vec<String> {
    let spec = At::root(obj).get("spec");
    let mut warnings: Vec<String> = Vec::new();
    let ips = spec.get("clusterIPs").items().chain(spec.get("externalIPs").items());
    warnings.extend(ips.filter_map(|address| ip::warning(&address)));
    let external_ips = !spec.get("externalIPs").is_empty();
    let kind = service_type(obj);
    if is_headless(obj) && kind == "ClusterIP" {
        if !spec.get("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external_ips {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.get("sessionAffinity").text() != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    } else if external_ips && kind != "ExternalName" {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if kind == "ExternalName" && external_ips {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.get("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.get("trafficDistribution").text() == "PreferClose" {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests;
