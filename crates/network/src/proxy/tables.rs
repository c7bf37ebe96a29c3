//! All Services' plans together. Of two Services that claim the same frontend, the first by
//! namespace and name has it. Each change of a plan tells which frontends and addresses it may have
//! changed, so that programming costs what changed and not what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::meta::NamespacedName;

use super::plan::{Backends, Frontend, HealthCheck, NoEndpoints, ServicePlan};

/// Everything the proxy programs.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    plans: HashMap<Arc<NamespacedName>, ServicePlan>,
    /// Who wants a frontend, in order: the first has it.
    claims: BTreeMap<Frontend, Vec<Arc<NamespacedName>>>,
    cluster_ips: Counted,
    local_endpoints: Counted,
}

/// What may differ from what was programmed last, each with what it was then.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub frontends: BTreeMap<Frontend, Option<Backends>>,
    pub cluster_ips: BTreeMap<IpAddr, bool>,
    pub local_endpoints: BTreeMap<IpAddr, bool>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.cluster_ips.is_empty() && self.local_endpoints.is_empty()
    }
}

impl Tables {
    /// Replaces a Service's plan; an empty one removes it.
    pub fn set(&mut self, key: &NamespacedName, plan: ServicePlan, changes: &mut Changes) {
        let known = self.plans.get_key_value(key).map(|(key, old)| (key.clone(), *old == plan));
        let (key, same) = known.unwrap_or_else(|| (Arc::new(key.clone()), plan == ServicePlan::default()));
        if same {
            return;
        }
        self.note(self.plans.get(&key), changes);
        self.note(Some(&plan), changes);
        let old = self.plans.remove(&key).unwrap_or_default();
        for frontend in old.frontends.keys().filter(|frontend| !plan.frontends.contains_key(*frontend)) {
            self.withdraw(frontend, &key);
        }
        for frontend in plan.frontends.keys().filter(|frontend| !old.frontends.contains_key(*frontend)) {
            let claims = self.claims.entry(*frontend).or_default();
            let place = claims.partition_point(|other| *other < key);
            claims.insert(place, key.clone());
        }
        self.cluster_ips.replace(&old.cluster_ips, &plan.cluster_ips);
        self.local_endpoints.replace(&old.local_endpoints, &plan.local_endpoints);
        if plan != ServicePlan::default() {
            self.plans.insert(key, plan);
        }
    }

    pub fn backends(&self, frontend: &Frontend) -> Option<&Backends> {
        let holder = self.claims.get(frontend)?.first()?;
        self.plans.get(holder)?.frontends.get(frontend)
    }

    pub fn frontends(&self) -> impl Iterator<Item = (&Frontend, &Backends)> {
        self.claims.keys().filter_map(|frontend| Some((frontend, self.backends(frontend)?)))
    }

    pub fn cluster_ips(&self) -> impl Iterator<Item = &IpAddr> {
        self.cluster_ips.0.keys()
    }

    pub fn local_endpoints(&self) -> impl Iterator<Item = &IpAddr> {
        self.local_endpoints.0.keys()
    }

    pub fn has_cluster_ip(&self, address: &IpAddr) -> bool {
        self.cluster_ips.0.contains_key(address)
    }

    pub fn has_local_endpoint(&self, address: &IpAddr) -> bool {
        self.local_endpoints.0.contains_key(address)
    }

    /// The ports by which load balancers ask, with whose they are.
    pub fn health_checks(&self) -> BTreeMap<NamespacedName, HealthCheck> {
        let checks = self.plans.iter().filter_map(|(key, plan)| Some((key, plan.health_check?)));
        checks.map(|(key, check)| ((**key).clone(), check)).collect()
    }

