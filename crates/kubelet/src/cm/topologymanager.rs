//! On which NUMA nodes a container's resources are to be, so that they are near each other (follows `topologymanager`).
//! Who gives resources out says where he could; the policy finds what all can agree on. Pure.

/// A set of NUMA nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumaNodes(u64);

impl NumaNodes {
    pub fn contains(self, node: u32) -> bool {
        node < u64::BITS && self.0 & (1 << node) != 0
    }

    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |node| self.contains(*node))
    }

    pub fn and(self, other: NumaNodes) -> NumaNodes {
        NumaNodes(self.0 & other.0)
    }

    /// Fewer nodes, or as many with lower numbers.
    pub fn is_narrower_than(self, other: NumaNodes) -> bool {
        (self.count(), self.0) < (other.count(), other.0)
    }

    /// Every set of these nodes but the empty one.
    pub fn subsets(self) -> Vec<NumaNodes> {
        let nodes: Vec<u32> = self.iter().collect();
        let mut subsets: Vec<NumaNodes> = (1..1_u64 << nodes.len())
            .map(|mask| (0..nodes.len()).filter(|bit| mask & (1 << bit) != 0).map(|bit| nodes[bit]).collect())
            .collect();
        subsets.sort_by_key(|subset| (subset.count(), subset.0));
        subsets
    }
}

impl FromIterator<u32> for NumaNodes {
    fn from_iter<I: IntoIterator<Item = u32>>(nodes: I) -> Self {
        NumaNodes(nodes.into_iter().filter(|node| *node < u64::BITS).fold(0, |set, node| set | 1 << node))
    }
}

/// Upstream's `topologyManagerPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

/// Upstream's `topologyManagerScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Container,
    Pod,
}

/// More nodes than these are not aligned (upstream's `defaultMaxAllowableNUMANodes`): the sets of them are too many.
pub const NUMA_NODES_MAX: u32 = 8;

/// Where a resource could be; without nodes anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    pub nodes: Option<NumaNodes>,
    /// No smaller set of nodes would do.
    pub preferred: bool,
}

pub const ANYWHERE: Hint = Hint { nodes: None, preferred: true };
/// What nothing is preferred of, and where nobody has agreed on anything.
const NOWHERE: Hint = Hint { nodes: None, preferred: false };

/// What is offered of one resource: `None` when it does not matter where it is, nothing when it is not to be had.
pub type Offer = Option<Vec<Hint>>;

/// The nodes that all agree on, and whether the policy lets the container run on them.
pub fn merge(policy: Policy, all: NumaNodes, offers: &[Offer]) -> (Hint, bool) {
    let hints: Vec<Vec<Hint>> = offers.iter().map(choices).collect();
    match policy {
        Policy::None => (NOWHERE, true),
        Policy::BestEffort => (best(all, &hints), true),
        Policy::Restricted => {
            let best = best(all, &hints);
            (best, best.preferred)
        }
        Policy::SingleNumaNode => {
            let single = |hint: &Hint| hint.preferred && hint.nodes.is_none_or(|nodes| nodes.count() == 1);
            let hints: Vec<Vec<Hint>> =
                hints.iter().map(|hints| hints.iter().copied().filter(single).collect()).collect();
            let mut best = best(all, &hints);
            if best.nodes == Some(all) {
                best.nodes = None;
            }
            (best, best.preferred)
        }
    }
}

fn choices(offer: &Offer) -> Vec<Hint> {
    match offer {
        None => vec![ANYWHERE],
        Some(hints) if hints.is_empty() => vec![NOWHERE],
        Some(hints) => hints.clone(),
    }
}

/// The best of all combinations of one hint of each.
fn best(all: NumaNodes, hints: &[Vec<Hint>]) -> Hint {
    let target = nodes_needed(hints);
    let mut best: Option<Hint> = None;
    let mut combination = Vec::with_capacity(hints.len());
    combine(hints, &mut combination, &mut |combination| {
        let merged = agree(all, combination);
        if merged.nodes.is_some_and(|nodes| nodes.count() > 0)
            && best.is_none_or(|best| is_better(merged, best, target))
        {
            best = Some(merged);
        }
    });
    best.unwrap_or(Hint { nodes: Some(all), preferred: false })
}

