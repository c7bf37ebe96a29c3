//! DynamicResources: a pod goes where the devices of its claims are reached, and where those of its other claims can be
//! had (follows upstream's plugin).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use api::view::core::nodeselector;
use api::view::dynamicresource::{AllocationResult, DeviceClass, DeviceRequest, ResourceClaim, claim_name};

use crate::devices::{Devices, PodDevices, Reservation};
use crate::diagnosis::Diagnosis;
use crate::extendedresources::{Asked, ExtendedResources};
use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::structured::{Allocator, Failure, Wanted};

pub const NAME: &str = "DynamicResources";
const CANNOT_ALLOCATE: &str = "cannot allocate all claims";
const NOT_ON_NODE: &str = "resourceclaim not available on the node";
const IN_USE: &str = "resourceclaim in use";
const NOT_ANEW: &str = "cannot schedule extended resource claim";

type Claims<'a> = Vec<&'a Arc<ResourceClaim>>;

struct DynamicResources<'a> {
    claims: Claims<'a>,
    /// None: all claims have their devices.
    allocator: Option<Allocator<'a>>,
    /// What of the pod's requests becomes a claim of its own, by node.
    extended: Option<ExtendedResources<'a>>,
    classes: HashMap<&'a str, &'a DeviceClass>,
}

/// What the pod's claims without devices get on a node, and the claim that is made for it there, the last of these.
struct Chosen {
    results: Vec<AllocationResult>,
    asked: Option<Asked>,
}

struct Refused(String);

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    if asks_for_nothing(pod, &snapshot.devices) {
        return None;
    }
    match DynamicResources::new(pod, &snapshot.devices) {
        Ok(prepared) if prepared.claims.is_empty() && prepared.extended.is_none() => None,
        Ok(prepared) => Some(Box::new(prepared)),
        Err(why) => Some(Box::new(Refused(why))),
    }
}

fn asks_for_nothing(pod: &PodInfo, devices: &Devices) -> bool {
    pod.pod.spec.resource_claims.is_empty() && ExtendedResources::of(pod, devices).is_none()
}

/// What the pod's claims need when it goes to this node, which the filter has passed.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> PodDevices {
    if asks_for_nothing(pod, &snapshot.devices) {
        return PodDevices::default();
    }
    let prepared = DynamicResources::new(pod, &snapshot.devices).ok();
    prepared.and_then(|prepared| prepared.decide(pod, node)).unwrap_or_default()
}

/// What is to become of a claim so that its pod may find devices elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// It loses its devices.
    Deallocate(Arc<ResourceClaim>),
    /// It was made for a placement that came to nothing.
    Delete(Arc<ResourceClaim>),
}

/// A claim whose devices no node offers to the pod where it needs them, and that nobody else uses: without them it could
/// get others (upstream: PostFilter). With it the words for what is done.
pub fn to_undo(pod: &PodInfo, snapshot: &Snapshot, diagnosis: &Diagnosis) -> (Option<Undo>, &'static str) {
    if asks_for_nothing(pod, &snapshot.devices) {
        return (None, "no new claims to deallocate");
    }
    let is_at_fault = |rejection: &Rejection| rejection.reasons.iter().any(|reason| reason == NOT_ON_NODE);
    let nodes: Vec<_> = diagnosis.nodes.iter().filter(|(_, (_, rejection))| is_at_fault(rejection)).collect();
    let claims = pod_claims(pod, &snapshot.devices).unwrap_or_default();
    let found = claims.into_iter().find(|claim| {
        let others = claim.status.reserved_for.iter().any(|consumer| consumer.uid != pod.uid());
        let is_missed = |name: &str| snapshot.node(name).is_some_and(|node| !is_available(claim, node));
        !others && nodes.iter().any(|(name, _)| is_missed(name))
    });
    if let Some(claim) = found {
        return (Some(Undo::Deallocate(claim.clone())), "deallocation of ResourceClaim completed");
    }
    match snapshot.devices.claim_of_extended_resources(pod.uid()) {
        Some(claim) => (Some(Undo::Delete(claim.clone())), "deletion of ResourceClaim completed"),
        None => (None, "still not schedulable"),
    }
}

