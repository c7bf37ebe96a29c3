//! Addresses and node ports of Services: given out once each, taken back with the Service or when a write fails.
//! Memory says what is free; where other servers give out too, the write itself makes sure (`shared`).
//! Which ranges there are the ServiceCIDRs say (`ranges`).
//! Follows `registry/core/service/storage/alloc.go` and the `ipallocator` and `portallocator` it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::catalogue::Kind;
use api::resource;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use parking_lot::Mutex;
use store::{CommitError, Entry, Expected, Key, Op, Store};

use crate::config::Cidr;
use crate::conversion;
use crate::core::Core;
use crate::upkeep;

mod addresses;
mod families;
mod ranges;
mod shared;
#[cfg(test)]
mod tests;

use addresses::Addresses;

#[derive(Clone, Debug)]
pub struct Allocator {
    state: Arc<Mutex<State>>,
    /// Set where other servers give out addresses and ports too.
    shared: Option<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    store: Store,
    /// Of all that take node ports one writes at a time: any other's would fail.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    addresses: Addresses,
    node_ports: RangeInclusive<u16>,
    /// How many Services hold each port: during an update the old and the new state both count.
    ports: HashMap<u16, u32>,
    /// Where the search for a free one goes on.
    next_port: u16,
    /// What was reserved for writes that are under way, by the number of the reservation.
    reserved: BTreeMap<u64, Holding>,
    reservations: u64,
}

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holding {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// How much of the ranges is given out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Each range of addresses, with how many of its addresses are held and how many are free.
    pub addresses: Vec<(String, f64, f64)>,
    pub ports: usize,
    pub ports_free: usize,
}

/// What a write has taken; given back on drop unless the write was made.
#[derive(Debug)]
pub struct Reservation {
    allocator: Option<Allocator>,
    number: u64,
    taken: Holding,
    old: Holding,
    /// The Service's specification before it got anything, where it may have to get something else.
    asked: Option<Value>,
}

impl Allocator {
    /// Counts what the Services in the store hold. There is one range, or one per family.
    pub fn new(cidrs: &[Cidr], node_ports: RangeInclusive<u16>, store: &Store) -> Allocator {
        let mut state = State::new(cidrs, node_ports);
        state.count(store);
        let shared = store.is_shared().then(|| Shared { store: store.clone(), turn: Arc::default() });
        Allocator { state: Arc::new(Mutex::new(state)), shared }
    }

    pub fn used(&self) -> Used {
        let mut state = self.state.lock();
        if let Some(shared) = &self.shared {
            state.count(&shared.store);
        }
        let ports = state.ports.keys().filter(|port| state.node_ports.contains(port)).count();
        let all = state.node_ports.len();
        Used { addresses: state.addresses.used(), ports, ports_free: all.saturating_sub(ports) }
    }

