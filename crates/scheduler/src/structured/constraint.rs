//! What the devices of a claim must have in common, or must not (follows upstream's `matchAttributeConstraint` and
//! `distinctAttributeConstraint`).

use api::view::dynamicresource::{DeviceAttribute, DeviceConstraint};

use super::pools::Candidate;
use super::request::Request;
use super::search::Chosen;

/// Whether one more device may join those that the claim has.
pub fn allows(
    constraint: &DeviceConstraint,
    chosen: &[Chosen<'_, '_>],
    request: &Request<'_>,
    candidate: &Candidate<'_>,
) -> bool {
    let concerns =
        |request: &Request<'_>| constraint.requests.is_empty() || request.is_in(&constraint.requests);
    if !concerns(request) {
        return true;
    }
    let (name, must_equal) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        // A kind of constraint that is not known cannot be kept.
        (None, None) => return false,
    };
    let Some(own) = attribute(candidate, name) else { return false };
    let others = chosen.iter().filter(|other| concerns(other.request));
    others.map(|other| attribute(&other.candidate, name)).all(|other| (other == Some(own)) == must_equal)
}

/// The attribute of this full name; in the driver's own domain it may be published without.
fn attribute<'a>(candidate: &Candidate<'a>, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = &candidate.device.attributes;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        attributes.get(id).filter(|_| domain == candidate.id.driver)
    })
}
