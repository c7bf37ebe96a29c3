//! What becomes of one ServiceCIDR.

use std::net::IpAddr;
use std::sync::Arc;

use api::networking::servicecidr::FINALIZER;
use api::resource::SERVICE_CIDRS;
use api::view::condition;
use api::view::core::Service;
use api::view::networking::ServiceCIDR;
use apimachinery::json;
use apimachinery::meta::Condition;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Plan};

/// How long a range that nobody needs stays: a server that has not heard of its end may still give out an address.
const DELETION_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);
const READY: &str = "Kubernetes Service CIDR is ready";
const STILL_HELD: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

pub fn reconcile(
    range: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    services: &[Arc<Service>],
    now: Timestamp,
) -> Plan {
    let is_held = range.metadata.finalizers.iter().any(|held| held == FINALIZER);
    let Some(since) = range.metadata.deletion_timestamp else {
        return if is_held { say(range, "True", "", READY, now) } else { hold(range) };
    };
    if !is_held {
        return Plan::default();
    }
    if !can_go(range, all, services) {
        return say(range, "False", ServiceCIDR::REASON_TERMINATING, STILL_HELD, now);
    }
    let end = since + DELETION_GRACE_PERIOD;
    if now < end {
        return Plan { requeue_at: Some(end), ..Plan::default() };
    }
    let others: Vec<&String> = range.metadata.finalizers.iter().filter(|held| *held != FINALIZER).collect();
    finalizers(range, &others)
}

fn hold(range: &ServiceCIDR) -> Plan {
    let mut held: Vec<&String> = range.metadata.finalizers.iter().collect();
    let ours = FINALIZER.to_owned();
    held.push(&ours);
    finalizers(range, &held)
}

fn finalizers(range: &ServiceCIDR, finalizers: &[&String]) -> Plan {
    let mut plan = Plan::default();
    let patch = json!({"metadata": {"finalizers": finalizers}});
    plan.act(Action::patch(SERVICE_CIDRS, &range.metadata, patch));
    plan
}

/// Sets the condition Ready, unless it says that already.
fn say(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let says = |c: &Condition| {
        (&*c.kind, &*c.status, &*c.reason, &*c.message) == (ServiceCIDR::READY, status, reason, message)
    };
    if range.status.conditions.iter().any(says) {
        return plan;
    }
    let ready = Condition {
        kind: ServiceCIDR::READY.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        ..Condition::default()
    };
    let mut conditions = range.status.conditions.clone();
    condition::set(&mut conditions, ready, now);
    // A condition has these, be they empty.
    let conditions: Vec<_> = conditions
        .iter()
        .map(|c| {
            json!({"type": c.kind, "status": c.status, "reason": c.reason,
        "message": c.message, "lastTransitionTime": c.last_transition_time.unwrap_or(now).to_string()})
        })
        .collect();
    plan.act(Action::update_status(SERVICE_CIDRS, &range.metadata, json!({"conditions": conditions})));
    plan
}

fn cidrs(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    range.spec.cidrs.iter().filter_map(|cidr| cidr.parse().ok())
}

/// Whether no address would be left without a range: others contain all of it, or nobody holds one of its own.
fn can_go(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], services: &[Arc<Service>]) -> bool {
    let others: Vec<&ServiceCIDR> =
        all.iter().map(|other| &**other).filter(|other| other.metadata.name != range.metadata.name).collect();
    let of_others = || others.iter().flat_map(|other| cidrs(other));
    if cidrs(range).all(|cidr| of_others().any(|other| other.contains(&cidr))) {
        return true;
    }
    let held = services.iter().flat_map(|service| &service.spec.cluster_ips).filter_map(|ip| ip.parse().ok());
    let mut own = held.filter(|ip| cidrs(range).any(|cidr| gives(&cidr, ip)));
    own.all(|ip| of_others().any(|other| gives(&other, &ip)))
}

/// Whether a Service can get this address of the range (upstream: `PrefixContainsIP`).
fn gives(cidr: &IpNet, address: &IpAddr) -> bool {
    let is_broadcast = matches!(cidr, IpNet::V4(_)) && *address == cidr.broadcast();
    cidr.contains(address) && *address != cidr.network() && !is_broadcast
}
