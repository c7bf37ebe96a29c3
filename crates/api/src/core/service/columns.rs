//! The table row of a Service (follows `printService`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::service_type;
use crate::columns::{AGE, NAME, NONE, UNKNOWN, age, column, count, format_labels, items, name, wide};
use crate::strategy::Column;

pub const COLUMNS: [Column; 7] = [
    NAME,
    column("Type", "string", "How the Service is reached."),
    column("Cluster-IP", "string", "Its address inside the cluster."),
    column("External-IP", "string", "Its addresses outside the cluster."),
    column("Port(s)", "string", "Its ports, with their node ports."),
    AGE,
    wide("Selector", "string", "Labels of the pods behind it."),
];

pub fn row(obj: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = items(obj, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or(NONE);
    vec![
        name(obj),
        service_type(obj).into(),
        cluster_ip.into(),
        external_ip(obj).into(),
        ports(obj).into(),
        age(obj, now),
        format_labels(obj.pointer("/spec/selector")).into(),
    ]
}

fn external_ip(obj: &Value) -> String {
    let external: Vec<&str> = items(obj, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match service_type(obj) {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let balancer = load_balancer(obj);
            let all: Vec<&str> =
                Some(balancer.as_str()).filter(|ip| !ip.is_empty()).into_iter().chain(external).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => str_at(obj, &["spec", "externalName"]).to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

fn load_balancer(obj: &Value) -> String {
    let addresses: BTreeSet<&str> = items(obj, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|ingress| match str_at(ingress, &["ip"]) {
            "" => str_at(ingress, &["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn ports(obj: &Value) -> String {
    let pieces: Vec<String> = items(obj, &["spec", "ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (count(port, &["port"]), str_at(port, &["protocol"]));
            match count(port, &["nodePort"]) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if pieces.is_empty() { NONE.to_owned() } else { pieces.join(",") }
}
