//! Which claims are made ready on this node, for which pods, and what the runtime is told of their devices (follows
//! upstream's `ClaimInfo` and `claimInfoCache`).

use std::collections::{BTreeMap, BTreeSet};

use api::view::dynamicresource::ResourceClaim;
use dra::v1::{Claim, Device};
use serde::{Deserialize, Serialize};

/// As which claims are counted whatever their drivers (upstream: `DRAResourceClaimsInUseAnyDriver`).
const ANY_DRIVER: &str = "<any>";

/// By namespace and name, joined as `namespace/name`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimInfos {
    claims: BTreeMap<String, ClaimInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimInfo {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Those that use it on this node, by uid.
    pub pods: BTreeSet<String>,
    /// By driver; empty until it has made them ready.
    pub drivers: BTreeMap<String, Vec<PreparedDevice>>,
    /// All drivers have made their devices ready.
    pub is_prepared: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PreparedDevice {
    pub pool_name: String,
    pub device_name: String,
    pub share_id: Option<String>,
    /// None means all of the claim's.
    pub request_names: Vec<String>,
    pub cdi_device_ids: Vec<String>,
}

impl From<Device> for PreparedDevice {
    fn from(device: Device) -> Self {
        PreparedDevice {
            pool_name: device.pool_name,
            device_name: device.device_name,
            share_id: device.share_id,
            request_names: device.request_names,
            cdi_device_ids: device.cdi_device_ids,
        }
    }
}

impl ClaimInfo {
    /// Of a claim that has devices.
    pub fn of(claim: &ResourceClaim) -> Option<Self> {
        let allocation = claim.status.allocation.as_ref()?;
        let drivers = allocation.devices.results.iter().map(|result| (result.driver.clone(), Vec::new()));
        Some(ClaimInfo {
            uid: claim.metadata.uid.clone(),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            pods: BTreeSet::new(),
            drivers: drivers.collect(),
            is_prepared: false,
        })
    }

    /// How drivers are told of it.
    pub fn told(&self) -> Claim {
        Claim { namespace: self.namespace.clone(), uid: self.uid.clone(), name: self.name.clone() }
    }

    fn key(&self) -> String {
        key(&self.namespace, &self.name)
    }

    /// The devices for a request, each with its driver; an empty one means all.
    pub fn devices(&self, request: &str) -> impl Iterator<Item = (&String, &PreparedDevice)> {
        let serves = move |device: &PreparedDevice| {
            let names = &device.request_names;
            request.is_empty() || names.is_empty() || names.iter().any(|name| name == request)
        };
        let all = self.drivers.iter().flat_map(|(driver, devices)| devices.iter().map(move |d| (driver, d)));
        all.filter(move |(_, device)| serves(device))
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl ClaimInfos {
    /// Enters the pod as a user of these claims, and says which of them have yet to be made ready.
    pub fn add(&mut self, pod: &str, wanted: Vec<ClaimInfo>) -> Result<Vec<ClaimInfo>, String> {
        for info in &wanted {
            let known = self.claims.get(&info.key()).filter(|known| known.uid != info.uid);
            if let Some(other) = known {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                    info.name, other.uid
                ));
            }
        }
        let mut unprepared = Vec::new();
        for info in wanted {
            let known = self.claims.entry(info.key()).or_insert(info);
            known.pods.insert(pod.to_owned());
            if !known.is_prepared {
                unprepared.push(known.clone());
            }
        }
        Ok(unprepared)
    }

    /// A driver has made its devices of a claim ready.
    pub fn set_devices(&mut self, claim: &Claim, driver: &str, devices: Vec<Device>) {
        let devices = devices.into_iter().map(PreparedDevice::from).collect();
        if let Some(known) = self.of_uid(claim) {
            known.drivers.insert(driver.to_owned(), devices);
        }
    }

    pub fn set_prepared(&mut self, claim: &Claim) {
        if let Some(known) = self.of_uid(claim) {
            known.is_prepared = true;
        }
    }

    fn of_uid(&mut self, claim: &Claim) -> Option<&mut ClaimInfo> {
        self.claims.get_mut(&key(&claim.namespace, &claim.name)).filter(|known| known.uid == claim.uid)
    }

    /// Takes a pod out of claims that others use too, and says which are its alone.
    pub fn leave_shared(&mut self, pod: &str) -> Vec<ClaimInfo> {
        let mut alone = Vec::new();
        for claim in self.claims.values_mut().filter(|claim| claim.pods.contains(pod)) {
            if claim.pods.len() > 1 {
                claim.pods.remove(pod);
            } else {
                alone.push(claim.clone());
            }
        }
        alone
    }

    /// Forgets a claim that this pod was the last to use.
    pub fn remove(&mut self, claim: &Claim, pod: &str) {
        let is_last = |known: &ClaimInfo| known.uid == claim.uid && known.pods.iter().all(|user| user == pod);
        if let Some(known) =
            self.claims.get(&key(&claim.namespace, &claim.name)).filter(|known| is_last(known))
        {
            let key = known.key();
            self.claims.remove(&key);
        }
    }

    /// How many claims there are of each driver, and under [`ANY_DRIVER`] of all.
    pub fn in_use(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::from([(ANY_DRIVER, self.claims.len())]);
        for driver in self.claims.values().flat_map(|claim| claim.drivers.keys()) {
            *counts.entry(driver.as_str()).or_default() += 1;
        }
        counts
    }

    pub fn has_pod(&self, pod: &str) -> bool {
        self.claims.values().any(|claim| claim.pods.contains(pod))
    }

    /// All users.
    pub fn pods(&self) -> BTreeSet<String> {
        self.claims.values().flat_map(|claim| claim.pods.iter().cloned()).collect()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&ClaimInfo> {
        self.claims.get(&key(namespace, name))
    }

    /// What the runtime is told of a container that uses this request of the claim.
    pub fn cdi_devices(&self, namespace: &str, name: &str, request: &str) -> Result<Vec<String>, String> {
        let known = self.get(namespace, name).ok_or_else(|| {
            format!(
                "internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}"
            )
        })?;
        Ok(known.devices(request).flat_map(|(_, device)| device.cdi_device_ids.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, uid: &str) -> ClaimInfo {
        let drivers = [("d".to_owned(), Vec::new())].into();
        ClaimInfo { uid: uid.into(), namespace: "n".into(), name: name.into(), drivers, ..Default::default() }
    }

    fn device(requests: &[&str], id: &str) -> Device {
        let request_names = requests.iter().map(|&name| name.to_owned()).collect();
        Device { request_names, cdi_device_ids: vec![id.to_owned()], ..Device::default() }
    }

    #[test]
    fn a_claim_is_made_ready_once_for_all_its_pods_and_given_back_with_the_last() {
        let mut claims = ClaimInfos::default();
        assert_eq!(claims.add("p", vec![info("c", "u")]).unwrap().len(), 1);
        let told = info("c", "u").told();
        claims.set_devices(&told, "d", vec![device(&[], "x")]);
        claims.set_prepared(&told);
        assert!(claims.add("q", vec![info("c", "u")]).unwrap().is_empty());
        assert_eq!(claims.in_use(), [(ANY_DRIVER, 1), ("d", 1)].into());
        assert!(claims.leave_shared("p").is_empty());
        let alone = claims.leave_shared("q");
        assert_eq!((alone.len(), claims.has_pod("q"), claims.has_pod("p")), (1, true, false));
        // Somebody has come while the driver was asked.
        claims.add("r", vec![info("c", "u")]).unwrap();
        claims.remove(&told, "q");
        assert!(claims.has_pod("r"));
        claims.leave_shared("q");
        claims.remove(&told, "r");
        assert!(claims.pods().is_empty());
    }

    #[test]
    fn a_container_gets_the_devices_of_the_requests_it_names() {
        let mut claims = ClaimInfos::default();
        claims.add("p", vec![info("c", "u")]).unwrap();
        let devices = vec![device(&["a"], "x"), device(&["b"], "y"), device(&[], "z")];
        claims.set_devices(&info("c", "u").told(), "d", devices);
        let check = |request: &str, expect: &[&str]| {
            assert_eq!(claims.cdi_devices("n", "c", request).unwrap(), expect, "{request}");
        };
        check("", &["x", "y", "z"]);
        check("b", &["y", "z"]);
        assert!(claims.cdi_devices("n", "other", "").is_err());
    }

    #[test]
    fn another_claim_of_the_same_name_waits_for_the_first_to_go() {
        let mut claims = ClaimInfos::default();
        claims.add("p", vec![info("c", "u")]).unwrap();
        let why = claims.add("q", vec![info("b", "t"), info("c", "v")]).unwrap_err();
        assert!(why.contains("different UID u still exists"), "{why}");
        assert!(!claims.has_pod("q"));
    }
}
