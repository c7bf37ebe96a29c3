//! What is decided once, when a cluster is made, and never changes while its data lives: addresses and ports.
//!
//! Several clusters share a machine by slots: each slot has address ranges and ports of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use apimachinery::{Map, Value};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::layout::{Layout, known_clusters};
use crate::slots::{self, Slots};

/// The version of the settings file; a newer `cox` reads older ones.
const VERSION: u32 = 2;
/// Slots of a machine, the default cluster's included: their ranges end below 10.255.0.0.
pub const SLOTS_MAX: u16 = 8;

/// Kubernetes' own API server port.
const SECURE_PORT: u16 = 6443;
/// Kubernetes' own kubelet port.
const KUBELET_PORT: u16 = 10250;
/// The DNS Service's place in the range of Services, where everybody's tools put it.
const DNS_SERVICE_INDEX: u8 = 10;
/// The API server's own, the first that is given out.
const API_SERVICE_INDEX: u8 = 1;
/// Node ports of slot 0 are upstream's; other slots get equal parts of 20000 to 29999.
const NODE_PORTS: (u16, u16) = (30000, 32767);
const NODE_PORTS_OTHER_FIRST: u16 = 20000;
const NODE_PORTS_OTHER_COUNT: u16 = 1400;

/// Ports for HTTP and HTTPS of Ingresses in slot 0; other slots count on from the second pair.
const INGRESS_PORTS: (u16, u16) = (80, 443);
const INGRESS_PORTS_OTHER: (u16, u16) = (10080, 10443);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("settings file {0} cannot be read: {1}")]
    Read(String, String),
    #[error("settings file {0} was written by a newer version ({1}); use that version of cox")]
    Newer(String, u32),
    #[error("settings file {0} cannot be written: {1}")]
    Write(String, std::io::Error),
    #[error("it cannot be found out which addresses and ports other clusters of this machine have: {0}")]
    Slots(std::io::Error),
    #[error(
        "ranges of pods and of Services must begin with the same family, and Services can have no family that pods lack"
    )]
    Families,
    #[error("this machine has {SLOTS_MAX} clusters already; remove one with `cox down --purge --name NAME`")]
    NoSlot,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub version: u32,
    /// Which part of the machine's addresses and ports is the cluster's.
    pub slot: u16,
    /// Where pods are, one range per family; the first family is the one that counts where there can be only one.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where Services are, likewise.
    pub service_cidrs: Vec<IpNet>,
    pub secure_port: u16,
    pub kubelet_port: u16,
    pub node_ports: (u16, u16),
    pub cluster_domain: String,
    pub node_name: String,
}

/// What the user asked for when the cluster is made; `None` and no ranges leave it to the slot.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub secure_port: Option<u16>,
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub node_name: Option<String>,
}

