//! Which addresses a Service gets, and of which families: one range, or on a dual-stack cluster one per family, the
//! primary family's first. Follows `initIPFamilyFields`, `allocClusterIPs` and `trimFieldsForDualStackDowngrade`.

use std::collections::HashMap;
use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use crate::config::Cidr;

/// The lowest addresses are given out last, so that whoever asks for one by number finds it free (KEP-3070).
const STATIC_BAND_MIN: u128 = 16;
const STATIC_BAND_MAX: u128 = 256;
const STATIC_BAND_FRACTION: u128 = 16;

const SINGLE_STACK: &str = "SingleStack";

/// Where Services' addresses come from, and which are taken.
#[derive(Debug)]
pub struct Addresses {
    ranges: Vec<Range>,
    /// How many Services hold each: during an update the old and the new state both count.
    held: HashMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Range {
    cidr: Cidr,
    /// Where the search for a free one goes on.
    next: u128,
}

impl Addresses {
    /// One range, or one per family.
    pub fn new(cidrs: &[Cidr]) -> Addresses {
        let ranges = cidrs.iter().map(|cidr| Range { cidr: *cidr, next: static_band(cidr) });
        Addresses { ranges: ranges.collect(), held: HashMap::new() }
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
        if self.ranges.len() > 1 {
            settle_families(service, old);
        }
        if str_at(service, &["spec", "clusterIP"]) == "None" {
            return;
        }
        let families = texts(service, "ipFamilies");
        let asked = asked(service);
        let mut settled = Vec::new();
        for place in 0..families.len().max(asked.len()).max(1) {
            match (asked.get(place), self.range_of(families.get(place))) {
                (Some(text), _) => {
                    // What is no address at all is for validation to refuse.
                    if let Ok(address) = text.parse()
                        && !held.contains(&address)
                    {
                        errors.extend(self.refuse(address, &asked));
                    }
                    settled.push(text.clone());
                }
                // A family that the cluster has not is for validation to refuse.
                (None, None) => {}
                (None, Some(range)) => match self.free_address(range) {
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

    fn range_of(&self, family: Option<&String>) -> Option<usize> {
        let Some(family) = family else { return Some(0) };
        self.ranges.iter().position(|range| range.cidr.is_ipv4() == (family == "IPv4"))
    }

    fn refuse(&self, address: IpAddr, asked: &[String]) -> Option<Error> {
        let path = Path::new("spec").child("clusterIPs");
        let refuse = |why: String| {
            Some(Error::invalid(&path, json!(asked), format!("failed to allocate IP {address}: {why}")))
        };
        let of_family = self.ranges.iter().find(|range| range.cidr.is_ipv4() == address.is_ipv4());
        let range = of_family.or(self.ranges.first())?;
        if !range.cidr.contains(address) {
            return refuse(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                range.cidr
            ));
        }
        if self.held.contains_key(&address) {
            return refuse("provided IP is already allocated".to_owned());
        }
        None
    }

    fn free_address(&mut self, range: usize) -> Option<IpAddr> {
        let Range { cidr, next } = self.ranges[range];
        let (usable, band) = (cidr.usable(), static_band(&cidr));
        let dynamic = (next..usable).chain(band..next).chain(0..band);
        let (index, address) = dynamic
            .filter_map(|index| Some((index, cidr.nth(index)?)))
            .find(|(_, address)| !self.held.contains_key(address))?;
        self.ranges[range].next = if index + 1 < usable { (index + 1).max(band) } else { band };
        Some(address)
    }
}

fn static_band(cidr: &Cidr) -> u128 {
    let band = (cidr.usable() / STATIC_BAND_FRACTION).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX);
    if band < cidr.usable() { band } else { 0 }
}

/// On a dual-stack cluster a Service that may have two families has them, and one that may no more loses the second.
fn settle_families(service: &mut Value, old: Option<&Value>) {
    let mut families = texts(service, "ipFamilies");
    let single = matches!(str_at(service, &["spec", "ipFamilyPolicy"]), "" | SINGLE_STACK);
    if !single && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        service["spec"]["ipFamilies"] = json!(families);
        return;
    }
    let Some(old) = old.filter(|_| single) else { return };
    // Whoever changes the lists as well must say all of it.
    let unchanged = |field: &str| texts(service, field) == texts(old, field);
    if families.len() > 1 && unchanged("ipFamilies") && unchanged("clusterIPs") {
        service["spec"]["ipFamilies"] = json!(families[..1]);
        let addresses = texts(service, "clusterIPs");
        if addresses.len() > 1 {
            service["spec"]["clusterIPs"] = json!(addresses[..1]);
        }
    }
}

fn texts(service: &Value, field: &str) -> Vec<String> {
    let list = service["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
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
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"], "clusterIP": "None"});
        assert_eq!(settled(&DUAL, headless, None)["ipFamilies"], json!(["IPv4", "IPv6"]));
    }

    #[test]
    fn a_cluster_of_one_family_leaves_the_other_to_validation() {
        let spec = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]});
        let spec = settled(&DUAL[..1], spec, None);
        assert_eq!((&spec["ipFamilies"], &spec["clusterIPs"]), (&json!(["IPv4"]), &json!(["10.0.0.17"])));
        let spec =
            settled(&DUAL[..1], json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}), None);
        assert_eq!(spec["clusterIPs"], Value::Null);
    }

    #[test]
    fn a_service_gains_and_loses_its_second_family() {
        let one = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"],
            "clusterIP": "10.0.0.20", "clusterIPs": ["10.0.0.20"]});
        let two = settled(&DUAL, one, None);
        assert_eq!(two["clusterIPs"], json!(["10.0.0.20", "fd00::101"]));
        let mut single = two.clone();
        single["ipFamilyPolicy"] = SINGLE_STACK.into();
        let back = settled(&DUAL, single, Some(&json!({"spec": two})));
        assert_eq!((&back["ipFamilies"], &back["clusterIPs"]), (&json!(["IPv4"]), &json!(["10.0.0.20"])));
    }
}
