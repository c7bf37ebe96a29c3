//! IP families of a Service on a cluster with one family (follows `initIPFamilyFields`): what the user did not say
//! follows from the addresses, from before, or is IPv4.

use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::{CLUSTER_IP_NONE, service_type};
use crate::columns::items;
use crate::validation::ip;

const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";
const SINGLE_STACK: &str = "SingleStack";
const REQUIRE_DUAL_STACK: &str = "RequireDualStack";

pub fn init(obj: &mut Value, old: Option<&Value>) {
    if service_type(obj) == "ExternalName" || !obj["spec"].is_object() {
        return;
    }
    let headless = str_at(obj, &["spec", "clusterIP"]) == CLUSTER_IP_NONE;
    let without_selector =
        obj.pointer("/spec/selector").and_then(Value::as_object).is_none_or(|s| s.is_empty());
    let before = |field: &str| old.and_then(|old| old.pointer(&format!("/spec/{field}")));
    if str_at(obj, &["spec", "ipFamilyPolicy"]).is_empty() {
        let policy = if headless && without_selector { REQUIRE_DUAL_STACK } else { SINGLE_STACK };
        obj["spec"]["ipFamilyPolicy"] = before("ipFamilyPolicy").cloned().unwrap_or_else(|| policy.into());
    }
    let mut families = given(obj);
    if families.is_empty() && !headless {
        families = implied_by_addresses(obj);
    }
    if families.is_empty() {
        let old_families = before("ipFamilies").and_then(Value::as_array);
        let old_families = old_families.into_iter().flatten().filter_map(Value::as_str);
        families = old_families.map(str::to_owned).collect();
    }
    if families.is_empty() {
        families.push(IPV4.to_owned());
    }
    let dual = str_at(obj, &["spec", "ipFamilyPolicy"]) != SINGLE_STACK;
    // Endpoints of a headless Service without selector are somebody else's, in whatever family.
    if headless && without_selector && dual && families.len() == 1 {
        families.push(if families[0] == IPV4 { IPV6 } else { IPV4 }.to_owned());
    }
    obj["spec"]["ipFamilies"] = json!(families);
}

fn given(obj: &Value) -> Vec<String> {
    items(obj, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn implied_by_addresses(obj: &Value) -> Vec<String> {
    let ips = items(obj, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    ips.map(|text| if ip::is_ipv6(text) { IPV6 } else { IPV4 }.to_owned()).collect()
}
