//! After which changes tracked flows are looked through.

use apimachinery::json;

use super::{endpoint, plan_into, service, slice};
use crate::proxy::conntrack::may_be_stale;
use crate::proxy::plan::{Backends, NoEndpoints};
use crate::proxy::{Changes, Tables};
use crate::testing::{at, ip};

fn backends(endpoints: &[&str]) -> Backends {
    Backends {
        endpoints: endpoints.iter().map(|endpoint| at(endpoint)).collect(),
        otherwise: NoEndpoints::Reject,
        masquerade: false,
        affinity_seconds: None,
        sources: vec![],
    }
}

/// Of a Service with one endpoint now, whether flows to it have to be looked for after it was like that before.
fn looked_for(address: &str, was: Option<&[&str]>) -> bool {
    let (mut tables, mut changes) = (Tables::default(), Changes::default());
    let spec = json!({"externalIPs": ["192.0.2.9"], "ports": [{"port": 80, "protocol": "UDP"}]});
    let slices = [slice("web", "UDP", &[endpoint("10.244.0.2")])];
    plan_into(&mut tables, &mut changes, &[service("web", spec)], &slices);
    let address = ip(address);
    let frontend = changes.frontends.keys().find(|frontend| frontend.address == Some(address));
    may_be_stale(frontend.expect("is served"), was.map(backends).as_ref(), &tables)
}

#[test]
fn flows_are_looked_for_where_some_may_lead_astray() {
    const CLUSTER_IP: &str = "10.96.0.10";
    assert!(!looked_for(CLUSTER_IP, Some(&[])), "nobody was let through");
    assert!(!looked_for(CLUSTER_IP, Some(&["10.244.0.2:8080"])), "they may stay");
    assert!(looked_for(CLUSTER_IP, Some(&["10.244.0.2:8080", "10.244.0.3:8080"])), "one endpoint went");
    assert!(looked_for(CLUSTER_IP, None), "a proxy before this one may have let them in");
    assert!(looked_for("192.0.2.9", None), "they went to whoever has the address");
}

#[test]
fn a_service_that_begins_without_endpoints_has_no_flows() {
    let (mut tables, mut changes) = (Tables::default(), Changes::default());
    let spec = json!({"externalIPs": ["192.0.2.9"], "ports": [{"port": 80, "protocol": "UDP"}]});
    plan_into(&mut tables, &mut changes, &[service("web", spec)], &[]);
    let stale: Vec<_> = changes.frontends.keys().filter(|it| may_be_stale(it, None, &tables)).collect();
    let external = stale.iter().map(|frontend| frontend.address);
    assert_eq!(external.collect::<Vec<_>>(), [Some(ip("192.0.2.9"))]);
}
