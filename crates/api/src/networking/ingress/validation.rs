//! What an Ingress may hold (follows `ValidateIngressCreate`, `ValidateIngressUpdate`, `ValidateIngressStatusUpdate`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, names};

use super::CLASS_ANNOTATION;
use crate::columns::items;
use crate::validation::domain::wildcard_subdomain;
use crate::validation::{At, dns1123_label, dns1123_subdomain, ip, port_name, port_number};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const INVALID_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const INVALID_SUFFIXES: [&str; 2] = ["/..", "/."];
const NOT_AN_IP: &str = "must be a DNS name, not an IP address";

/// What an older object had wrong and may keep.
#[derive(Clone, Copy, Default)]
struct Lenience {
    secret_names: bool,
    wildcard_rules: bool,
}

pub fn validate_create(obj: &Value) -> ErrorList {
    let root = At::root(obj);
    let mut errors = ErrorList::new();
    spec(&root.get("spec"), Lenience::default(), &mut errors);
    let annotation = root.at(&["metadata", "annotations"]).get(CLASS_ANNOTATION);
    let class = root.at(&["spec", "ingressClassName"]);
    if annotation.is_set() && class.is_set() && annotation.text() != class.text() {
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        errors.push(annotation.under(&path).invalid("must match `ingressClassName` when both are specified"));
    }
    errors
}

pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    spec(&At::root(obj).get("spec"), lenience(old), &mut errors);
    errors
}

fn lenience(old: &Value) -> Lenience {
    let old = At::root(old).get("spec");
    let bad_secret = |tls: At| !names::is_dns1123_subdomain(tls.get("secretName").text()).is_empty();
    let bad_rule = |rule: At| {
        let mut errors = ErrorList::new();
        rule_value(&rule, &mut errors);
        rule.get("host").text().contains('*') && !errors.is_empty()
    };
    Lenience {
        secret_names: old.get("tls").items().any(|tls| !tls.get("secretName").is_empty() && bad_secret(tls)),
        wildcard_rules: old.get("rules").items().any(bad_rule),
    }
}

fn spec(spec: &At, lenience: Lenience, errors: &mut ErrorList) {
    let (backend_default, rules) = (spec.field("defaultBackend"), spec.get("rules"));
    if rules.is_empty() && backend_default.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&spec.path, rules.value.clone(), detail));
    }
    if let Some(at) = backend_default {
        backend(&at, errors);
    }
    for rule in rules.items() {
        let is_wildcard = host(&rule.get("host"), errors);
        if !is_wildcard || !lenience.wildcard_rules {
            rule_value(&rule, errors);
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            let is_wildcard = host.text().contains('*');
            host.check(if is_wildcard { wildcard_subdomain } else { names::is_dns1123_subdomain }, errors);
        }
        let secret = tls.get("secretName");
        if !secret.is_empty() && !lenience.secret_names {
            dns1123_subdomain(&secret, errors);
        }
    }
    if let Some(class) = spec.field("ingressClassName") {
        dns1123_subdomain(&class, errors);
    }
}

/// Whether the host is a wildcard.
fn host(host: &At, errors: &mut ErrorList) -> bool {
    if host.is_empty() {
        return false;
    }
    if ip::is_ip(host.text()) {
        errors.push(host.invalid(NOT_AN_IP));
    }
    let is_wildcard = host.text().contains('*');
    host.check(if is_wildcard { wildcard_subdomain } else { names::is_dns1123_subdomain }, errors);
    is_wildcard
}

fn rule_value(rule: &At, errors: &mut ErrorList) {
    let Some(http) = rule.field("http") else { return };
    let paths = http.get("paths");
    if paths.is_empty() {
        errors.push(paths.required(""));
    }
    for path in paths.items() {
        http_path(&path, errors);
    }
}

fn http_path(at: &At, errors: &mut ErrorList) {
    let (path, path_type) = (at.get("path"), at.get("pathType"));
    let complain = |detail: String| Error::invalid(&path.path, path.text(), detail);
    let is_absolute = path.text().starts_with('/');
    match path_type.text() {
        _ if !path_type.is_set() => {
            errors.push(path_type.required("pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !is_absolute {
                errors.push(complain("must be an absolute path".to_owned()));
            }
            let found = INVALID_SEQUENCES.iter().filter(|s| path.text().contains(**s));
            errors.extend(found.map(|s| complain(format!("must not contain '{s}'"))));
            let found = INVALID_SUFFIXES.iter().filter(|s| path.text().ends_with(**s));
            errors.extend(found.map(|s| complain(format!("cannot end with '{s}'"))));
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !is_absolute {
                errors.push(complain("must be an absolute path".to_owned()));
            }
        }
        _ => errors.push(path_type.not_supported(&PATH_TYPES)),
    }
    backend(&at.get("backend"), errors);
}

fn backend(at: &At, errors: &mut ErrorList) {
    match (at.field("resource"), at.field("service")) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(&at.path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => local_reference(&resource, errors),
        (None, Some(service)) => service_backend(at, &service, errors),
        (None, None) => errors.push(Error::invalid(&at.path, "", "resource or service backend is required")),
    }
}

fn service_backend(backend: &At, service: &At, errors: &mut ErrorList) {
    let name = service.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        dns1123_label(&name, errors);
    }
    let (name, number) = (service.at(&["port", "name"]), service.at(&["port", "number"]));
    match (!name.is_empty(), number.int() != 0) {
        (true, true) => {
            errors.push(Error::invalid(&backend.path, "", "cannot set both port name & port number"));
        }
        (true, false) => name.check(port_name, errors),
        (false, true) => port_number(&number, errors),
        (false, false) => errors.push(backend.required("port name or number is required")),
    }
}

