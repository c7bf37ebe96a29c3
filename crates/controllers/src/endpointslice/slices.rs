//! Packs endpoints into slices so that as few slices as possible change (follows upstream's `reconcileByPortMapping`).

use std::collections::HashMap;

use api::view::discovery::{Endpoint, EndpointSlice};

/// Upstream: `--max-endpoints-per-slice`.
pub const ENDPOINTS_PER_SLICE_MAX: usize = 100;

/// What is to become of the slices of one address family and one set of ports.
#[derive(Debug, Default, PartialEq)]
pub struct Packing {
    /// Index of an existing slice and its endpoints from now on; slices that stay as they are do not appear.
    pub changed: Vec<(usize, Vec<Endpoint>)>,
    pub unneeded: Vec<usize>,
    /// Endpoints of slices to be made.
    pub new: Vec<Vec<Endpoint>>,
}

/// What an endpoint is recognised by: the pod, and where it is.
fn identity(endpoint: &Endpoint) -> (&str, &[String]) {
    (endpoint.target_ref.as_ref().map_or("", |target| &target.uid), &endpoint.addresses)
}

/// Every wanted endpoint stays in the slice that holds it; newcomers fill changed slices first, then others with room,
/// then new ones.
pub fn pack(existing: &[&EndpointSlice], wanted: Vec<Endpoint>) -> Packing {
    let mut left: HashMap<_, Endpoint> = wanted.iter().map(|e| (identity(e), e.clone())).collect();
    let mut held: Vec<Vec<Endpoint>> = Vec::new();
    for slice in existing {
        held.push(slice.endpoints.iter().filter_map(|e| left.remove(&identity(e))).collect());
    }
    let mut newcomers: Vec<Endpoint> = wanted.iter().filter_map(|e| left.remove(&identity(e))).collect();
    let is_changed = |index: usize, held: &[Vec<Endpoint>]| held[index] != existing[index].endpoints;
    let mut order: Vec<usize> = (0..existing.len()).collect();
    order.sort_by_key(|index| !is_changed(*index, &held));
    for index in order {
        let room = ENDPOINTS_PER_SLICE_MAX.saturating_sub(held[index].len());
        let taken = newcomers.len().min(room);
        // An untouched slice with room takes newcomers only if it spares a new slice: it takes all, or none.
        if is_changed(index, &held) || taken == newcomers.len() {
            held[index].extend(newcomers.drain(..taken));
        }
    }
    let mut packing = Packing::default();
    for (index, endpoints) in held.into_iter().enumerate() {
        if endpoints.is_empty() {
            packing.unneeded.push(index);
        } else if endpoints != existing[index].endpoints {
            packing.changed.push((index, endpoints));
        }
    }
    packing.new = newcomers.chunks(ENDPOINTS_PER_SLICE_MAX).map(<[Endpoint]>::to_vec).collect();
    packing
}