impl Settings {
    fn of_slot(slot: u16, node_name: String) -> Self {
        let octet = u8::try_from(42 + 2 * slot).expect("slots are few");
        let net = |second: u8| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16));
        let node_ports = match slot {
            0 => NODE_PORTS,
            other => {
                let first = NODE_PORTS_OTHER_FIRST + (other - 1) * NODE_PORTS_OTHER_COUNT;
                (first, first + NODE_PORTS_OTHER_COUNT - 1)
            }
        };
        Settings {
            version: VERSION,
            slot,
            cluster_cidrs: vec![net(octet)],
            service_cidrs: vec![net(octet + 1)],
            secure_port: SECURE_PORT + slot,
            kubelet_port: KUBELET_PORT + 10 * slot,
            node_ports,
            cluster_domain: "cluster.local".to_owned(),
            node_name,
        }
    }

    /// Reads the cluster's settings, or decides and writes them when it is new.
    pub fn load_or_create(layout: &Layout, wishes: &Wishes, hostname: &str) -> Result<Settings, Error> {
        // Who is not root runs no node, and may not write where the machine's slots are noted.
        let slots = nix::unistd::geteuid().is_root().then(Slots::of_machine);
        let slots = slots.transpose().map_err(Error::Slots)?;
        Settings::load_or_create_among(slots.as_ref(), layout, wishes, hostname)
    }

    fn load_or_create_among(
        slots: Option<&Slots>,
        layout: &Layout,
        wishes: &Wishes,
        hostname: &str,
    ) -> Result<Settings, Error> {
        // Two new clusters must not take one slot, in one folder seen by several networks or in several of one.
        let data = &layout.roots().data;
        let _folder = slots::lock(data).map_err(|error| Error::Write(data.display().to_string(), error))?;
        let _network = slots.map(Slots::decide).transpose().map_err(Error::Slots)?;
        let settings = match Settings::load(layout)? {
            Some(settings) => settings,
            None => Settings::create(free_slot(slots, layout)?, layout, wishes, hostname)?,
        };
        // A slot that two have already is the first's: the other would hide it.
        if let Some(slots) = slots
            && !taken(Some(slots), layout)?.contains(&settings.slot)
        {
            slots.note(settings.slot, &layout.settings()).map_err(Error::Slots)?;
        }
        Ok(settings)
    }

    fn create(slot: u16, layout: &Layout, wishes: &Wishes, hostname: &str) -> Result<Settings, Error> {
        let mut settings =
            Settings::of_slot(slot, wishes.node_name.clone().unwrap_or_else(|| hostname.to_owned()));
        settings.secure_port = wishes.secure_port.unwrap_or(settings.secure_port);
        for (ranges, wished) in [
            (&mut settings.cluster_cidrs, &wishes.cluster_cidrs),
            (&mut settings.service_cidrs, &wishes.service_cidrs),
        ] {
            if !wished.is_empty() {
                ranges.clone_from(wished);
            }
        }
        settings.check_families()?;
        let text = serde_json::to_vec_pretty(&settings).expect("settings always encode");
        let path = layout.settings();
        files::write(&path, &text, 0o600).map_err(|e| Error::Write(path.display().to_string(), e))?;
        Ok(settings)
    }

    /// `None` when the cluster was never made.
    pub fn load(layout: &Layout) -> Result<Option<Settings>, Error> {
        Settings::read(&layout.settings())
    }

    fn read(path: &Path) -> Result<Option<Settings>, Error> {
        let shown = || path.display().to_string();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Read(shown(), error.to_string())),
        };
        let bad = |e: serde_json::Error| Error::Read(shown(), e.to_string());
        let mut stored: Map = serde_json::from_slice(&bytes).map_err(bad)?;
        match stored.get("version").and_then(Value::as_u64) {
            Some(version) if version > u64::from(VERSION) => {
                return Err(Error::Newer(shown(), u32::try_from(version).unwrap_or(u32::MAX)));
            }
            Some(1) => upgrade(&mut stored),
            _ => {}
        }
        apimachinery::from_value(stored.into()).map(Some).map_err(bad)
    }

    /// A Service's address and the pods behind it are of one family.
    fn check_families(&self) -> Result<(), Error> {
        let same = |pods: &IpNet, services: &IpNet| pods.addr().is_ipv4() == services.addr().is_ipv4();
        let covered = self.service_cidrs.len() <= self.cluster_cidrs.len();
        let pairs = self.cluster_cidrs.iter().zip(&self.service_cidrs);
        if covered && pairs.into_iter().all(|(pods, services)| same(pods, services)) {
            return Ok(());
        }
        Err(Error::Families)
    }

    /// Where Ingresses are served on each node, by HTTP and by HTTPS.
    pub fn ingress_ports(&self) -> (u16, u16) {
        let (http, https) = INGRESS_PORTS_OTHER;
        if self.slot == 0 { INGRESS_PORTS } else { (http + self.slot, https + self.slot) }
    }

    /// The `kubernetes` Service in every family.
    pub fn api_service_ips(&self) -> Vec<IpAddr> {
        self.service_cidrs.iter().map(|range| nth(range, API_SERVICE_INDEX)).collect()
    }

    /// The `kube-dns` Service in every family.
    pub fn dns_service_ips(&self) -> Vec<IpAddr> {
        self.service_cidrs.iter().map(|range| nth(range, DNS_SERVICE_INDEX)).collect()
    }

    /// The first address of a pod.
    pub fn first_pod_ip(&self) -> Option<IpAddr> {
        self.cluster_cidrs.first().map(|range| nth(range, 1))
    }
}