impl<'a> DynamicResources<'a> {
    fn new(pod: &'a PodInfo, devices: &'a Devices) -> Result<Self, String> {
        let extended = ExtendedResources::of(pod, devices);
        if extended.is_some() && devices.claim_of_extended_resources(pod.uid()).is_some() {
            return Err(NOT_ANEW.to_owned());
        }
        let claims = pod_claims(pod, devices)?;
        for claim in &claims {
            check(pod, claim, devices)?;
        }
        let waiting: Vec<&ResourceClaim> =
            claims.iter().filter(|claim| claim.status.allocation.is_none()).map(|claim| &***claim).collect();
        let mut classes: HashMap<&str, &DeviceClass> = HashMap::new();
        let allocator = if waiting.is_empty() && extended.is_none() {
            None
        } else {
            classes.extend(devices.classes().map(|class| (class.metadata.name.as_str(), &**class)));
            Some(Allocator::new(&waiting, &classes, devices.slices(), devices.allocated())?)
        };
        Ok(DynamicResources { claims, allocator, extended, classes })
    }

    fn allocate(&self, node: &NodeInfo) -> Result<Chosen, Failure> {
        let asked = self.extended.as_ref().and_then(|extended| extended.on(node));
        let wanted = asked.as_ref().map(|asked| Wanted::new(&asked.claim, &self.classes));
        let wanted = wanted.transpose().map_err(Failure::Claim)?;
        let results = match &self.allocator {
            Some(allocator) => allocator.allocate(&node.node, wanted.as_ref())?,
            None => Vec::new(),
        };
        Ok(Chosen { results, asked })
    }

    fn decide(&self, pod: &PodInfo, node: &NodeInfo) -> Option<PodDevices> {
        let Chosen { results, asked } = self.allocate(node).ok()?;
        let mut allocations = results.into_iter();
        let mut reservations = Vec::new();
        for claim in &self.claims {
            let allocation = match claim.status.allocation {
                Some(_) => None,
                None => Some(Arc::new(allocations.next()?)),
            };
            if allocation.is_some() || !claim.is_reserved_for(pod.uid()) {
                reservations.push(Reservation { claim: (*claim).clone(), allocation });
            }
        }
        let mut mappings = Vec::new();
        if let Some(asked) = asked {
            let allocation = Some(Arc::new(allocations.next()?));
            reservations.push(Reservation { claim: Arc::new(asked.claim), allocation });
            mappings = asked.mappings;
        }
        Some(PodDevices { reservations, mappings })
    }
}

impl Filter for DynamicResources<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let is_missed = !self.claims.iter().all(|claim| is_available(claim, node));
        match self.allocate(node) {
            Err(Failure::None) => Err(Rejection::unresolvable(CANNOT_ALLOCATE)),
            Err(Failure::OnNode(why) | Failure::Claim(why)) => Err(Rejection::unresolvable(why)),
            Ok(_) if is_missed => Err(Rejection::unresolvable(NOT_ON_NODE)),
            Ok(_) => Ok(()),
        }
    }
}

impl Filter for Refused {
    fn refuses_all(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Owned(self.0.clone()))
    }

    fn filter(&self, _: &NodeInfo) -> Result<(), Rejection> {
        Err(Rejection::unresolvable(self.0.clone()))
    }
}

/// The claims that the pod needs, if all of them are there (upstream: `foreachPodResourceClaim`).
fn pod_claims<'a>(pod: &PodInfo, devices: &'a Devices) -> Result<Claims<'a>, String> {
    let mut claims = Vec::new();
    for wanted in &pod.pod.spec.resource_claims {
        let Some(name) = claim_name(&pod.pod, wanted)? else { continue };
        let Some(claim) = devices.claim(pod.namespace(), name) else {
            return Err(format!("resourceclaim.resource.k8s.io {name:?} not found"));
        };
        if claim.metadata.is_being_deleted() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        if wanted.resource_claim_template_name.is_some() {
            claim.check_made_for(&pod.pod.metadata)?;
        }
        claims.push(claim);
    }
    Ok(claims)
}