/// An object by group, kind and name (follows `validateIngressTypedLocalObjectReference`).
pub fn local_reference(reference: &At, errors: &mut ErrorList) {
    if let Some(group) = reference.field("apiGroup") {
        dns1123_subdomain(&group, errors);
    }
    for field in ["kind", "name"] {
        path_segment(&reference.get(field), errors);
    }
}

fn path_segment(at: &At, errors: &mut ErrorList) {
    if at.is_empty() {
        errors.push(at.required(""));
    } else {
        at.check(names::is_path_segment_name, errors);
    }
}

pub fn validate_status(obj: &Value, old: &Value) -> ErrorList {
    const INGRESS: [&str; 3] = ["status", "loadBalancer", "ingress"];
    let known: Vec<&str> = items(old, &INGRESS).iter().filter_map(|i| i.get("ip")?.as_str()).collect();
    let mut errors = ErrorList::new();
    for ingress in At::root(obj).at(&INGRESS).items() {
        if !ingress.get("ip").is_empty() {
            ip::legacy(&ingress.get("ip"), &known, &mut errors);
        }
        let hostname = ingress.get("hostname");
        if !hostname.is_empty() {
            dns1123_subdomain(&hostname, &mut errors);
            if ip::is_ip(hostname.text()) {
                errors.push(hostname.invalid(NOT_AN_IP));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn ingresses_are_checked_field_by_field() {
        let service = |port: Value| json!({"service": {"name": "s", "port": port}});
        let rule = |path: Value| {
            let mut path = path;
            path["backend"] = service(json!({"number": 80}));
            json!({"rules": [{"http": {"paths": [path]}}]})
        };
        let default = |backend: Value| json!({"defaultBackend": backend});
        const PATH: &str = "spec.rules[0].http.paths[0]";
        let path_error = |rest: &str| format!("{PATH}.{rest}");
        let table: Vec<(Value, Vec<String>)> = vec![
            (default(service(json!({"number": 80}))), vec![]),
            (
                json!({}),
                vec![
                    "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified".into(),
                ],
            ),
            (
                default(service(json!({}))),
                vec!["spec.defaultBackend: Required value: port name or number is required".into()],
            ),
            (
                default(service(json!({"name": "web", "number": 1}))),
                vec![
                    "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"
                        .into(),
                ],
            ),
            (
                default(json!({})),
                vec!["spec.defaultBackend: Invalid value: \"\": resource or service backend is".into()],
            ),
            (
                default(json!({"resource": {"kind": "K", "name": "a/b"}})),
                vec!["spec.defaultBackend.resource.name: Invalid value: \"a/b\": may not contain '/'".into()],
            ),
            (rule(json!({"path": "/", "pathType": "Prefix"})), vec![]),
            (
                rule(json!({"path": "/"})),
                vec![path_error("pathType: Required value: pathType must be specified")],
            ),
            (
                rule(json!({"path": "/", "pathType": "x"})),
                vec![path_error("pathType: Unsupported value: \"x\": supported values: \"Exact\"")],
            ),
            (
                rule(json!({"path": "a//b/.", "pathType": "Exact"})),
                vec![
                    path_error("path: Invalid value: \"a//b/.\": must be an absolute path"),
                    path_error("path: Invalid value: \"a//b/.\": must not contain '//'"),
                    path_error("path: Invalid value: \"a//b/.\": cannot end with '/.'"),
                ],
            ),
            (
                json!({"rules": [{"host": "10.0.0.1"}, {"host": "a.*"}]}),
                vec![
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"
                        .into(),
                    "spec.rules[1].host: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must".into(),
                ],
            ),
            (
                json!({"rules": [{}], "tls": [{"hosts": ["*.a.b", "A"], "secretName": "S"}]}),
                vec![
                    "spec.tls[0].hosts[1]: Invalid value: \"A\"".into(),
                    "spec.tls[0].secretName: Invalid value: \"S\"".into(),
                ],
            ),
        ];
        for (spec, expect) in table {
            let obj = json!({"spec": spec});
            let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
            expect_errors(&validate_create(&obj), &expect);
        }
    }

    #[test]
    fn what_was_let_in_may_stay() {
        let obj = json!({"spec": {"rules": [{"host": "*.a", "http": {}}], "tls": [{"secretName": "S"}]}});
        assert_eq!(validate_create(&obj).len(), 2);
        expect_errors(&validate_update(&obj, &obj), &[]);
    }

    #[test]
    fn addresses_are_addresses_and_names_are_names() {
        let status = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
        let check = |ingress: Value, expect: &[&str]| {
            expect_errors(&validate_status(&status(ingress), &json!({})), expect);
        };
        check(json!({"ip": "10.0.0.1", "hostname": "a.b"}), &[]);
        check(
            json!({"ip": "x"}),
            &["status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP"],
        );
        check(
            json!({"hostname": "10.0.0.1"}),
            &["status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name"],
        );
    }
}
