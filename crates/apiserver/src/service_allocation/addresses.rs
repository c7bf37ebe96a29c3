//! Which addresses a Service gets, and of which families: one, or on a dual-stack cluster both, the primary family's
//! first. A family may have several ranges. Follows `allocClusterIPs`.

use std::collections::HashMap;
use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::families::{self, IPV4, IPV6, texts};
use crate::config::Cidr;

/// The lowest addresses are given out last, so that whoever asks for one by number finds it free (KEP-3070).
const STATIC_BAND_MIN: u128 = 16;
const STATIC_BAND_MAX: u128 = 256;
const STATIC_BAND_FRACTION: u128 = 16;

/// Where Services' addresses come from, and which are taken.
#[derive(Debug)]
pub struct Addresses {
    /// One range, or one per family: those that the cluster was made with, which say what families it has.
    configured: Vec<Cidr>,
    /// Those that give addresses, of which the first that has a free one does.
    ranges: Vec<Cidr>,
    /// Where the search for a free one goes on, by range.
    next: HashMap<Cidr, u128>,
    /// How many Services hold each: during an update the old and the new state both count.
    held: HashMap<IpAddr, u32>,
}

impl Addresses {
    pub fn new(cidrs: &[Cidr]) -> Addresses {
        let (configured, ranges) = (cidrs.to_vec(), cidrs.to_vec());
        Addresses { configured, ranges, next: HashMap::new(), held: HashMap::new() }
    }

    pub fn configured(&self) -> &[Cidr] {
        &self.configured
    }

    pub fn set_ranges(&mut self, ranges: Vec<Cidr>) {
        self.next.retain(|range, _| ranges.contains(range));
        self.ranges = ranges;
    }

    pub fn clear(&mut self) {
        self.held.clear();
    }

    pub fn take(&mut self, address: IpAddr) {
        *self.held.entry(address).or_default() += 1;
    }

    /// Counts an address, given as text, that no Service is known to hold.
    pub fn take_if_free(&mut self, text: &str) {
        if let Ok(address) = text.parse() {
            self.held.entry(address).or_insert(1);
        }
    }

    pub fn give_back(&mut self, address: IpAddr) {
        super::give_back_one(&mut self.held, address);
    }

    /// Each range, with how many of its addresses are held and how many are free.
    pub fn used(&self) -> Vec<(String, f64, f64)> {
        let of_range = |range: &Cidr| {
            let held = self.held.keys().filter(|address| range.contains(**address)).count() as f64;
            (range.to_string(), held, range.usable() as f64 - held)
        };
        self.ranges.iter().map(of_range).collect()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Fills in families and addresses; `held` are the Service's own.
    pub fn settle(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        held: &[IpAddr],
        errors: &mut ErrorList,
    ) {
        if str_at(service, &["spec", "type"]) == "ExternalName" {
            return;
        }
        let configured: Vec<&str> =
            self.configured.iter().map(|range| if range.is_ipv4() { IPV4 } else { IPV6 }).collect();
        let refusals = families::settle(service, old, &configured);
        if !refusals.is_empty() {
            errors.extend(refusals);
            return;
        }
        if str_at(service, &["spec", "clusterIP"]) == "None" {
            return;
        }
        let families = texts(service, "ipFamilies");
        let asked = asked(service);
        let mut settled = Vec::new();
        for place in 0..families.len().max(asked.len()).max(1) {
            match (asked.get(place), self.family(families.get(place))) {
                (Some(text), _) => {
                    // What is no address at all is for validation to refuse.
                    if let Ok(address) = text.parse()
                        && !held.contains(&address)
                    {
                        errors.extend(self.refuse(address, &asked));
                    }
                    settled.push(text.clone());
                }
                // The cluster had the family when the Service was made.
                (None, None) => {}
                (None, Some(is_ipv4)) => match self.free_address(is_ipv4) {
                    Some(address) => settled.push(address.to_string()),
                    None => {
                        let path = Path::new("spec").child("clusterIPs");
                        errors.push(Error::internal(&path, "failed to allocate a serviceIP: range is full"));
                    }
                },
            }
        }
        if let Some(first) = settled.first() {
            service["spec"]["clusterIP"] = first.as_str().into();
            service["spec"]["clusterIPs"] = json!(settled);
        }
    }

    /// Whether it is IPv4 of which an address is wanted; none of a family that the cluster has not.
    fn family(&self, named: Option<&String>) -> Option<bool> {
        let mut families = self.configured.iter().map(Cidr::is_ipv4);
        families.find(|is_ipv4| named.is_none_or(|family| *is_ipv4 == (family == "IPv4")))
    }

    fn refuse(&self, address: IpAddr, asked: &[String]) -> Option<Error> {
        let why = if !self.ranges.iter().any(|range| range.contains(address)) {
            "the provided network does not match the current range"
        } else if self.held.contains_key(&address) {
            "provided IP is already allocated"
        } else {
            return None;
        };
        let path = Path::new("spec").child("clusterIPs");
        Some(Error::invalid(&path, json!(asked), format!("failed to allocate IP {address}: {why}")))
    }

    fn free_address(&mut self, is_ipv4: bool) -> Option<IpAddr> {
        let ranges = self.ranges.iter().filter(|range| range.is_ipv4() == is_ipv4);
        let (range, index, address) = ranges.copied().find_map(|range| self.free_within(range))?;
        let band = static_band(&range);
        let next = if index + 1 < range.usable() { (index + 1).max(band) } else { band };
        self.next.insert(range, next);
        Some(address)
    }

    /// The range, the address and its place there.
    fn free_within(&self, range: Cidr) -> Option<(Cidr, u128, IpAddr)> {
        let (usable, band) = (range.usable(), static_band(&range));
        let next = self.next.get(&range).copied().unwrap_or(band);
        let dynamic = (next..usable).chain(band..next).chain(0..band);
        dynamic
            .filter_map(|index| Some((range, index, range.nth(index)?)))
            .find(|(_, _, address)| !self.held.contains_key(address))
    }
}

fn static_band(cidr: &Cidr) -> u128 {
    let band = (cidr.usable() / STATIC_BAND_FRACTION).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX);
    if band < cidr.usable() { band } else { 0 }
}

