//! The search itself: one device after the other for each request, going back where that leads nowhere (follows
//! upstream's `allocateOne`).

use std::collections::{BTreeMap, HashMap};

use api::view::dynamicresource::{ALLOCATION_RESULTS_MAX, Device, ResourceClaim};
use apimachinery::quantity::Quantity;

use super::allocated::Allocated;
use super::pools::{Candidate, Pool, State};
use super::request::{Request, Wanted};
use super::{DeviceId, Failure, capacity, constraint, counters};

/// How many devices are tried for one pod on one node: a search that goes on longer has nothing to find within
/// upstream's 10 seconds either (upstream: `FilterTimeout`).
const STEPS_MAX: usize = 200_000;

/// One alternative of one request of one claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct At {
    claim: usize,
    request: usize,
    alternative: usize,
}

/// A device and what it is for.
pub struct Chosen<'s, 'a> {
    pub request: &'s Request<'a>,
    pub candidate: Candidate<'a>,
    /// What is taken of a device that others may have a share of too.
    pub consumed: BTreeMap<String, Quantity>,
}

pub struct Search<'s, 'a> {
    wanted: &'s [&'s Wanted<'a>],
    pools: &'s [Pool<'a>],
    allocated: &'s Allocated<'a>,
    /// The devices of pools that are ready, each with its pool's place.
    ready: Vec<(usize, Candidate<'a>)>,
    /// Of alternatives that want all devices: which those are, by their places in `ready`.
    all: HashMap<At, Vec<usize>>,
    /// What selectors have said already.
    selected: HashMap<(At, DeviceId<'a>), bool>,
    /// By claim.
    chosen: Vec<Vec<Chosen<'s, 'a>>>,
    steps: usize,
}

impl<'s, 'a> Search<'s, 'a> {
    pub fn new(
        wanted: &'s [&'s Wanted<'a>],
        pools: &'s [Pool<'a>],
        allocated: &'s Allocated<'a>,
    ) -> Result<Self, Failure> {
        let ready = pools.iter().enumerate().filter(|(_, pool)| pool.state == State::Ready);
        let ready = ready.flat_map(|(n, pool)| pool.devices.iter().map(move |candidate| (n, *candidate)));
        let mut search = Search {
            wanted,
            pools,
            allocated,
            ready: ready.collect(),
            all: HashMap::new(),
            selected: HashMap::new(),
            chosen: wanted.iter().map(|_| Vec::new()).collect(),
            steps: 0,
        };
        for claim in 0..wanted.len() {
            search.prepare(claim)?;
        }
        Ok(search)
    }

    /// The devices for each claim.
    pub fn run(mut self, node: &str) -> Result<Vec<Vec<Chosen<'s, 'a>>>, Failure> {
        if self.serve(0, 0)? {
            return Ok(self.chosen);
        }
        if self.steps > STEPS_MAX {
            return Err(Failure::OnNode(format!("node {node}: timed out trying to allocate devices")));
        }
        if self.pools.iter().any(|pool| pool.state == State::Invalid) {
            return Err(Failure::OnNode("invalid resource pools were encountered".to_owned()));
        }
        Err(Failure::None)
    }

    /// Finds out what "all" is, and whether the claim can hold what it asks for.
    fn prepare(&mut self, claim: usize) -> Result<(), Failure> {
        let wanted = &self.wanted[claim];
        let mut least = 0;
        for (request, alternatives) in wanted.requests.iter().enumerate() {
            let mut least_of_request = usize::MAX;
            for (alternative, asked) in alternatives.iter().enumerate() {
                let at = At { claim, request, alternative };
                if asked.exactly.wants_all() {
                    let all = self.find_all(at)?;
                    self.all.insert(at, all);
                }
                least_of_request = least_of_request.min(self.count(at));
            }
            least += least_of_request.min(ALLOCATION_RESULTS_MAX + 1);
        }
        if least > ALLOCATION_RESULTS_MAX {
            return Err(Failure::Claim(format!(
                "claim {}: number of requested devices {least} exceeds the claim limit of {ALLOCATION_RESULTS_MAX}",
                name_of(wanted.claim)
            )));
        }
        Ok(())
    }

    fn find_all(&mut self, at: At) -> Result<Vec<usize>, Failure> {
        let (claim, request) = (name_of(self.wanted[at.claim].claim), self.request(at));
        for pool in self.pools {
            let why = match pool.state {
                State::Ready => continue,
                State::Incomplete => "being updated",
                State::Invalid => "invalid",
            };
            let (name, (driver, pool)) = (request.alternative.unwrap_or(request.base), pool.id);
            return Err(Failure::Claim(format!(
                "claim {claim}, request {name}: asks for all devices, but resource pool {driver}/{pool} is currently {why}"
            )));
        }
        let mut all = Vec::new();
        for (place, (_, candidate)) in self.ready.clone().into_iter().enumerate() {
            if self.selects(at, &candidate)? && self.take(request, &candidate).is_some() {
                all.push(place);
            }
        }
        Ok(all)
    }

    fn request(&self, at: At) -> &'s Request<'a> {
        &self.wanted[at.claim].requests[at.request][at.alternative]
    }

    fn count(&self, at: At) -> usize {
        match self.all.get(&at) {
            Some(all) => all.len(),
            None => usize::try_from(self.request(at).exactly.count).unwrap_or(usize::MAX),
        }
    }

    /// Serves this request and all that come after it.
    fn serve(&mut self, claim: usize, request: usize) -> Result<bool, Failure> {
        let Some(wanted) = self.wanted.get(claim) else { return Ok(true) };
        let Some(alternatives) = wanted.requests.get(request) else { return self.serve(claim + 1, 0) };
        for alternative in 0..alternatives.len() {
            let at = At { claim, request, alternative };
            let count = self.count(at);
            let has_room = self.chosen[claim].len().saturating_add(count) <= ALLOCATION_RESULTS_MAX;
            let wants_none = self.request(at).exactly.wants_all() && count == 0;
            if has_room && !wants_none && self.choose(at, count, 0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chooses `missing` more devices for a request, none before `from`: the order among them does not matter.
    fn choose(&mut self, at: At, missing: usize, from: usize) -> Result<bool, Failure> {
        if missing == 0 {
            return self.serve(at.claim, at.request + 1);
        }
        if let Some(all) = self.all.get(&at) {
            let place = all[all.len() - missing];
            return self.try_one(at, missing, place, true);
        }
        for place in from..(self.ready.len() + 1).saturating_sub(missing) {
            if self.try_one(at, missing, place, false)? {
                return Ok(true);
            }
            if self.steps > STEPS_MAX {
                break;
            }
        }
        Ok(false)
    }

    fn try_one(&mut self, at: At, missing: usize, place: usize, must: bool) -> Result<bool, Failure> {
        self.steps += 1;
        let (pool, candidate) = self.ready[place];
        let Some(consumed) = self.usable(at, pool, &candidate)? else { return Ok(false) };
        let (wanted, request) = (&self.wanted[at.claim], self.request(at));
        let chosen = &self.chosen[at.claim];
        let mut constraints = wanted.claim.spec.devices.constraints.iter();
        if !constraints.all(|constraint| constraint::allows(constraint, chosen, request, &candidate)) {
            if must {
                let (claim, id) = (name_of(wanted.claim), candidate.id);
                let request = request.alternative.unwrap_or(request.base);
                return Err(Failure::Claim(format!(
                    "claim {claim}, request {request}: cannot add device {id} because a claim constraint would not be satisfied"
                )));
            }
            return Ok(false);
        }
        self.chosen[at.claim].push(Chosen { request, candidate, consumed });
        let is_served = self.choose(at, missing - 1, place + 1)?;
        if !is_served {
            self.chosen[at.claim].pop();
        }
        Ok(is_served)
    }

    /// What is taken of a device that is free, chosen by the selectors, large enough and tolerated.
    fn usable(
        &mut self,
        at: At,
        pool: usize,
        candidate: &Candidate<'a>,
    ) -> Result<Option<BTreeMap<String, Quantity>>, Failure> {
        let request = self.request(at);
        if !self.is_free(at.claim, request, candidate) || !self.selects(at, candidate)? {
            return Ok(None);
        }
        let Some(taken) = self.take(request, candidate) else { return Ok(None) };
        // The first share of a device has taken its counters.
        let has_counters = candidate.is_shared() && self.is_part_taken(candidate.id)
            || counters::suffice(&self.pools[pool], self.allocated, self.chosen_of(pool), candidate.device);
        let is_usable = has_counters && request.tolerates(&candidate.device.taints);
        Ok(is_usable.then_some(taken))
    }

    fn is_free(&self, claim: usize, request: &Request<'_>, candidate: &Candidate<'_>) -> bool {
        let is_it = |other: &Chosen<'_, '_>| !candidate.is_shared() && other.candidate.id == candidate.id;
        if request.exactly.has_admin_access() {
            !self.chosen[claim].iter().any(is_it)
        } else {
            !self.allocated.is_whole(candidate.id) && !self.chosen.iter().flatten().any(is_it)
        }
    }

    fn selects(&mut self, at: At, candidate: &Candidate<'a>) -> Result<bool, Failure> {
        if let Some(said) = self.selected.get(&(at, candidate.id)) {
            return Ok(*said);
        }
        let said = self.request(at).selects(candidate).map_err(Failure::Claim)?;
        self.selected.insert((at, candidate.id), said);
        Ok(said)
    }

    /// What the request takes of the device, if that much is left; nothing of a device that one has for oneself.
    fn take(&self, request: &Request<'_>, candidate: &Candidate<'_>) -> Option<BTreeMap<String, Quantity>> {
        let taken = capacity::taken(request.exactly, candidate.device)?;
        if !candidate.is_shared() {
            return Some(BTreeMap::new());
        }
        let others = |name: &str| {
            let mut sum = self
                .allocated
                .shares(candidate.id)
                .and_then(|shares| shares.get(name))
                .copied()
                .unwrap_or_default();
            let same = self.chosen.iter().flatten().filter(|other| other.candidate.id == candidate.id);
            same.filter_map(|other| other.consumed.get(name)).for_each(|amount| sum.add(amount));
            sum
        };
        capacity::is_left(&taken, others, candidate.device).then_some(taken)
    }

    fn is_part_taken(&self, id: DeviceId<'_>) -> bool {
        self.allocated.shares(id).is_some()
            || self.chosen.iter().flatten().any(|other| other.candidate.id == id)
    }

    /// The devices chosen from this pool.
    fn chosen_of(&self, pool: usize) -> impl Iterator<Item = &'a Device> {
        let id = self.pools[pool].id;
        let all = self.chosen.iter().flatten().map(|other| other.candidate);
        all.filter(move |other| (other.id.driver, other.id.pool) == id).map(|other| other.device)
    }
}

fn name_of(claim: &ResourceClaim) -> String {
    claim.metadata.namespaced_name().to_string()
}
