//! The ranges out of which Services get addresses: those of all ServiceCIDRs that are ready and not being deleted. Read
//! whenever an address is wanted, so that nothing is given out of a range that is known to end. Follows the
//! `MetaAllocator` of upstream's `ipallocator`.

use api::networking::servicecidr::DEFAULT_NAME;
use api::resource;
use api::view::networking::ServiceCIDR;
use store::Store;

use crate::config::Cidr;
use crate::upkeep;

/// The default ranges first, then by name. `configured` count until the server has made an object of them.
pub fn ready(store: &Store, configured: Vec<Cidr>) -> Vec<Cidr> {
    let page = store.range(upkeep::storage(resource::SERVICE_CIDRS), None, None, None, 0, &|_| true);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    let stored = entries.iter().filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect();
    of(stored, configured)
}

fn of(mut stored: Vec<ServiceCIDR>, configured: Vec<Cidr>) -> Vec<Cidr> {
    let is_default = |range: &ServiceCIDR| range.metadata.name == DEFAULT_NAME;
    let mut ranges = if stored.iter().any(is_default) { Vec::new() } else { configured };
    // A stable sort: the rest stays in the store's order.
    stored.sort_by_key(|range| !is_default(range));
    let giving = stored.iter().filter(|range| range.gives_addresses());
    for cidr in giving.flat_map(|range| &range.spec.cidrs).filter_map(|cidr| cidr.parse().ok()) {
        if !ranges.contains(&cidr) {
            ranges.push(cidr);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn range(name: &str, cidr: &str, is_ready: bool, is_ending: bool) -> ServiceCIDR {
        let mut object = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]},
            "status": {"conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}});
        if is_ending {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        apimachinery::from_value(object).expect("a range")
    }

    fn check(stored: Vec<ServiceCIDR>, expect: &[&str]) {
        let configured = vec!["10.0.0.0/24".parse().expect("a range")];
        let ranges: Vec<String> = of(stored, configured).iter().map(Cidr::to_string).collect();
        assert_eq!(ranges, expect);
    }

    #[test]
    fn ranges_that_are_ready_and_stay_give_addresses_the_default_first() {
        let default = || range(DEFAULT_NAME, "10.0.0.0/24", true, false);
        check(vec![], &["10.0.0.0/24"]);
        check(vec![range("a", "10.1.0.0/24", true, false)], &["10.0.0.0/24", "10.1.0.0/24"]);
        check(vec![range("a", "10.1.0.0/24", true, false), default()], &["10.0.0.0/24", "10.1.0.0/24"]);
        check(vec![range("a", "10.1.0.0/24", false, false), default()], &["10.0.0.0/24"]);
        check(vec![range("a", "10.1.0.0/24", true, true), default()], &["10.0.0.0/24"]);
        check(vec![default(), range("same", "10.0.0.0/24", true, false)], &["10.0.0.0/24"]);
        let ending = range(DEFAULT_NAME, "10.0.0.0/24", true, true);
        check(vec![ending, range("same", "10.0.0.0/24", true, false)], &["10.0.0.0/24"]);
        check(vec![range(DEFAULT_NAME, "10.0.0.0/24", true, true)], &[]);
    }
}