    /// The Services that have a plan.
    pub fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.plans.keys().map(|key| &**key)
    }

    /// How many Services have a policy `Local` and no endpoint here: internally, externally.
    pub fn without_local_endpoints(&self) -> (usize, usize) {
        let lacks = |plan: &&ServicePlan, internal: bool| {
            plan.frontends.iter().any(|(frontend, backends)| {
                let is_internal = frontend.address.is_some_and(|ip| plan.cluster_ips.contains(&ip));
                is_internal == internal
                    && backends.endpoints.is_empty()
                    && backends.otherwise == NoEndpoints::Drop
            })
        };
        let count = |internal| self.plans.values().filter(|plan| lacks(plan, internal)).count();
        (count(true), count(false))
    }

    fn note(&self, plan: Option<&ServicePlan>, changes: &mut Changes) {
        let Some(plan) = plan else { return };
        for frontend in plan.frontends.keys() {
            changes.frontends.entry(*frontend).or_insert_with(|| self.backends(frontend).cloned());
        }
        for ip in &plan.cluster_ips {
            changes.cluster_ips.entry(*ip).or_insert_with(|| self.has_cluster_ip(ip));
        }
        for ip in &plan.local_endpoints {
            changes.local_endpoints.entry(*ip).or_insert_with(|| self.has_local_endpoint(ip));
        }
    }

    fn withdraw(&mut self, frontend: &Frontend, key: &NamespacedName) {
        if let Some(claims) = self.claims.get_mut(frontend) {
            claims.retain(|other| **other != *key);
            if claims.is_empty() {
                self.claims.remove(frontend);
            }
        }
    }
}

/// Addresses with how many Services have each.
#[derive(Clone, Debug, Default)]
struct Counted(BTreeMap<IpAddr, u32>);

impl Counted {
    fn replace(&mut self, old: &BTreeSet<IpAddr>, new: &BTreeSet<IpAddr>) {
        for address in new.difference(old) {
            *self.0.entry(*address).or_default() += 1;
        }
        for address in old.difference(new) {
            if let Some(count) = self.0.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::IpFamily;
    use crate::protocol::Protocol;
    use crate::proxy::plan::Origin;
    use crate::testing::{at, ip};
    use proptest::prelude::*;

    fn frontend(port: u16) -> Frontend {
        let address = Some(ip("203.0.113.7"));
        Frontend { family: IpFamily::V4, address, protocol: Protocol::Tcp, port, origin: Origin::Anywhere }
    }

    fn plan(ports: &[u16], endpoint: &str) -> ServicePlan {
        let backends = Backends {
            endpoints: vec![at(endpoint)],
            otherwise: NoEndpoints::Reject,
            masquerade: false,
            affinity_seconds: None,
            sources: vec![],
        };
        let frontends = ports.iter().map(|port| (frontend(*port), backends.clone())).collect();
        ServicePlan { frontends, local_endpoints: [at(endpoint).ip()].into(), ..ServicePlan::default() }
    }

    fn name(name: &str) -> NamespacedName {
        NamespacedName::new("default", name)
    }

    #[test]
    fn the_first_by_name_has_a_frontend_until_it_goes() {
        let (mut tables, mut changes) = (Tables::default(), Changes::default());
        tables.set(&name("b"), plan(&[80], "10.0.0.2:80"), &mut changes);
        tables.set(&name("a"), plan(&[80], "10.0.0.1:80"), &mut changes);
        let endpoint = |tables: &Tables| tables.backends(&frontend(80)).map(|found| found.endpoints[0]);
        assert_eq!(endpoint(&tables), Some(at("10.0.0.1:80")));
        assert_eq!(changes.frontends[&frontend(80)], None, "as it was before the first change");
        let mut changes = Changes::default();
        tables.set(&name("a"), ServicePlan::default(), &mut changes);
        assert_eq!(endpoint(&tables), Some(at("10.0.0.2:80")));
        assert_eq!(
            changes.frontends[&frontend(80)].as_ref().map(|was| was.endpoints[0]),
            Some(at("10.0.0.1:80"))
        );
        tables.set(&name("b"), ServicePlan::default(), &mut changes);
        assert!(tables.frontends().next().is_none() && tables.local_endpoints().next().is_none());
    }

    proptest! {
        #[test]
        fn changes_name_everything_that_changed(history in proptest::collection::vec((0u8..3, proptest::collection::vec(1u16..4, 0..3), 1u8..4), 1..12)) {
            let mut tables = Tables::default();
            for (service, ports, endpoint) in history {
                let before = tables.clone();
                let mut changes = Changes::default();
                let desired = if ports.is_empty() { ServicePlan::default() } else { plan(&ports, &format!("10.0.0.{endpoint}:80")) };
                tables.set(&name(&service.to_string()), desired, &mut changes);
                for port in 1..4 {
                    let was = before.backends(&frontend(port)).cloned();
                    match changes.frontends.get(&frontend(port)) {
                        Some(noted) => prop_assert_eq!(noted, &was),
                        None => prop_assert_eq!(tables.backends(&frontend(port)).cloned(), was),
                    }
                }
            }
        }
    }
}
