//! An IPAddress for every address that a Service holds, and none for others. Follows the `ipallocator` that makes them
//! and the `repairip` controller that mends them; people's own IPAddress objects are not touched.

use std::net::IpAddr;

use api::resource;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::{Change, Duty, Write, stored, stored_one};
use crate::core::Core;
use crate::service_allocation::addresses_of;

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

pub const DUTY: Duty = Duty { watched: &[resource::SERVICES, resource::IP_ADDRESSES], all, after };

fn all(core: &Core) -> Vec<Write> {
    let of_services = stored(core, resource::SERVICES).into_iter().flat_map(|service| {
        let held = addresses_of(&service);
        held.into_iter().filter_map(move |address| settle(core, address, &wanted(address, &service)))
    });
    let unheld =
        stored(core, resource::IP_ADDRESSES).into_iter().filter_map(|object| of_address(core, object));
    of_services.chain(unheld).collect()
}

fn after(core: &Core, change: &Change) -> Vec<Write> {
    let object = change.object();
    if str_at(object, &["kind"]) == resource::IP_ADDRESSES.kind {
        return of_address(core, object.clone()).into_iter().collect();
    }
    let mut concerned: Vec<IpAddr> = change.now.iter().chain(&change.before).flat_map(addresses_of).collect();
    concerned.sort_unstable();
    concerned.dedup();
    let writes = concerned.into_iter().filter_map(|address| settle(core, address, &wanted(address, object)));
    writes.collect()
}

/// One that has gone, changed or was found.
fn of_address(core: &Core, object: Value) -> Option<Write> {
    let address = str_at(&object, &["metadata", "name"]).parse().ok()?;
    is_managed(&object).then(|| settle(core, address, &object)).flatten()
}

/// Whether the object of this address must change, given one that names the Service in question.
fn settle(core: &Core, address: IpAddr, names_service: &Value) -> Option<Write> {
    let parent = &names_service["spec"]["parentRef"];
    let (namespace, name) = (str_at(parent, &["namespace"]), str_at(parent, &["name"]));
    let service = stored_one(core, resource::SERVICES, namespace, name);
    let holder = service.filter(|service| addresses_of(service).contains(&address));
    let found = stored_one(core, resource::IP_ADDRESSES, "", &address.to_string());
    decide(address, parent, holder.as_ref(), found)
}

fn decide(address: IpAddr, parent: &Value, holder: Option<&Value>, found: Option<Value>) -> Option<Write> {
    match (holder, found) {
        (None, None) => None,
        (None, Some(found)) => {
            let is_left_over = is_managed(&found) && found["spec"]["parentRef"] == *parent;
            is_left_over.then_some(Write::Delete(resource::IP_ADDRESSES, found))
        }
        (Some(service), None) => Some(Write::Create(resource::IP_ADDRESSES, wanted(address, service))),
        (Some(service), Some(found)) => {
            let wanted = wanted(address, service);
            let labels =
                |object: &Value| [FAMILY, MANAGED_BY].map(|l| object["metadata"]["labels"][l].clone());
            // What it refers to cannot be changed: it is removed, upon which it is made anew.
            if found["spec"] != wanted["spec"] {
                return Some(Write::Delete(resource::IP_ADDRESSES, found));
            }
            let differs = labels(&found) != labels(&wanted);
            differs.then(|| {
                let mut mended = found;
                mended["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
                Write::Update(resource::IP_ADDRESSES, mended)
            })
        }
    }
}

fn is_managed(object: &Value) -> bool {
    str_at(object, &["metadata", "labels", MANAGED_BY]) == ALLOCATOR
}

pub fn wanted(address: IpAddr, service: &Value) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address.to_string(), "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services",
            "namespace": str_at(service, &["metadata", "namespace"]),
            "name": str_at(service, &["metadata", "name"])}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20));

    fn service(name: &str) -> Value {
        json!({"metadata": {"namespace": "n", "name": name}, "spec": {"clusterIP": "10.96.0.20"}})
    }

    fn check(holder: Option<&Value>, found: Option<&Value>, expect: Option<Write>) {
        let asked = wanted(ADDRESS, &service("a"));
        assert_eq!(decide(ADDRESS, &asked["spec"]["parentRef"], holder, found.cloned()), expect);
    }

    #[test]
    fn addresses_follow_the_services_that_hold_them() {
        let (a, b) = (service("a"), service("b"));
        let (of_a, of_b) = (wanted(ADDRESS, &a), wanted(ADDRESS, &b));
        let r = resource::IP_ADDRESSES;
        check(Some(&a), None, Some(Write::Create(r, of_a.clone())));
        check(Some(&a), Some(&of_a), None);
        check(Some(&a), Some(&of_b), Some(Write::Delete(r, of_b.clone())));
        check(None, None, None);
        check(None, Some(&of_a), Some(Write::Delete(r, of_a.clone())));
        check(None, Some(&of_b), None);
        let mut bare = of_a.clone();
        bare["metadata"]["labels"] = json!({});
        check(Some(&a), Some(&bare), Some(Write::Update(r, of_a)));
        check(None, Some(&bare), None);
    }
}