    /// Fills in the addresses and ports a Service needs and has not got. Other kinds pass.
    pub fn reserve(
        &self,
        store: &Store,
        kind: &Kind,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, ErrorList> {
        if kind.resource != resource::SERVICES {
            let (taken, old) = (Holding::default(), Holding::default());
            return Ok(Reservation { allocator: None, number: 0, taken, old, asked: None });
        }
        let errors = api::core::service::asked_addresses(object, old);
        if !errors.is_empty() {
            return Err(errors);
        }
        let configured = self.state.lock().addresses.configured().to_vec();
        self.reserve_within(ranges::ready(store, configured), object, old)
    }

    /// The same for a Service, of which the ranges are known.
    fn reserve_within(
        &self,
        ranges: Vec<Cidr>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, ErrorList> {
        let asked = self.shared.is_some().then(|| object["spec"].clone());
        if let Some(old) = old {
            keep_allocated(object, old);
        }
        let held = old.map(holding).unwrap_or_default();
        let mut state = self.state.lock();
        if let Some(shared) = &self.shared {
            state.count(&shared.store);
        }
        state.addresses.set_ranges(ranges);
        let mut errors = ErrorList::new();
        state.addresses.settle(object, old, &held.addresses, &mut errors);
        state.settle_ports(object, &held, &mut errors);
        state.settle_health_check(object, &held, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let taken = holding(object);
        state.take(&taken);
        let number = state.reservations;
        state.reservations += 1;
        state.reserved.insert(number, taken.clone());
        drop(state);
        Ok(Reservation { allocator: Some(self.clone()), number, taken, old: held, asked })
    }

    /// Commits the deletion of an object, and takes back what it held if it was a Service.
    pub async fn commit_deletion(
        &self,
        core: &Core,
        kind: &Kind,
        key: &Key,
        expected: Expected,
        op: Op,
        old: &Value,
    ) -> Result<Arc<Entry>, CommitError> {
        if kind.resource != resource::SERVICES || !matches!(op, Op::Delete(_)) {
            return core.commit(key, expected, op).await;
        }
        let held = holding(old);
        let also = match &self.shared {
            Some(_) => {
                let now = (core.config.clock)();
                shared::addresses(old, &held, &Holding::default(), now, &core.config.random)
            }
            None => Vec::new(),
        };
        let entry = core.commit_with(key, expected, op, &also).await?;
        self.state.lock().give_back(&held);
        Ok(entry)
    }
}

impl Reservation {
    /// Commits the object that was given what is reserved. `Overtaken` means that another server has given it away.
    pub async fn commit(
        &self,
        core: &Core,
        key: &Key,
        expected: Expected,
        op: Op,
        object: &Value,
    ) -> Result<Arc<Entry>, CommitError> {
        let sharing =
            self.allocator.as_ref().and_then(|allocator| Some((allocator, allocator.shared.as_ref()?)));
        let Some((allocator, shared)) = sharing else { return core.commit(key, expected, op).await };
        let nothing = Holding::default();
        let new = if matches!(op, Op::Delete(_)) { &nothing } else { &self.taken };
        let now = (core.config.clock)();
        let mut also = shared::addresses(object, &self.old, new, now, &core.config.random);
        let taken: Vec<u16> =
            new.ports.iter().copied().filter(|port| !self.old.ports.contains(port)).collect();
        if taken.is_empty() {
            return core.commit_with(key, expected, op, &also).await;
        }
        let _turn = shared.turn.lock().await;
        let seen = core.store.revision_of(shared::NODE_PORTS).await?;
        let held = allocator.state.lock().ports_in(&core.store);
        if taken.iter().any(|port| held.contains(port)) {
            return Err(CommitError::Overtaken);
        }
        let range = allocator.state.lock().node_ports.clone();
        also.push(shared::node_ports(&range, held.into_iter().chain(taken), seen)?);
        core.commit_with(key, expected, op, &also).await
    }

    /// Gives the object something else, after another server has given away what this one was to get.
    pub fn again(self, store: &Store, kind: &Kind, object: &mut Value) -> Result<Reservation, ErrorList> {
        let Some(allocator) = self.allocator.clone() else { return Ok(self) };
        if let Some(asked) = &self.asked {
            object["spec"] = asked.clone();
        }
        // What was reserved is free again only now.
        drop(self);
        allocator.reserve(store, kind, object, None)
    }

    /// The write was made; none means that it removed the Service.
    pub fn keep(mut self, object: Option<&Value>) {
        let Some(allocator) = self.allocator.take() else { return };
        let mut state = allocator.state.lock();
        state.reserved.remove(&self.number);
        state.give_back(&self.old);
        if object.is_none() {
            state.give_back(&self.taken);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(allocator) = &self.allocator {
            let mut state = allocator.state.lock();
            state.reserved.remove(&self.number);
            state.give_back(&self.taken);
        }
    }
}

fn needs_address(service: &Value) -> bool {
    str_at(service, &["spec", "type"]) != "ExternalName" && str_at(service, &["spec", "clusterIP"]) != "None"
}

fn needs_ports(service: &Value) -> bool {
    match str_at(service, &["spec", "type"]) {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn node_port(port: &Value) -> Option<u16> {
    port.get("nodePort").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
}

/// The cluster addresses that a Service holds.
pub fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let listed = service.pointer("/spec/clusterIPs").and_then(Value::as_array);
    let mut addresses: Vec<IpAddr> = listed
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str().and_then(|text| text.parse().ok()))
        .collect();
    if addresses.is_empty() {
        addresses.extend(str_at(service, &["spec", "clusterIP"]).parse::<IpAddr>());
    }
    addresses
}

/// Whether load balancers ask each node by a port of its own whether it has endpoints (upstream: `NeedsHealthCheck`).
fn needs_health_check(service: &Value) -> bool {
    str_at(service, &["spec", "type"]) == "LoadBalancer"
        && str_at(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn health_check_port(service: &Value) -> Option<u16> {
    let number = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64)?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn holding(service: &Value) -> Holding {
    let mut numbers: Vec<u16> = ports(service).iter().filter_map(node_port).collect();
    numbers.extend(health_check_port(service));
    numbers.sort_unstable();
    numbers.dedup();
    Holding { addresses: addresses_of(service), ports: numbers }
}

/// An update that leaves allocated values out keeps them (upstream: patchAllocatedValues).
fn keep_allocated(object: &mut Value, old: &Value) {
    if needs_address(object) && needs_address(old) && str_at(object, &["spec", "clusterIP"]).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                object["spec"][field] = value.clone();
            }
        }
    }
    if !needs_ports(object) || !needs_ports(old) {
        return;
    }
    let Some(new_ports) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
    let identity = |port: &Value| (port.get("protocol").cloned(), port.get("port").cloned());
    for port in new_ports.iter_mut().filter(|port| node_port(port).is_none()) {
        let same = ports(old).iter().find(|candidate| identity(candidate) == identity(port));
        if let Some(number) = same.and_then(node_port) {
            port["nodePort"] = number.into();
        }
    }
}

impl State {
    fn new(cidrs: &[Cidr], node_ports: RangeInclusive<u16>) -> State {
        let next_port = *node_ports.start();
        State {
            addresses: Addresses::new(cidrs),
            node_ports,
            ports: HashMap::new(),
            next_port,
            reserved: BTreeMap::new(),
            reservations: 0,
        }
    }

    /// Counts anew what the Services in the store hold, and what is reserved.
    fn count(&mut self, store: &Store) {
        self.addresses.clear();
        self.ports.clear();
        let services = store.range(resource::SERVICES.plural, None, None, None, 0, &|_| true);
        for entry in services.map(|page| page.entries).unwrap_or_default() {
            self.take(&holding(&conversion::decode(&entry.bytes)));
        }
        // Addresses that somebody has who is no Service, or is none yet.
        let objects = store.range(upkeep::storage(resource::IP_ADDRESSES), None, None, None, 0, &|_| true);
        for entry in objects.map(|page| page.entries).unwrap_or_default() {
            self.addresses.take_if_free(&entry.key.name);
        }
        for holding in self.reserved.values().cloned().collect::<Vec<_>>() {
            self.take(&holding);
        }
    }

    /// The node ports of all Services in the store, whatever is reserved.
    fn ports_in(&self, store: &Store) -> BTreeSet<u16> {
        let services = store.range(resource::SERVICES.plural, None, None, None, 0, &|_| true);
        let entries = services.map(|page| page.entries).unwrap_or_default();
        entries.iter().flat_map(|entry| holding(&conversion::decode(&entry.bytes)).ports).collect()
    }

    fn take(&mut self, holding: &Holding) {
        holding.addresses.iter().for_each(|ip| self.addresses.take(*ip));
        holding.ports.iter().for_each(|port| *self.ports.entry(*port).or_default() += 1);
    }

    fn give_back(&mut self, holding: &Holding) {
        holding.addresses.iter().for_each(|ip| self.addresses.give_back(*ip));
        holding.ports.iter().for_each(|port| give_back_one(&mut self.ports, *port));
    }

    fn settle_ports(&mut self, service: &mut Value, held: &Holding, errors: &mut ErrorList) {
        if !needs_ports(service) {
            return;
        }
        let mut numbers: Vec<Option<u16>> = ports(service).iter().map(node_port).collect();
        let targets = ports(service).iter().map(|port| port.get("port").and_then(Value::as_u64));
        // By the Service's port. Those asked for come first, so that none is given to another port meanwhile.
        let mut claimed: HashMap<Option<u64>, u16> =
            targets.zip(&numbers).filter_map(|(target, number)| Some((target, (*number)?))).collect();
        for (i, number) in numbers.iter().enumerate() {
            if let Some(number) = number.filter(|n| !held.ports.contains(n)) {
                errors.extend(self.refuse_port(number, i));
            }
        }
        for (port, number) in ports(service).iter().zip(&mut numbers) {
            let target = port.get("port").and_then(Value::as_u64);
            // TCP and UDP on one port share one node port, as upstream has it.
            let chosen = number.or_else(|| claimed.get(&target).copied());
            let chosen = chosen.or_else(|| self.free_port(|number| claimed.values().any(|c| *c == number)));
            match chosen {
                Some(chosen) => {
                    claimed.insert(target, chosen);
                    *number = Some(chosen);
                }
                None => {
                    let path = Path::new("spec").child("ports");
                    errors.push(Error::internal(&path, "failed to allocate a nodePort: range is full"));
                }
            }
        }
        if let Some(list) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
            for (port, number) in list.iter_mut().zip(numbers) {
                port["nodePort"] = json!(number);
            }
        }
    }

    /// After the ports, whose numbers it must not take.
    fn settle_health_check(&mut self, service: &mut Value, held: &Holding, errors: &mut ErrorList) {
        if !needs_health_check(service) {
            return;
        }
        let path = Path::new("spec").child("healthCheckNodePort");
        if let Some(number) = health_check_port(service) {
            if !held.ports.contains(&number) {
                errors.extend(self.refuse_number(number, &path));
            }
            return;
        }
        let claimed: Vec<u16> = ports(service).iter().filter_map(node_port).collect();
        match self.free_port(|number| claimed.contains(&number)) {
            Some(number) => service["spec"]["healthCheckNodePort"] = number.into(),
            None => errors
                .push(Error::internal(&path, "failed to allocate a HealthCheck NodePort: range is full")),
        }
    }

    fn refuse_port(&self, number: u16, index: usize) -> Option<Error> {
        self.refuse_number(number, &Path::new("spec").child("ports").index(index).child("nodePort"))
    }

    fn refuse_number(&self, number: u16, path: &Path) -> Option<Error> {
        if !self.node_ports.contains(&number) {
            let (first, last) = (self.node_ports.start(), self.node_ports.end());
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            return Some(Error::invalid(path, number, why));
        }
        let taken = self.ports.contains_key(&number);
        taken.then(|| Error::invalid(path, number, "provided port is already allocated"))
    }

    fn free_port(&mut self, is_claimed: impl Fn(u16) -> bool) -> Option<u16> {
        let (first, last) = (*self.node_ports.start(), *self.node_ports.end());
        let free = |port: &u16| !self.ports.contains_key(port) && !is_claimed(*port);
        let port = (self.next_port..=last).chain(first..self.next_port).find(free)?;
        self.next_port = if port == last { first } else { port + 1 };
        Some(port)
    }
}

/// What is not held any more is given back once more where a new count has come between.
fn give_back_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
