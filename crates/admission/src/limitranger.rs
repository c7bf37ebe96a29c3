//! LimitRanger: containers get the requests and limits their namespace's LimitRanges give by default, and nothing asks
//! for less or more than those allow. Follows `plugin/pkg/admission/limitranger`.

use api::core::pod::resources::{Counted, ResourceList, amounts, list, pod_limits, pod_requests};
use apimachinery::meta::{str_at, value_at};
use apimachinery::quantity::Quantity;
use apimachinery::{Map, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Up to here amounts are compared by thousandths (upstream: MaxMilliValue).
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        if concerns(request) && request.resource == "pods" {
            for range in world.list("limitranges", request.namespace) {
                set_defaults(object, &range);
            }
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        for range in world.list("limitranges", request.namespace) {
            let mut errors = Vec::new();
            for limit in limits(&range) {
                match request.resource {
                    "pods" => check_pod(limit, object, &mut errors),
                    _ => check_claim(limit, object, &mut errors),
                }
            }
            if !errors.is_empty() {
                return Err(request.forbidden(object, crate::aggregate(&errors)));
            }
        }
        Ok(())
    }
}

/// New pods and claims, grown claims, and pods whose containers get other resources.
fn concerns(request: &Request<'_>) -> bool {
    let deleted = request.old.is_some_and(|old| !str_at(old, &["metadata", "deletionTimestamp"]).is_empty());
    let is_right = match (request.group, request.resource, request.subresource) {
        ("", "pods", "resize") => request.operation == Operation::Update,
        ("", "pods", "") => request.operation == Operation::Create,
        ("", "persistentvolumeclaims", "") => {
            matches!(request.operation, Operation::Create | Operation::Update)
        }
        _ => false,
    };
    is_right && !deleted
}

