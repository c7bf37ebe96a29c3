//! Endpoints (follows `pkg/registry/core/endpoint`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, age, column, count, items, name};
use crate::defaults::{Fill, each, fill};
use crate::strategy::{Column, Strategy};
use crate::validation::{
    At, PROTOCOLS, dns1123_label, dns1123_subdomain, ip, port_number, qualified_name, same_field,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// Addresses shown before "more".
const SHOWN_MAX: usize = 3;

const COLUMNS: [Column; 3] = [NAME, column("Endpoints", "string", "Ready addresses and ports."), AGE];

pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, obj: &mut Value) {
        for subset in each(obj, "subsets") {
            for port in each(subset, "ports") {
                fill(port, &[("protocol", Fill::Text("TCP"))]);
            }
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for subset in At::root(obj).get("subsets").items() {
            validate_subset(&subset, &mut errors);
        }
        errors
    }

    /// Subsets that older rules let in may stay.
    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        if same_field(obj, old, "subsets") { ErrorList::new() } else { self.validate(obj) }
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let managed = str_at(obj, &["metadata", "labels", MANAGED_BY]) == CONTROLLER;
        if managed || old.is_some_and(|old| same_field(obj, old, "subsets")) {
            return Vec::new();
        }
        let subsets = At::root(obj).get("subsets");
        let lists = subsets.items().flat_map(|s| [s.get("addresses"), s.get("notReadyAddresses")]);
        lists.flat_map(|list| list.items()).filter_map(|address| ip::warning(&address.get("ip"))).collect()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), format_endpoints(obj).into(), age(obj, now)]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_subset(subset: &At, errors: &mut ErrorList) {
    let lists = [subset.get("addresses"), subset.get("notReadyAddresses")];
    if lists.iter().all(At::is_empty) {
        errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
    }
    for address in lists.iter().flat_map(At::items) {
        ip::legacy(&address.get("ip"), &[], errors);
        if !address.get("hostname").is_empty() {
            dns1123_label(&address.get("hostname"), errors);
        }
        if let Some(node) = address.field("nodeName") {
            dns1123_subdomain(&node, errors);
        }
        ip::endpoint(&address.get("ip"), errors);
    }
    let ports = subset.get("ports");
    for port in ports.items() {
        validate_port(&port, ports.len() > 1, errors);
    }
}

fn validate_port(port: &At, require_name: bool, errors: &mut ErrorList) {
    let name = port.get("name");
    match (name.is_empty(), require_name) {
        (true, true) => errors.push(name.required("")),
        (true, false) => {}
        (false, _) => dns1123_label(&name, errors),
    }
    port_number(&port.get("port"), errors);
    port.get("protocol").check_enum(&PROTOCOLS, errors);
    if let Some(protocol) = port.field("appProtocol") {
        qualified_name(&protocol, errors);
    }
}

fn format_endpoints(obj: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(obj, &["subsets"]) {
        let addresses = items(subset, &["addresses"]).iter().map(|address| str_at(address, &["ip"]));
        let ports = items(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            let number = count(port, &["port"]);
            all.extend(addresses.clone().map(|ip| host_port(ip, number)));
        }
    }
    if items(obj, &["subsets"]).is_empty() {
        return NONE.to_owned();
    }
    let shown = all[..all.len().min(SHOWN_MAX)].join(",");
    if all.len() > SHOWN_MAX { format!("{shown} + {} more...", all.len() - SHOWN_MAX) } else { shown }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn addresses_and_ports_are_checked() {
        let obj = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0, "protocol": "TCP"}]}, {}]});
        expect_errors(
            &Endpoints.validate(&obj),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "subsets[0].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g.",
                "subsets[0].addresses[1].ip: Invalid value: \"x\": must be a valid IP address",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
            ],
        );
    }

    #[test]
    fn three_endpoints_are_shown() {
        let addresses: Vec<Value> = (1..=4).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
        let obj = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(format_endpoints(&obj), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
        assert_eq!(format_endpoints(&json!({})), NONE);
    }
}