fn nth(range: &IpNet, index: u8) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(index)).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(index)).into()),
    }
}

/// Version 1 had one range of IPv4 each, and perhaps one of IPv6.
fn upgrade(stored: &mut Map) {
    for what in ["cluster", "service"] {
        let ranges = ["Cidr", "CidrV6"].iter().filter_map(|key| stored.remove(&format!("{what}{key}")));
        let ranges: Vec<Value> = ranges.collect();
        stored.insert(format!("{what}Cidrs"), ranges.into());
    }
    stored.insert("version", VERSION.into());
}

/// The default cluster has slot 0 to itself; others take the lowest that no cluster has.
fn free_slot(slots: Option<&Slots>, layout: &Layout) -> Result<u16, Error> {
    if layout.is_default() {
        return Ok(0);
    }
    let roots = layout.roots();
    let mut taken = taken(slots, layout)?;
    // Beside it may be clusters that have not started since the machine did.
    let beside =
        known_clusters(&roots.data).into_iter().filter_map(|name| Layout::new(&name, roots.clone()).ok());
    taken.extend(beside.filter_map(|other| slot_of(&other.settings())));
    (1..SLOTS_MAX).find(|slot| !taken.contains(slot)).ok_or(Error::NoSlot)
}

/// What clusters in any folder are known to have.
fn taken(slots: Option<&Slots>, layout: &Layout) -> Result<Vec<u16>, Error> {
    let taken = slots.map(|slots| slots.taken(&layout.settings(), slot_of));
    Ok(taken.transpose().map_err(Error::Slots)?.unwrap_or_default())
}