/// Why the pod has to wait for this claim, wherever it goes.
fn check(pod: &PodInfo, claim: &ResourceClaim, devices: &Devices) -> Result<(), String> {
    if claim.status.allocation.is_some() {
        let is_free = claim.can_be_reserved() || claim.is_reserved_for(pod.uid());
        return if is_free { Ok(()) } else { Err(IN_USE.to_owned()) };
    }
    let name = claim.metadata.namespaced_name();
    if devices.is_in_flight(claim) {
        return Err(format!("resource claim {name} is in the process of being allocated"));
    }
    for request in &claim.spec.devices.requests {
        for (request, class) in classes_of(request) {
            if class.is_empty() {
                return Err(format!("request {request}: unsupported request type"));
            }
            if devices.class(class).is_none() {
                return Err(format!("request {request}: device class {class} does not exist"));
            }
        }
    }
    Ok(())
}

/// Each way to serve the request, with the class of devices it means.
fn classes_of(request: &DeviceRequest) -> Vec<(String, &str)> {
    let exactly =
        request.exactly.iter().map(|exactly| (request.name.clone(), exactly.device_class_name.as_str()));
    let alternatives = request.first_available.iter().map(|alternative| {
        (format!("{}/{}", request.name, alternative.name), alternative.exactly.device_class_name.as_str())
    });
    exactly.chain(alternatives).collect()
}

