//! NetworkPolicy (follows `pkg/registry/networking/networkpolicy`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, format_label_selector, items, name};
use crate::defaults::{Fill, each, fill, object_or_new};
use crate::strategy::{Column, Strategy, bump_generation, set_first_generation};
use crate::validation::{At, ip, label_selector, port_name, port_number};

/// In the order in which messages name them.
const PORT_PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const POLICY_TYPES: [&str; 2] = ["Ingress", "Egress"];
/// Directions, and where their peers stand.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

const COLUMNS: [Column; 3] = [NAME, column("Pod-Selector", "string", "Pods it is about."), AGE];

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, obj: &mut Value) {
        let Some(spec) = object_or_new(obj, "spec") else { return };
        fill(spec, &[("podSelector", Fill::Empty)]);
        for (direction, _) in DIRECTIONS {
            for rule in each(spec, direction) {
                for port in each(rule, "ports") {
                    fill(port, &[("protocol", Fill::Text("TCP"))]);
                }
            }
        }
        if items(spec, &["policyTypes"]).is_empty() {
            let both = !items(spec, &["egress"]).is_empty();
            spec["policyTypes"] = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validate(obj, &[])
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let known: Vec<String> = cidrs(old).into_iter().map(|at| at.text().to_owned()).collect();
        validate(obj, &known.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        cidrs(obj).iter().flat_map(ip::cidr_warnings).collect()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let selector = format_label_selector(obj.pointer("/spec/podSelector"));
        vec![name(obj), selector.into(), age(obj, now)]
    }
}

/// All subnets and what is taken out of them.
fn cidrs(obj: &Value) -> Vec<At<'_>> {
    let spec = At::root(obj).get("spec");
    let mut found = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for rule in spec.get(direction).items() {
            for block in rule.get(peers).items().filter_map(|peer| peer.field("ipBlock")) {
                found.push(block.get("cidr"));
                found.extend(block.get("except").items());
            }
        }
    }
    found
}

fn validate(obj: &Value, known: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    label_selector(&spec.get("podSelector"), &mut errors);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.get(direction).items() {
            for at in rule.get("ports").items() {
                port(&at, &mut errors);
            }
            for at in rule.get(peers).items() {
                peer(&at, known, &mut errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > POLICY_TYPES.len() {
        errors.push(types.invalid("may not specify more than two policyTypes"));
        return errors;
    }
    for policy_type in types.items() {
        if !POLICY_TYPES.contains(&policy_type.text()) {
            errors.push(policy_type.not_supported_of(&POLICY_TYPES));
        }
    }
    errors
}

fn port(at: &At, errors: &mut ErrorList) {
    at.get("protocol").check_optional_enum_of(&PORT_PROTOCOLS, errors);
    let (port, end) = (at.get("port"), at.field("endPort"));
    match (port.value, end) {
        (Value::Null, Some(end)) => {
            errors.push(end.invalid("may not be specified when `port` is not specified"))
        }
        (Value::Null, None) => {}
        (Value::String(_), end) => {
            errors.extend(end.map(|end| end.invalid("may not be specified when `port` is non-numeric")));
            port.check(port_name, errors);
        }
        (_, end) => {
            port_number(&port, errors);
            let Some(end) = end else { return };
            if end.int() < port.int() {
                let detail = "must be greater than or equal to `port`";
                errors.push(Error::invalid(&end.path, port.int(), detail));
            }
            port_number(&end, errors);
        }
    }
}

fn peer(peer: &At, known: &[&str], errors: &mut ErrorList) {
    let (pods, namespaces, block) =
        (peer.field("podSelector"), peer.field("namespaceSelector"), peer.field("ipBlock"));
    for selector in pods.iter().chain(&namespaces) {
        label_selector(selector, errors);
    }
    if let Some(block) = &block {
        ip_block(block, known, errors);
    }
    match (pods.is_some() || namespaces.is_some(), block.is_some()) {
        (false, false) => errors.push(peer.required("must specify a peer")),
        (true, true) => errors.push(peer.forbidden("may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(block: &At, known: &[&str], errors: &mut ErrorList) {
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    ip::cidr(&cidr.path, cidr.text(), known, errors);
    let Some(whole) = ip::Subnet::parse(cidr.text()) else { return };
    for except in block.get("except").items() {
        ip::cidr(&except.path, except.text(), known, errors);
        let Some(part) = ip::Subnet::parse(except.text()) else { continue };
        if !whole.contains(part.address) || whole.length >= part.length {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn policy(spec: Value) -> Value {
        let mut obj = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        NetworkPolicy.default(&mut obj);
        obj
    }

    #[test]
    fn policies_are_checked_rule_by_rule() {
        let port = |port: Value| json!({"ingress": [{"ports": [port]}]});
        let from = |peer: Value| json!({"ingress": [{"from": [peer]}]});
        let block = |cidr: &str, except: &[&str]| from(json!({"ipBlock": {"cidr": cidr, "except": except}}));
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &[]),
            (port(json!({"port": 80, "endPort": 90})), &[]),
            (
                port(json!({"port": 80, "endPort": 79})),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                ],
            ),
            (
                port(json!({"port": "web", "endPort": 79})),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
                ],
            ),
            (
                port(json!({"endPort": 79})),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified",
                ],
            ),
            (
                port(json!({"port": 0})),
                &["spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535"],
            ),
            (
                port(json!({"protocol": "ICMP"})),
                &[
                    "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                ],
            ),
            (from(json!({})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]),
            (
                from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
                &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
            ),
            (block("10.0.0.0/8", &["10.1.0.0/16"]), &[]),
            (
                block("10.0.0.0/8", &["10.0.0.0/8", "11.0.0.0/16"]),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset",
                    "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset",
                ],
            ),
            (
                block("x", &[]),
                &["spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value"],
            ),
            (
                json!({"policyTypes": ["x"]}),
                &["spec.policyTypes[0]: Unsupported value: \"x\": supported values: \"Ingress\", \"Egress\""],
            ),
            (json!({"policyTypes": ["Egress", "Egress", "Egress"]}), &["spec.policyTypes: Invalid value"]),
        ];
        for (spec, expect) in table {
            expect_errors(&NetworkPolicy.validate(&policy(spec)), expect);
        }
    }

    #[test]
    fn subnets_of_old_may_stay() {
        let obj = policy(json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}));
        assert_eq!(NetworkPolicy.validate(&obj).len(), 1);
        assert_eq!(NetworkPolicy.validate_update(&obj, &obj).len(), 0);
        assert_eq!(
            NetworkPolicy.warnings(&obj, None),
            [
                "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
            ]
        );
    }

    #[test]
    fn directions_follow_from_the_rules() {
        assert_eq!(policy(json!({}))["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy(json!({"egress": [{}]}))["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }
}
