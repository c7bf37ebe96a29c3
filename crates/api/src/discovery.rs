//! The group `discovery.k8s.io`: EndpointSlice (follows `pkg/registry/discovery/endpointslice`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use apimachinery::names;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, each, fill, store_as_none};
use crate::strategy::{Column, NameRule, Strategy, advance_generation, drop_field, set_first_generation};
use crate::validation::{
    At, PROTOCOLS, dns1123_label, dns1123_subdomain, ip, qualified_name, same, same_field,
};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const ENDPOINTS_MAX: usize = 1000;
const HINTS_MAX: usize = 8;
const PORT: &[(&str, Fill)] = &[("name", Fill::Text("")), ("protocol", Fill::Text("TCP"))];
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLERS: [&str; 2] =
    ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
/// Ports and addresses shown before "more".
const SHOWN_MAX: usize = 3;

const COLUMNS: [Column; 5] = [
    NAME,
    column("AddressType", "string", "What kind of addresses it holds."),
    column("Ports", "string", "Ports of every endpoint."),
    column("Endpoints", "string", "Addresses of the endpoints."),
    AGE,
];

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("endpoints", Fill::Null), ("ports", Fill::Null)]);
        for port in each(obj, "ports") {
            fill(port, PORT);
        }
        for endpoint in each(obj, "endpoints") {
            fill(endpoint, &[("conditions", Fill::Empty)]);
        }
    }

    fn canonicalize(&self, obj: &mut Value) {
        store_as_none(obj, &["endpoints", "ports"]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
        drop_topology(obj);
    }

    /// Anything but metadata counts, and labels do.
    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        let without_metadata = |obj: &Value| {
            let mut copy = obj.clone();
            drop_field(&mut copy, "metadata");
            copy
        };
        let changed = !same(&without_metadata(obj), &without_metadata(old))
            || !same_field(&obj["metadata"], &old["metadata"], "labels");
        advance_generation(obj, old, changed);
        if !same_field(obj, old, "endpoints") {
            drop_topology(obj);
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        root.get("addressType").check_enum(&ADDRESS_TYPES, &mut errors);
        ports(&root.get("ports"), &mut errors);
        endpoints(&root.get("endpoints"), root.get("addressType").text(), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        if same_field(obj, old, "endpoints") {
            // What older rules let in may stay.
            errors.retain(|error| !error.field.as_str().starts_with("endpoints"));
        }
        At::root(obj).get("addressType").check_unchanged(&At::root(old).get("addressType"), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && str_at(obj, &["addressType"]) == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        if !CONTROLLERS.contains(&str_at(obj, &["metadata", "labels", MANAGED_BY])) {
            let addresses = At::root(obj).get("endpoints").items().flat_map(|e| e.get("addresses").items());
            warnings.extend(addresses.filter_map(|address| ip::warning(&address)));
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let ports =
            items(obj, &["ports"]).iter().map(|port| match port.get("port").and_then(Value::as_i64) {
                Some(number) => number.to_string(),
                None => str_at(port, &["name"]).to_owned(),
            });
        let addresses = items(obj, &["endpoints"])
            .iter()
            .flat_map(|endpoint| items(endpoint, &["addresses"]))
            .filter_map(|address| address.as_str().map(str::to_owned));
        vec![
            name(obj),
            str_at(obj, &["addressType"]).into(),
            first_few(ports.collect()).into(),
            first_few(addresses.collect()).into(),
            age(obj, now),
        ]
    }
}

fn first_few(all: Vec<String>) -> String {
    match all.len() {
        0 => "<unset>".to_owned(),
        n if n > SHOWN_MAX => format!("{} + {} more...", all[..SHOWN_MAX].join(","), n - SHOWN_MAX),
        _ => all.join(","),
    }
}

/// `deprecatedTopology` is read-only in `v1`.
fn drop_topology(obj: &mut Value) {
    for endpoint in each(obj, "endpoints") {
        drop_field(endpoint, "deprecatedTopology");
    }
}

fn ports(ports: &At, errors: &mut ErrorList) {
    if ports.len() > PORTS_MAX {
        errors.push(Error::too_many(&ports.path, ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            dns1123_label(&name, errors);
        }
        if !seen.insert(name.text()) {
            errors.push(Error::duplicate(&name.path, name.text()));
        }
        port.get("protocol").check_enum(&PROTOCOLS, errors);
        if let Some(protocol) = port.field("appProtocol") {
            qualified_name(&protocol, errors);
        }
    }
}

fn endpoints(endpoints: &At, address_type: &str, errors: &mut ErrorList) {
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(Error::too_many(&endpoints.path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            errors.push(addresses.required("must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(Error::too_many(&addresses.path, addresses.len(), ADDRESSES_MAX));
        }
        for address in addresses.items() {
            validate_address(&address, &addresses, address_type, errors);
        }
        if let Some(node) = endpoint.field("nodeName") {
            dns1123_subdomain(&node, errors);
        }
        if let Some(hostname) = endpoint.field("hostname") {
            dns1123_label(&hostname, errors);
        }
        hints(&endpoint.get("hints"), errors);
    }
}

fn validate_address(address: &At, addresses: &At, address_type: &str, errors: &mut ErrorList) {
    let before = errors.len();
    match address_type {
        "IPv4" => ip::legacy(address, &[], errors),
        "IPv6" => ip::strict(address, errors),
        "FQDN" => {
            let absolute = address.text().strip_suffix('.').unwrap_or(address.text());
            let text = Value::from(absolute);
            dns1123_subdomain(&At::new(&text, address.path.clone()), errors);
            if errors.len() == before && !absolute.contains('.') {
                errors
                    .push(address.invalid("should be a domain with at least two segments separated by dots"));
            }
            return;
        }
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    if ip::is_ipv6(address.text()) != (address_type == "IPv6") {
        let detail = format!("must be an {address_type} address");
        errors.push(Error::invalid(&addresses.path, address.text(), detail));
    }
    ip::endpoint(address, errors);
}

fn hints(hints: &At, errors: &mut ErrorList) {
    let rules: [(&str, NameRule); 2] =
        [("forZones", names::is_label_value), ("forNodes", names::is_dns1123_subdomain)];
    for (field, rule) in rules {
        let list = hints.get(field);
        if list.len() > HINTS_MAX {
            errors.push(Error::too_many(&list.path, list.len(), HINTS_MAX));
            return;
        }
        let mut seen = BTreeSet::new();
        for hint in list.items() {
            let name = hint.get("name");
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            name.check(rule, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn slice(address_type: &str, addresses: Value) -> Value {
        json!({"metadata": {"name": "s"}, "addressType": address_type, "endpoints": [{"addresses": addresses}]})
    }

    #[test]
    fn addresses_are_of_the_slices_type() {
        let check = |kind: &str, addresses: Value, expect: &[&str]| {
            expect_errors(&EndpointSlice.validate(&slice(kind, addresses)), expect);
        };
        check("IPv4", json!(["10.0.0.1"]), &[]);
        check(
            "IPv4",
            json!(["fd00::1"]),
            &["endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"],
        );
        check(
            "IPv6",
            json!(["fd00:0::1"]),
            &["endpoints[0].addresses[0]: Invalid value: \"fd00:0::1\": must be in canonical form"],
        );
        check("FQDN", json!(["a.example.com"]), &[]);
        check(
            "",
            json!([]),
            &[
                "addressType: Required value",
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ],
        );
    }

    #[test]
    fn limits_hold_exactly() {
        let many = |n: usize| json!({"addressType": "IPv4", "endpoints": vec![json!({"addresses": ["10.0.0.1"]}); n]});
        expect_errors(&EndpointSlice.validate(&many(ENDPOINTS_MAX)), &[]);
        expect_errors(
            &EndpointSlice.validate(&many(ENDPOINTS_MAX + 1)),
            &["endpoints: Too many: 1001: must have at most 1000 items"],
        );
        expect_errors(&EndpointSlice.validate(&slice("IPv4", json!(vec!["10.0.0.1"; ADDRESSES_MAX]))), &[]);
        expect_errors(
            &EndpointSlice.validate(&slice("IPv4", json!(vec!["10.0.0.1"; ADDRESSES_MAX + 1]))),
            &["endpoints[0].addresses: Too many: 101"],
        );
    }

    #[test]
    fn labels_and_endpoints_count_as_a_generation() {
        let mut old = slice("IPv4", json!(["10.0.0.1"]));
        EndpointSlice.prepare_for_create(&mut old);
        let generation = |mut new: Value| {
            EndpointSlice.prepare_for_update(&mut new, &old);
            new["metadata"]["generation"].clone()
        };
        assert_eq!(generation(old.clone()), 1);
        let mut labelled = old.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(generation(labelled), 2);
        let mut annotated = old.clone();
        annotated["metadata"]["annotations"] = json!({"a": "b"});
        assert_eq!(generation(annotated), 1);
        assert_eq!(generation(slice("IPv4", json!(["10.0.0.2"]))), 2);
    }

    #[test]
    fn a_row_shows_ports_and_a_few_addresses() {
        let mut obj = slice("IPv4", json!(["a", "b", "c", "d"]));
        obj["ports"] = json!([{"port": 80}, {"name": "x"}]);
        let cells = EndpointSlice.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..4], [json!("IPv4"), json!("80,x"), json!("a,b,c + 1 more...")]);
    }
}