fn slot_of(path: &Path) -> Option<u16> {
    Settings::read(path).ok().flatten().map(|settings| settings.slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Roots;

    #[test]
    fn slots_share_no_address_and_no_port() {
        let all: Vec<Settings> = (0..SLOTS_MAX).map(|slot| Settings::of_slot(slot, "n".into())).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.secure_port, b.secure_port);
                assert_ne!(a.kubelet_port, b.kubelet_port);
                assert!(a.node_ports.1 < b.node_ports.0 || b.node_ports.1 < a.node_ports.0);
                let (pods, services) =
                    (|of: &Settings| of.cluster_cidrs[0], |of: &Settings| of.service_cidrs[0]);
                for (x, y) in [(pods(a), pods(b)), (services(a), services(b)), (pods(a), services(b))] {
                    assert!(!x.contains(&y) && !y.contains(&x));
                }
            }
        }
        assert_eq!(all[0].dns_service_ips(), ["10.43.0.10".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn what_was_decided_stays() {
        let base = std::env::temp_dir().join(format!("settings-{}", std::process::id()));
        let roots = Roots { data: base.join("d"), config: base.join("c"), run: base.join("r") };
        let layout = |name: &str| Layout::new(name, roots.clone()).expect("a name");
        let slots = Slots::below(&base.join("slots"));
        let make = |name: &str, wishes: &Wishes, host: &str| {
            Settings::load_or_create_among(Some(&slots), &layout(name), wishes, host).expect("makes or reads")
        };
        let wishes = Wishes { secure_port: Some(1234), ..Default::default() };
        let first = make("a", &wishes, "host");
        let again = make("a", &Wishes::default(), "other");
        assert_eq!((&first, first.slot, first.secure_port), (&again, 1, 1234));
        let second = make("b", &Wishes::default(), "host");
        assert_eq!(second.slot, 2);
        std::fs::write(layout("b").settings(), "{\"version\": 99}").expect("writes");
        assert!(matches!(Settings::load(&layout("b")), Err(Error::Newer(_, 99))));
        files::remove(&base).expect("removes");
    }

    #[test]
    fn the_first_family_is_the_one_that_counts() {
        let ranges = |text: &str| text.split(',').map(|range| range.parse().expect("a range")).collect();
        let mut settings = Settings::of_slot(0, "n".into());
        settings.cluster_cidrs = ranges("fd42::/56,10.42.0.0/16");
        settings.service_cidrs = ranges("fd43::/112");
        assert!(settings.check_families().is_ok());
        assert_eq!(settings.api_service_ips(), ["fd43::1".parse::<IpAddr>().expect("an address")]);
        for wrong in ["10.43.0.0/16", "fd43::/112,10.43.0.0/16,fd44::/112"] {
            settings.service_cidrs = ranges(wrong);
            assert!(matches!(settings.check_families(), Err(Error::Families)), "{wrong}");
        }
    }

    #[test]
    fn settings_of_the_first_version_are_read() {
        let mut stored = apimachinery::to_value(Settings::of_slot(0, "n".into())).expect("encodes");
        let stored = stored.as_object_mut().expect("an object");
        for what in ["cluster", "service"] {
            let ranges = stored.remove(&format!("{what}Cidrs")).expect("it is there");
            stored.insert(format!("{what}Cidr"), ranges[0].clone());
        }
        stored.insert("clusterCidrV6", "fd42::/56".into());
        upgrade(stored);
        let read: Settings = apimachinery::from_value(stored.clone().into()).expect("reads");
        assert_eq!((read.version, read.cluster_cidrs.len(), read.service_cidrs.len()), (VERSION, 2, 1));
    }

    #[test]
    fn clusters_made_at_once_get_a_slot_each() {
        let base = std::env::temp_dir().join(format!("settings-at-once-{}", std::process::id()));
        // Every other one of them in a folder of its own.
        let folder = |i: u16| if i.is_multiple_of(2) { base.join("d") } else { base.join(i.to_string()) };
        let roots = |i: u16| Roots { data: folder(i), config: base.join("c"), run: base.join("r") };
        let known = Slots::below(&base.join("slots"));
        let slots: Vec<u16> = std::thread::scope(|scope| {
            let make = |i: u16| {
                let layout = Layout::new(&format!("c{i}"), roots(i)).expect("a name");
                let known = &known;
                scope.spawn(move || {
                    let made =
                        Settings::load_or_create_among(Some(known), &layout, &Wishes::default(), "host");
                    made.expect("makes").slot
                })
            };
            let makers: Vec<_> = (1..SLOTS_MAX).map(make).collect();
            makers.into_iter().map(|maker| maker.join().expect("ends")).collect()
        });
        let distinct: std::collections::BTreeSet<u16> = slots.iter().copied().collect();
        assert_eq!(distinct.len(), slots.len(), "{slots:?}");
        files::remove(&base).expect("removes");
    }

    #[test]
    fn clusters_in_different_folders_share_no_slot() {
        let base = std::env::temp_dir().join(format!("settings-folders-{}", std::process::id()));
        let layout = |folder: &str, name: &str| {
            let dir = |kind: &str| base.join(folder).join(kind);
            let roots = Roots { data: dir("data"), config: dir("config"), run: dir("run") };
            Layout::new(name, roots).expect("a name")
        };
        let slots = Slots::below(&base.join("slots"));
        let slot = |folder: &str, name: &str| {
            let layout = layout(folder, name);
            let made = Settings::load_or_create_among(Some(&slots), &layout, &Wishes::default(), "host");
            made.expect("makes or reads").slot
        };
        assert_eq!([slot("a", "one"), slot("b", "two"), slot("c", "three")], [1, 2, 3]);
        // The machine has started again, and then this cluster.
        files::remove(&base.join("slots")).expect("removes");
        assert_eq!(slot("b", "two"), 2);
        assert_eq!(slot("d", "four"), 1, "nobody can know of a folder from which nothing has started");
        assert_eq!(slot("a", "one"), 1, "what was decided stays");
        // What is gone has no slot.
        files::remove(&base.join("b")).expect("removes");
        assert_eq!(slot("e", "five"), 2);
        files::remove(&base).expect("removes");
    }
}
