//! Whether what an APIService leads to can be called, as far as the stored objects tell.
//! Follows `AvailableConditionController.sync`, whose reasons and messages these are.

use api::apiregistration::AVAILABLE;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Whether an APIService says of itself that it can be called.
pub fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let available = conditions.iter().find(|condition| str_at(condition, &["type"]) == AVAILABLE);
    available.is_some_and(|condition| condition["status"] == "True")
}

/// What is found, with the reason and message of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub fn passed() -> Verdict {
        Verdict { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    fn failed(reason: &'static str, message: String) -> Verdict {
        Verdict { status: "False", reason, message }
    }

    pub fn of_discovery(why: String) -> Verdict {
        Verdict::failed("FailedDiscoveryCheck", why)
    }

    /// Writes the condition; false when the object says so already.
    pub fn apply(&self, object: &mut Value, now: &str) -> bool {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let (mine, mut others): (Vec<Value>, Vec<Value>) =
            conditions.into_iter().partition(|condition| str_at(condition, &["type"]) == AVAILABLE);
        let mut condition = json!({"type": AVAILABLE, "status": self.status, "reason": self.reason,
            "message": self.message, "lastTransitionTime": now});
        if let Some(old) = mine.first() {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == condition {
                return false;
            }
        }
        others.push(condition);
        object["status"]["conditions"] = json!(others);
        true
    }
}

/// Why the Service cannot be called; none when it is worth a try.
pub fn obstacle(api_service: &Value, service: Option<&Value>, slices: &[Value]) -> Option<Verdict> {
    let reference = &api_service["spec"]["service"];
    let (namespace, name) = (str_at(reference, &["namespace"]), str_at(reference, &["name"]));
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Verdict::failed("ServiceNotFound", message));
    };
    if str_at(service, &["spec", "type"]) != "ClusterIP" {
        return None;
    }
    let port = reference["port"].as_u64().unwrap_or_default();
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(served) = ports.iter().find(|served| served["port"].as_u64() == Some(port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::failed("ServicePortError", message));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::failed("EndpointsNotFound", message));
    }
    let port_name = str_at(served, &["name"]);
    if slices.iter().any(|slice| is_ready(slice, port_name)) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Some(Verdict::failed("MissingEndpoints", message))
}

fn is_ready(slice: &Value, port_name: &str) -> bool {
    let list = |field: &str| slice[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_served = |port: &Value| str_at(port, &["name"]) == port_name && port["port"].is_u64();
    list("endpoints").iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
        && list("ports").iter().any(is_served)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(service: Option<Value>, slices: &[Value], expect: &str) {
        let api_service = json!({"spec": {"service": {"namespace": "n", "name": "s", "port": 443}}});
        let found = obstacle(&api_service, service.as_ref(), slices);
        let found = found.map_or("-".to_owned(), |v| format!("{}: {}", v.reason, v.message));
        assert_eq!(found, expect);
    }

    #[test]
    fn the_first_obstacle_is_named_in_upstreams_words() {
        let service = |port: u16| {
            Some(json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}}))
        };
        let slice = |ready: bool, name: &str| json!({"ports": [{"name": name, "port": 8443}], "endpoints": [{"conditions": {"ready": ready}}]});
        check(None, &[], "ServiceNotFound: service/s in \"n\" is not present");
        check(service(80), &[], "ServicePortError: service/s in \"n\" is not listening on port 443");
        check(service(443), &[], "EndpointsNotFound: cannot find endpointslices for service/s in \"n\"");
        let missing = "MissingEndpoints: endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        check(service(443), &[slice(false, "https")], missing);
        check(service(443), &[slice(true, "http")], missing);
        check(service(443), &[slice(false, "https"), slice(true, "https")], "-");
        check(Some(json!({"spec": {"type": "ExternalName"}})), &[], "-");
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut object = json!({});
        assert!(Verdict::passed().apply(&mut object, "t1"));
        assert!(!Verdict::passed().apply(&mut object, "t2"));
        assert!(Verdict::of_discovery("x".to_owned()).apply(&mut object, "t3"));
        assert!(Verdict::of_discovery("y".to_owned()).apply(&mut object, "t4"));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "t3");
    }
}
