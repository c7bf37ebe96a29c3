//! Warnings about containers, and about annotations of their security that fields have replaced.

use std::collections::BTreeMap;

use apimachinery::field::Path;

use super::{BYTES, fractional};
use crate::core::pod::apparmor;
use crate::core::pod::validation::all_containers;
use crate::core::pod::validation::annotations::SECCOMP_CONTAINER;
use crate::validation::{At, same};

pub fn all(spec: &At, annotations: &At, warnings: &mut Vec<String>) {
    for container in all_containers(spec) {
        let security = container.get("securityContext");
        let name = container.get("name").text();
        if !security.get("seccompProfile").is_set() {
            seccomp(annotations, &format!("{SECCOMP_CONTAINER}{name}"), warnings);
        }
        if !security.get("appArmorProfile").is_set() {
            app_armor(annotations, name, &spec.at(&["securityContext", "appArmorProfile"]), warnings);
        }
        for resource in BYTES {
            for field in ["limits", "requests"] {
                fractional(&container.at(&["resources", field]), resource, warnings);
            }
        }
        hidden_variables(&container, warnings);
    }
    let ports = || all_containers(spec).flat_map(|container| container.get("ports").items());
    let mut seen = BTreeMap::new();
    ports().for_each(|port| overlapping_port(&port, &mut seen, warnings));
    let mut names = BTreeMap::new();
    ports().for_each(|port| repeated_name(&port, &mut names, warnings));
}

/// An annotation that no runtime heeds any more.
pub fn seccomp(annotations: &At, key: &str, warnings: &mut Vec<String>) {
    if annotations.get(key).is_set() {
        let path = annotations.path.key(key);
        warnings.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
    }
}

/// Only templates earn this one, unless the pod's own profile is the same.
fn app_armor(annotations: &At, container: &str, of_pod: &At, warnings: &mut Vec<String>) {
    let key = apparmor::annotation_key(container);
    let annotation = annotations.get(&key);
    let is_template = annotations.path.as_str() != "metadata.annotations";
    let says_as_much = || apparmor::field(annotation.text()).is_some_and(|field| same(of_pod.value, &field));
    if is_template && annotation.is_set() && !says_as_much() {
        warnings.push(apparmor::deprecation(annotations, &key));
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

/// Where a port and protocol were seen, with their host's address and port.
type Ports<'a> = BTreeMap<(i64, &'a str), Vec<(Path, &'a str, i64)>>;

fn overlapping_port<'a>(port: &At<'a>, all: &mut Ports<'a>, warnings: &mut Vec<String>) {
    let (host_ip, host_port) = (port.get("hostIP").text(), port.get("hostPort").int());
    let (number, protocol) = (port.get("containerPort").int(), port.get("protocol").text());
    if !host_ip.is_empty() && host_port == 0 {
        let name = port.get("name").text();
        warnings.push(format!(
            "{}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{host_ip}}}",
            port.path
        ));
    }
    let others = all.entry((number, protocol)).or_default();
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

fn repeated_name<'a>(port: &At<'a>, names: &mut BTreeMap<&'a str, Path>, warnings: &mut Vec<String>) {
    let name = port.get("name").text();
    if name.is_empty() {
        return;
    }
    match names.get(name) {
        Some(first) => warnings.push(format!(
            "{}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}",
            port.path
        )),
        None => {
            names.insert(name, port.path.clone());
        }
    }
}