/// The addresses that the Service names, empty ones apart.
fn asked(service: &Value) -> Vec<String> {
    let listed = texts(service, "clusterIPs");
    let single = str_at(service, &["spec", "clusterIP"]);
    if !listed.is_empty() || single.is_empty() { listed } else { vec![single.to_owned()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(cidrs: &[&str]) -> Addresses {
        let cidrs: Vec<Cidr> = cidrs.iter().map(|cidr| cidr.parse().expect("a range")).collect();
        Addresses::new(&cidrs)
    }

    fn settled(cidrs: &[&str], spec: Value, old: Option<&Value>) -> Value {
        let mut service = json!({"spec": spec});
        let mut errors = ErrorList::new();
        addresses(cidrs).settle(&mut service, old, &[], &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        service["spec"].take()
    }

    const DUAL: [&str; 2] = ["10.0.0.0/24", "fd00::/112"];

    #[test]
    fn a_dual_stack_cluster_gives_an_address_of_each_family_that_is_wanted() {
        let spec =
            |policy: &str, families: &[&str]| json!({"ipFamilyPolicy": policy, "ipFamilies": families});
        for (given, families, ips) in [
            (spec("SingleStack", &["IPv4"]), json!(["IPv4"]), json!(["10.0.0.17"])),
            (spec("SingleStack", &["IPv6"]), json!(["IPv6"]), json!(["fd00::101"])),
            (spec("PreferDualStack", &["IPv4"]), json!(["IPv4", "IPv6"]), json!(["10.0.0.17", "fd00::101"])),
            (
                spec("RequireDualStack", &["IPv6", "IPv4"]),
                json!(["IPv6", "IPv4"]),
                json!(["fd00::101", "10.0.0.17"]),
            ),
        ] {
            let spec = settled(&DUAL, given, None);
            assert_eq!((&spec["ipFamilies"], &spec["clusterIPs"]), (&families, &ips));
            assert_eq!(spec["clusterIP"], ips[0]);
        }
        let headless =
            json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "None", "clusterIPs": ["None"]});
        assert_eq!(settled(&DUAL, headless, None)["ipFamilies"], json!(["IPv4", "IPv6"]));
    }

    #[test]
    fn a_service_gains_and_loses_its_second_family() {
        let one = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"],
            "clusterIP": "10.0.0.20", "clusterIPs": ["10.0.0.20"]});
        let two = settled(&DUAL, one, None);
        assert_eq!(two["clusterIPs"], json!(["10.0.0.20", "fd00::101"]));
        let mut single = two.clone();
        single["ipFamilyPolicy"] = "SingleStack".into();
        let back = settled(&DUAL, single, Some(&json!({"spec": two})));
        assert_eq!((&back["ipFamilies"], &back["clusterIPs"]), (&json!(["IPv4"]), &json!(["10.0.0.20"])));
    }
    #[test]
    fn a_full_range_is_followed_by_the_next_of_its_family() {
        let mut addresses = addresses(&["10.0.0.0/30"]);
        let ranges = ["10.0.0.0/30", "fd00::/112", "10.1.0.0/30"];
        addresses.set_ranges(ranges.map(|range| range.parse().expect("a range")).to_vec());
        let mut given = Vec::new();
        while let Some(address) = addresses.free_address(true) {
            addresses.take(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"]);
        let refusal = |address: &str| {
            let error = addresses.refuse(address.parse().expect("an address"), &[]).expect("is refused");
            error.to_string().rsplit_once("failed to allocate IP ").expect("says so").1.to_owned()
        };
        assert_eq!(refusal("10.1.0.2"), "10.1.0.2: provided IP is already allocated");
        assert_eq!(refusal("10.2.0.2"), "10.2.0.2: the provided network does not match the current range");
        addresses.set_ranges(vec!["10.1.0.0/30".parse().expect("a range")]);
        assert_eq!(addresses.free_address(true), None);
    }
}
