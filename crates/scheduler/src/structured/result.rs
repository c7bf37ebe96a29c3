//! The choice as a claim's status tells it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::view::core::nodeselector::NAME_FIELD;
use api::view::core::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use api::view::dynamicresource::{
    AllocationResult, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceClaim,
};
use apimachinery::{Value, json};

use super::request::{Request, Wanted};
use super::search::Chosen;

pub fn build(
    wanted: &Wanted<'_>,
    chosen: &[Chosen<'_, '_>],
    node: &Node,
) -> Result<AllocationResult, String> {
    let results = chosen.iter().enumerate().map(|(place, one)| result(wanted.claim, place, one));
    Ok(AllocationResult {
        devices: DeviceAllocationResult { results: results.collect(), config: config(wanted, chosen) },
        node_selector: node_selector(chosen, node)?,
        allocation_timestamp: None,
    })
}

fn result(claim: &ResourceClaim, place: usize, chosen: &Chosen<'_, '_>) -> DeviceRequestAllocationResult {
    let (exactly, candidate) = (chosen.request.exactly, &chosen.candidate);
    DeviceRequestAllocationResult {
        request: chosen.request.full_name(),
        driver: candidate.id.driver.to_owned(),
        pool: candidate.id.pool.to_owned(),
        device: candidate.id.device.to_owned(),
        admin_access: exactly.has_admin_access().then_some(true),
        tolerations: exactly.tolerations.clone(),
        binding_conditions: candidate.device.binding_conditions.clone(),
        binding_failure_conditions: candidate.device.binding_failure_conditions.clone(),
        share_id: candidate.is_shared().then(|| share_id(&claim.metadata.uid, place)),
        consumed_capacity: chosen.consumed.clone(),
    }
}

/// A UUID of a kind of its own: as unique as the claim's own, and the same when decided again.
fn share_id(claim: &str, place: usize) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, claim, place).hash(&mut hasher);
        hasher.finish()
    };
    const VERSION: u64 = 0x8000;
    const VARIANT: u64 = 0x8000_0000_0000_0000;
    let (high, low) = ((half(0) & !0xf000) | VERSION, (half(1) & !0xc000_0000_0000_0000) | VARIANT);
    let (low_head, low_tail) = (low >> 48, low & 0xffff_ffff_ffff);
    format!(
        "{:08x}-{:04x}-{:04x}-{low_head:04x}-{low_tail:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff
    )
}

/// What classes configure, once for each class, and then what the claim does, as far as it is about what was chosen.
fn config(wanted: &Wanted<'_>, chosen: &[Chosen<'_, '_>]) -> Vec<Value> {
    let served = wanted.requests.iter().filter_map(|alternatives| {
        alternatives.iter().find(|request| chosen.iter().any(|one| std::ptr::eq(one.request, *request)))
    });
    let served: Vec<&Request<'_>> = served.collect();
    let mut by_class: BTreeMap<usize, (&Request<'_>, Vec<String>)> = BTreeMap::new();
    for (place, request) in served.iter().enumerate() {
        let same = by_class.values_mut().find(|(first, _)| std::ptr::eq(first.class, request.class));
        match same {
            Some((_, names)) => names.push(request.full_name()),
            None => drop(by_class.insert(place, (*request, vec![request.full_name()]))),
        }
    }
    let of_classes = by_class.values().flat_map(|(request, names)| {
        request.class.spec.config.iter().map(|config| with_source(config, "FromClass", Some(names)))
    });
    let concerns = |config: &&Value| {
        let names: Vec<String> = apimachinery::from_value(config["requests"].clone()).unwrap_or_default();
        names.is_empty() || served.iter().any(|request| request.is_in(&names))
    };
    let of_claim = wanted.claim.spec.devices.config.iter().filter(concerns);
    of_classes.chain(of_claim.map(|config| with_source(config, "FromClaim", None))).collect()
}

fn with_source(config: &Value, source: &str, requests: Option<&Vec<String>>) -> Value {
    let mut config = config.clone();
    config["source"] = source.into();
    if let Some(requests) = requests {
        config["requests"] = json!(requests);
    }
    config
}

/// Where all the devices are reached: on this node when one of them is its own, otherwise where each says (follows
/// `createNodeSelector`).
fn node_selector(chosen: &[Chosen<'_, '_>], node: &Node) -> Result<Option<NodeSelector>, String> {
    let mut all = NodeSelectorTerm::default();
    for one in chosen {
        let reach = one.candidate.reach();
        if reach.node_name.is_some() || one.candidate.device.binds_to_node == Some(true) {
            return Ok(Some(only(&node.metadata.name)));
        }
        match reach.node_selector.as_ref().map(|selector| selector.node_selector_terms.as_slice()) {
            None | Some([]) => {}
            Some([term]) => {
                add_new(&term.match_fields, &mut all.match_fields);
                add_new(&term.match_expressions, &mut all.match_expressions);
            }
            Some(terms) => {
                return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len()));
            }
        }
    }
    let is_anywhere = all.match_fields.is_empty() && all.match_expressions.is_empty();
    Ok((!is_anywhere).then(|| NodeSelector { node_selector_terms: vec![all] }))
}

fn only(node: &str) -> NodeSelector {
    let requirement = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: vec![node.to_owned()],
    };
    let term = NodeSelectorTerm { match_fields: vec![requirement], ..NodeSelectorTerm::default() };
    NodeSelector { node_selector_terms: vec![term] }
}

fn add_new(from: &[NodeSelectorRequirement], to: &mut Vec<NodeSelectorRequirement>) {
    for requirement in from {
        if !to.contains(requirement) {
            to.push(requirement.clone());
        }
    }
}
