//! What a plugin's result says that concerns us: the pod's addresses.

use std::net::IpAddr;

use apimachinery::Value;
use ipnet::IpNet;

/// The addresses in the result's order. Before 0.3.0 there was one of each family, elsewhere.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let listed = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = listed.iter().map(|ip| &ip["address"]).chain([&result["ip4"]["ip"], &result["ip6"]["ip"]]);
    texts.filter_map(|text| Some(text.as_str()?.parse::<IpNet>().ok()?.addr())).collect()
}