fn limits(range: &Value) -> impl Iterator<Item = &Value> {
    value_at(range, &["spec", "limits"]).and_then(Value::as_array).into_iter().flatten()
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let mut requests = ResourceList::new();
    let mut most = ResourceList::new();
    for limit in limits(range).filter(|limit| limit["type"] == "Container") {
        requests.extend(amounts(Some(limit), "defaultRequest"));
        most.extend(amounts(Some(limit), "default"));
    }
    let mut notes = Vec::new();
    for (field, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let name = str_at(container, &["name"]).to_owned();
            let limits = fill(container, "limits", &most);
            let requests = fill(container, "requests", &requests);
            for (set, what) in [(requests, "request"), (limits, "limit")] {
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = Value::Object(Map::new());
        }
        pod["metadata"]["annotations"][ANNOTATION] =
            format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

/// Sets what a container does not say; returns the names, sorted.
fn fill(container: &mut Value, field: &str, defaults: &ResourceList) -> Vec<String> {
    let said = list(container, field);
    let missing: Vec<_> = defaults.iter().filter(|(name, _)| !said.contains_key(*name)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    if !container["resources"].is_object() {
        container["resources"] = Value::Object(Map::new());
    }
    if !container["resources"][field].is_object() {
        container["resources"][field] = Value::Object(Map::new());
    }
    for (name, amount) in &missing {
        container["resources"][field][name.as_str()] = amount.to_string().into();
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

fn check_pod(limit: &Value, pod: &Value, errors: &mut Vec<String>) {
    match str_at(limit, &["type"]) {
        "Container" => {
            for field in ["containers", "initContainers"] {
                let containers = value_at(pod, &["spec", field]).and_then(Value::as_array);
                for container in containers.into_iter().flatten() {
                    let asked =
                        Asked { requests: list(container, "requests"), limits: list(container, "limits") };
                    asked.check("Container", limit, errors);
                }
            }
        }
        "Pod" => {
            // Overhead is the node's business, so it is left out of what the pod asks for.
            let mut bare = pod.clone();
            if let Some(spec) = bare["spec"].as_object_mut() {
                spec.remove("overhead");
            }
            let asked = Asked {
                requests: pod_requests(&bare, Counted::Spec),
                limits: pod_limits(&bare, Counted::Spec),
            };
            asked.check("Pod", limit, errors);
        }
        _ => {}
    }
}

fn check_claim(limit: &Value, claim: &Value, errors: &mut Vec<String>) {
    const TYPE: &str = "PersistentVolumeClaim";
    if str_at(limit, &["type"]) != TYPE {
        return;
    }
    let requests = list(&claim["spec"], "requests");
    let asked = Asked { requests, limits: ResourceList::new() };
    errors.extend(amounts(Some(limit), "min").iter().filter_map(|(n, min)| asked.min(TYPE, n, min).err()));
    errors.extend(
        amounts(Some(limit), "max").iter().filter_map(|(n, max)| asked.max_request(TYPE, n, max).err()),
    );
}

struct Asked {
    requests: ResourceList,
    limits: ResourceList,
}

impl Asked {
    fn check(&self, kind: &str, limit: &Value, errors: &mut Vec<String>) {
        let each = |field: &str, check: &dyn Fn(&str, &Quantity) -> Result<(), String>| -> Vec<String> {
            amounts(Some(limit), field).iter().filter_map(|(n, amount)| check(n, amount).err()).collect()
        };
        errors.extend(each("min", &|name, min| self.min(kind, name, min)));
        errors.extend(each("max", &|name, max| self.max(kind, name, max)));
        errors.extend(each("maxLimitRequestRatio", &|name, max| self.ratio(kind, name, max)));
    }

    fn min(&self, kind: &str, name: &str, min: &Quantity) -> Result<(), String> {
        let what = format!("minimum {name} usage per {kind} is {min}");
        let (request, limit) = (self.requests.get(name), self.limits.get(name));
        let Some(asked) = request else { return Err(format!("{what}.  No request is specified")) };
        let [request, limit_value, enforced] = comparable(request, limit, min);
        if request < enforced {
            return Err(format!("{what}, but request is {asked}"));
        }
        match limit {
            Some(limit) if limit_value < enforced => Err(format!("{what}, but limit is {limit}")),
            _ => Ok(()),
        }
    }

    fn max_request(&self, kind: &str, name: &str, max: &Quantity) -> Result<(), String> {
        let what = format!("maximum {name} usage per {kind} is {max}");
        let request = self.requests.get(name);
        let Some(asked) = request else { return Err(format!("{what}.  No request is specified")) };
        let [request, _, enforced] = comparable(request, None, max);
        if request > enforced { Err(format!("{what}, but request is {asked}")) } else { Ok(()) }
    }

    fn max(&self, kind: &str, name: &str, max: &Quantity) -> Result<(), String> {
        let what = format!("maximum {name} usage per {kind} is {max}");
        let (request, limit) = (self.requests.get(name), self.limits.get(name));
        let Some(most) = limit else { return Err(format!("{what}.  No limit is specified")) };
        let [request_value, limit, enforced] = comparable(request, limit, max);
        if limit > enforced {
            return Err(format!("{what}, but limit is {most}"));
        }
        match request {
            Some(request) if request_value > enforced => Err(format!("{what}, but request is {request}")),
            _ => Ok(()),
        }
    }

    fn ratio(&self, kind: &str, name: &str, max: &Quantity) -> Result<(), String> {
        let what = format!("{name} max limit to request ratio per {kind} is {max}");
        let [request, limit, _] = comparable(self.requests.get(name), self.limits.get(name), max);
        if request == 0 {
            return Err(format!("{what}, but no request is specified or request is 0"));
        }
        if limit == 0 {
            return Err(format!("{what}, but no limit is specified or limit is 0"));
        }
        let ratio = limit as f64 / request as f64;
        if ratio > max.as_f64() { Err(format!("{what}, but provided ratio is {ratio:.6}")) } else { Ok(()) }
    }
}

/// The three as numbers of one unit: thousandths, unless one is too large for that.
fn comparable(request: Option<&Quantity>, limit: Option<&Quantity>, enforced: &Quantity) -> [i64; 3] {
    let all = [request.copied().unwrap_or_default(), limit.copied().unwrap_or_default(), *enforced];
    if all.iter().all(|amount| amount.value() <= MILLI_VALUE_MAX) {
        all.map(|amount| amount.milli_value())
    } else {
        all.map(|amount| amount.value())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn world(limit: Value) -> Objects {
        let range = json!({"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": [limit]}});
        Objects::default().with("limitranges", range)
    }

    fn check(limit: Value, resources: Value, expect: &str) {
        let user = UserInfo::anonymous();
        let spec = json!({"containers": [{"name": "a", "resources": resources}]});
        let found =
            run(&LimitRanger, &request(&user, Operation::Create, "pods", "p"), pod(spec), &world(limit));
        let expect =
            if expect.is_empty() { Ok(()) } else { Err(format!("pods \"p\" is forbidden: {expect}")) };
        assert_eq!(found.map(|_| ()), expect);
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let limit = json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}});
        let user = UserInfo::anonymous();
        let spec = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "3"}}}], "initContainers": [{"name": "i"}]});
        let create = request(&user, Operation::Create, "pods", "p");
        let found = run(&LimitRanger, &create, pod(spec), &world(limit)).expect("is allowed");
        assert_eq!(
            found["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "3", "memory": "1Gi"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(
            found["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; memory limit for container a; cpu request for init container i; cpu, memory limit for init container i"
        );
    }

    #[test]
    fn amounts_stay_within_bounds() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}});
        check(limit.clone(), json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}), "");
        check(
            limit.clone(),
            json!({"requests": {"cpu": "50m"}, "limits": {"memory": "2Gi"}}),
            "[minimum cpu usage per Container is 100m, but request is 50m, maximum memory usage per Container is 1Gi, but limit is 2Gi]",
        );
        check(
            limit,
            json!({}),
            "[minimum cpu usage per Container is 100m.  No request is specified, maximum memory usage per Container is 1Gi.  No limit is specified]",
        );
        check(
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
            "cpu max limit to request ratio per Pod is 2, but provided ratio is 3.000000",
        );
    }

    #[test]
    fn claims_stay_within_bounds() {
        let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        let user = UserInfo::anonymous();
        let claim =
            json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        let create = request(&user, Operation::Create, "persistentvolumeclaims", "c");
        assert_eq!(
            run(&LimitRanger, &create, claim, &world(limit)),
            Err("persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi".to_owned())
        );
    }
}