/// Whether the devices that the claim has are reached from the node.
fn is_available(claim: &ResourceClaim, node: &NodeInfo) -> bool {
    let selector = claim.status.allocation.as_ref().and_then(|allocation| allocation.node_selector.as_ref());
    selector.is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| nodeselector::matches_term(term, &node.node))
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::devices::Change;
    use crate::testing::{added, cluster, pod_info};

    fn claim(status: Value) -> Value {
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "k", "allocationMode": "ExactCount", "count": 1}}]);
        json!({"kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "default", "uid": "u"},
            "spec": {"devices": {"requests": requests}}, "status": status})
    }

    fn class() -> Value {
        json!({"kind": "DeviceClass", "metadata": {"name": "k"}})
    }

    fn slice() -> Value {
        json!({"kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": "n",
            "devices": [{"name": "x"}], "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
    }

    fn allocated_on(node: &str, users: Value) -> Value {
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        claim(json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": [term]}}, "reservedFor": users}))
    }

    fn snapshot(objects: &[Value]) -> Snapshot {
        let mut devices = Devices::default();
        for object in objects {
            devices.apply(&match object["kind"].as_str().unwrap() {
                "ResourceClaim" => Change::Claim(added(object)),
                "DeviceClass" => Change::Class(added(object)),
                "ResourceSlice" => Change::Slice(added(object)),
                other => panic!("{other}"),
            });
        }
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "9"}}});
        let mut snapshot = cluster([(node, vec![])]);
        snapshot.devices = Arc::new(devices);
        snapshot
    }

    fn pod() -> PodInfo {
        pod_info(json!({"resourceClaims": [{"name": "a", "resourceClaimName": "c"}]}))
    }

    /// On node `n`: how many reservations are decided, and how many devices given with them, or why none are.
    fn check(objects: &[Value], expect: Result<(usize, usize), &str>) {
        let (pod, snapshot) = (pod(), snapshot(objects));
        let filter = filter(&pod, &snapshot).expect("it has a say");
        let found = match filter.refuses_all() {
            Some(reason) => Err(reason.into_owned()),
            None => filter.filter(&snapshot.nodes[0]).map_err(|rejection| rejection.reasons.join(", ")),
        };
        let decided = || decide(&pod, &snapshot, &snapshot.nodes[0]).reservations;
        let found = found.map(|()| {
            let decided = decided();
            (decided.len(), decided.iter().filter(|reservation| reservation.allocation.is_some()).count())
        });
        assert_eq!(found, expect.map_err(str::to_owned), "{objects:?}");
    }

    #[test]
    fn a_claim_without_devices_gets_them_where_they_are() {
        check(&[claim(json!({})), class(), slice()], Ok((1, 1)));
        check(&[claim(json!({})), class()], Err("cannot allocate all claims"));
        check(&[claim(json!({})), slice()], Err("request r: device class k does not exist"));
    }

    #[test]
    fn a_claim_with_devices_ties_the_pod_to_where_they_are() {
        check(&[allocated_on("n", json!([]))], Ok((1, 0)));
        check(&[allocated_on("n", json!([{"resource": "pods", "name": "pod", "uid": "pod"}]))], Ok((0, 0)));
        check(&[allocated_on("m", json!([]))], Err("resourceclaim not available on the node"));
        let many: Vec<Value> = (0..256).map(|n| json!({"resource": "pods", "uid": n.to_string()})).collect();
        check(&[allocated_on("n", json!(many))], Err("resourceclaim in use"));
    }

    #[test]
    fn a_pod_waits_for_its_claims_and_says_why() {
        check(&[], Err("resourceclaim.resource.k8s.io \"c\" not found"));
        let mut ending = claim(json!({}));
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        check(&[ending], Err("resourceclaim \"c\" is being deleted"));
    }

    #[test]
    fn an_idle_claim_that_is_elsewhere_loses_its_devices() {
        let check = |users: Value, expect| {
            let (pod, snapshot) = (pod(), snapshot(&[allocated_on("m", users)]));
            let diagnosis = crate::schedule::schedule(&pod, &snapshot, &[]).unwrap_err();
            let (undo, words) = to_undo(&pod, &snapshot, &diagnosis);
            assert_eq!((matches!(undo, Some(Undo::Deallocate(_))), words), expect);
        };
        check(json!([]), (true, "deallocation of ResourceClaim completed"));
        check(json!([{"resource": "pods", "uid": "other"}]), (false, "still not schedulable"));
    }

    /// What is decided for a pod that asks for one device as an extended resource, on node `n`.
    fn check_extended(objects: &[Value], expect: Result<&[&str], &str>) {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"e.com/gpu": "1"}}}]});
        let (pod, snapshot) = (pod_info(spec), snapshot(objects));
        let filter = filter(&pod, &snapshot).expect("it has a say");
        let found = match filter.refuses_all() {
            Some(reason) => Err(reason.into_owned()),
            None => filter.filter(&snapshot.nodes[0]).map_err(|rejection| rejection.reasons.join(", ")),
        };
        let decided = decide(&pod, &snapshot, &snapshot.nodes[0]);
        let given = decided.reservations.iter().flat_map(|reservation| {
            let allocation = reservation.allocation.iter();
            allocation
                .flat_map(|allocation| allocation.devices.results.iter().map(|result| result.device.as_str()))
        });
        let found = found.map(|()| given.collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expect.map_err(str::to_owned).as_deref(), "{objects:?}");
        assert_eq!(decided.mappings.is_empty(), expect.is_err());
    }

    #[test]
    fn an_extended_resource_that_is_devices_is_claimed_for_the_pod() {
        let mut class = class();
        class["spec"]["extendedResourceName"] = "e.com/gpu".into();
        check_extended(&[class.clone(), slice()], Ok(&["x"]));
        check_extended(&[class.clone()], Err("cannot allocate all claims"));
        let mut stale = claim(json!({}));
        stale["metadata"]["annotations"] = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
        stale["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "pod", "controller": true}]);
        check_extended(
            &[class.clone(), slice(), stale.clone()],
            Err("cannot schedule extended resource claim"),
        );

        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"e.com/gpu": "1"}}}]});
        let (pod, snapshot) = (pod_info(spec), snapshot(&[class, slice(), stale]));
        let diagnosis = crate::schedule::schedule(&pod, &snapshot, &[]).unwrap_err();
        let (undo, words) = to_undo(&pod, &snapshot, &diagnosis);
        assert!(matches!(undo, Some(Undo::Delete(_))) && words == "deletion of ResourceClaim completed");
    }
}