fn combine(hints: &[Vec<Hint>], chosen: &mut Vec<Hint>, each: &mut impl FnMut(&[Hint])) {
    let Some((first, rest)) = hints.split_first() else { return each(chosen.as_slice()) };
    for hint in first {
        chosen.push(*hint);
        combine(rest, chosen, each);
        chosen.pop();
    }
}

fn agree(all: NumaNodes, combination: &[Hint]) -> Hint {
    let mut named = combination.iter().filter_map(|hint| hint.nodes);
    let first = named.next();
    let equal = named.clone().all(|nodes| Some(nodes) == first);
    let nodes = first.into_iter().chain(named).fold(all, NumaNodes::and);
    Hint { nodes: Some(nodes), preferred: equal && combination.iter().all(|hint| hint.preferred) }
}

/// The fewest nodes that the most demanding resource needs.
fn nodes_needed(hints: &[Vec<Hint>]) -> u32 {
    let fewest = |hints: &Vec<Hint>| hints.iter().filter_map(|hint| hint.nodes).map(NumaNodes::count).min();
    hints.iter().filter_map(fewest).max().unwrap_or(0)
}

/// Preferred hints come first, the narrowest of them. Among others those are best that come nearest to `target` nodes.
fn is_better(candidate: Hint, current: Hint, target: u32) -> bool {
    let (Some(new), Some(old)) = (candidate.nodes, current.nodes) else { return false };
    match (candidate.preferred, current.preferred) {
        (true, false) => return true,
        (false, true) => return false,
        (true, true) => return new.is_narrower_than(old),
        (false, false) => {}
    }
    match (old.count().cmp(&target), new.count().cmp(&target)) {
        (std::cmp::Ordering::Greater, _) => new.is_narrower_than(old),
        (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) => new.is_narrower_than(old),
        (std::cmp::Ordering::Equal, _) => false,
        (std::cmp::Ordering::Less, std::cmp::Ordering::Greater) => false,
        (std::cmp::Ordering::Less, std::cmp::Ordering::Equal) => true,
        (std::cmp::Ordering::Less, std::cmp::Ordering::Less) => {
            new.count() > old.count() || new.count() == old.count() && new.is_narrower_than(old)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(nodes: &[u32]) -> NumaNodes {
        nodes.iter().copied().collect()
    }

    fn hint(of: &[u32], preferred: bool) -> Hint {
        Hint { nodes: Some(nodes(of)), preferred }
    }

    fn check(policy: Policy, offers: &[Offer], expect: (Hint, bool)) {
        assert_eq!(merge(policy, nodes(&[0, 1]), offers), expect, "{policy:?}");
    }

    #[test]
    fn without_anything_to_align_everything_goes() {
        check(Policy::None, &[Some(vec![])], (NOWHERE, true));
        check(Policy::BestEffort, &[None], (hint(&[0, 1], true), true));
        check(Policy::SingleNumaNode, &[None], (Hint { nodes: None, preferred: true }, true));
    }

    #[test]
    fn resources_meet_on_the_node_that_all_offer() {
        let cpus = Some(vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]);
        let device = Some(vec![hint(&[1], true), hint(&[0, 1], false)]);
        for policy in [Policy::BestEffort, Policy::Restricted, Policy::SingleNumaNode] {
            check(policy, &[cpus.clone(), device.clone()], (hint(&[1], true), true));
        }
    }

    #[test]
    fn what_cannot_meet_is_refused_by_the_strict_and_taken_by_the_others() {
        let offers = [Some(vec![hint(&[0], true)]), Some(vec![hint(&[1], true)])];
        let torn = Hint { nodes: Some(nodes(&[0, 1])), preferred: false };
        check(Policy::BestEffort, &offers, (torn, true));
        check(Policy::Restricted, &offers, (torn, false));
        let wide = [Some(vec![hint(&[0, 1], true)])];
        check(Policy::Restricted, &wide, (hint(&[0, 1], true), true));
        check(Policy::SingleNumaNode, &wide, (Hint { nodes: None, preferred: false }, false));
        check(Policy::Restricted, &[Some(vec![])], (hint(&[0, 1], false), false));
    }

    #[test]
    fn subsets_come_from_narrow_to_wide() {
        let subsets = nodes(&[0, 2]).subsets();
        assert_eq!(subsets, [nodes(&[0]), nodes(&[2]), nodes(&[0, 2])]);
    }
}
