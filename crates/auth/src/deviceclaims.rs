//! What only some may say in claims on devices: whom they are bound to, how the devices are that a driver has given, and
//! where an administrator's access may be asked for (follows upstream's `pkg/registry/resource/utils.go`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;

use crate::attributes::{Attributes, Decision};
use crate::user::{NODE_NAME, SERVICE_ACCOUNT_USER_PREFIX, UserInfo};

pub const GROUP: &str = "resource.k8s.io";
pub const CLAIMS: &str = "resourceclaims";
pub const TEMPLATES: &str = "resourceclaimtemplates";
/// Who may change `status.allocation` and `status.reservedFor`.
const BINDING: &str = "binding";
/// Who may change `status.devices`, by the name of a driver.
const DRIVER: &str = "driver";
/// Verbs for claims allocated on the node that the asker runs on, and for any.
const ASSOCIATED_NODE: &str = "associated-node:";
const ARBITRARY_NODE: &str = "arbitrary-node:";
/// The label of namespaces in which access of administrators may be asked for.
const ADMIN_ACCESS: &str = "resource.kubernetes.io/admin-access";

/// What is known of who asks, and of where.
pub struct Asker<'a> {
    pub user: &'a UserInfo,
    /// `update` or `patch`.
    pub verb: &'a str,
    pub namespace: &'a str,
    pub may: &'a dyn Fn(&Attributes<'_>) -> Decision,
    /// The namespace as it is stored.
    pub namespace_object: &'a dyn Fn() -> Option<std::sync::Arc<Value>>,
}

impl Asker<'_> {
    /// Of a new claim or template, of which `requests` are those for devices.
    pub fn check_requests(&self, requests: &Value) -> ErrorList {
        let requests = requests.as_array().map(Vec::as_slice).unwrap_or_default();
        let admin = requests.iter().position(|request| request["exactly"]["adminAccess"] == true);
        let path = Path::new("spec").child("devices").child("requests");
        self.check_admin(admin.map(|index| path.index(index)))
    }

    /// Of a claim whose status is written.
    pub fn check_status(&self, new: &Value, old: &Value) -> ErrorList {
        let (new, old) = (&new["status"], &old["status"]);
        let mut errors = self.check_results(new, old);
        errors.extend(self.check_binding(new, old));
        // Nothing is told of devices of a claim that has none.
        if new["allocation"].is_object() {
            errors.extend(self.check_devices(new, old));
        }
        errors
    }

    fn check_results(&self, new: &Value, old: &Value) -> ErrorList {
        let admin = |status: &Value| {
            let results = list(&status["allocation"]["devices"], "results");
            results.iter().position(|result| result["adminAccess"] == true)
        };
        let path = Path::new("status").child("allocation").child("devices").child("results");
        match admin(old) {
            // What is allocated stays so.
            Some(_) => ErrorList::new(),
            None => self.check_admin(admin(new).map(|index| path.index(index))),
        }
    }

    /// Access of administrators that is asked for at `path`.
    fn check_admin(&self, path: Option<Path>) -> ErrorList {
        let Some(path) = path.map(|path| path.child("adminAccess")) else { return ErrorList::new() };
        match (self.namespace_object)() {
            Some(namespace) if namespace["metadata"]["labels"][ADMIN_ACCESS] == "true" => ErrorList::new(),
            Some(_) => vec![Error::forbidden(
                &path,
                format!(
                    "admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace"
                ),
            )],
            None => vec![Error::internal(
                &path,
                format!(
                    "could not retrieve namespace to verify admin access: namespaces {:?} not found",
                    self.namespace
                ),
            )],
        }
    }

    fn check_binding(&self, new: &Value, old: &Value) -> ErrorList {
        if new["allocation"] == old["allocation"] && list(new, "reservedFor") == list(old, "reservedFor") {
            return ErrorList::new();
        }
        let verb = self.verb;
        let binding = Attributes { verb, subresource: BINDING, ..self.attributes() };
        let refusal = self.refusal(&binding).map(|why| {
            let path = Path::new("status").child("allocation");
            let what = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {why}"
            );
            Error::forbidden(&path, what)
        });
        refusal.into_iter().collect()
    }

    fn check_devices(&self, new: &Value, old: &Value) -> ErrorList {
        let is_near = self.node().is_some_and(|node| node_of(&new["allocation"]) == Some(node));
        let prefixes = if is_near { &[ASSOCIATED_NODE, ARBITRARY_NODE][..] } else { &[ARBITRARY_NODE] };
        let verbs: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}{}", self.verb)).collect();
        let path = Path::new("status").child("devices");
        let refused = changed_drivers(new, old).into_iter().filter_map(|driver| {
            let why = self.driver_refusal(driver, &verbs)?;
            let verbs = verbs.join(" ");
            let what = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}"
            );
            Some(Error::forbidden(&path, what))
        });
        refused.collect()
    }

    /// Why none of the verbs is allowed for a driver.
    fn driver_refusal(&self, driver: &str, verbs: &[String]) -> Option<String> {
        let namespace = self.namespace;
        let refusal = |verb: &String| {
            let asked =
                Attributes { verb, subresource: DRIVER, namespace, name: driver, ..self.attributes() };
            self.refusal(&asked)
        };
        let refusals: Option<Vec<String>> = verbs.iter().map(refusal).collect();
        refusals?.into_iter().next()
    }

    fn attributes(&self) -> Attributes<'_> {
        Attributes { group: GROUP, resource: CLAIMS, ..Attributes::of(self.user) }
    }

    fn refusal(&self, asked: &Attributes<'_>) -> Option<String> {
        let decision = (self.may)(asked);
        (!decision.is_allowed()).then(|| asked.forbidden(decision.reason()).message)
    }

    /// The node that a service account's pod runs on.
    fn node(&self) -> Option<&str> {
        let nodes = self.user.extra.get(NODE_NAME)?;
        match nodes.as_slice() {
            [node] if self.user.name.starts_with(SERVICE_ACCOUNT_USER_PREFIX) && !node.is_empty() => {
                Some(node)
            }
            _ => None,
        }
    }
}

fn list<'v>(object: &'v Value, field: &str) -> &'v [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The node that an allocation is tied to by its name, and by nothing else.
fn node_of(allocation: &Value) -> Option<&str> {
    let [term] = list(&allocation["nodeSelector"], "nodeSelectorTerms") else { return None };
    let ([], [field]) = (list(term, "matchExpressions"), list(term, "matchFields")) else { return None };
    if (str_at(field, &["key"]), str_at(field, &["operator"])) != ("metadata.name", "In") {
        return None;
    }
    match list(field, "values") {
        [node] => node.as_str(),
        _ => None,
    }
}

/// The drivers of whose devices something else is told than before.
fn changed_drivers<'v>(new: &'v Value, old: &'v Value) -> BTreeSet<&'v str> {
    let (new, old) = (list(new, "devices"), list(old, "devices"));
    let differing = |these: &'v [Value], others: &'v [Value]| {
        these.iter().filter(move |device| !others.contains(device)).map(|device| str_at(device, &["driver"]))
    };
    differing(new, old).chain(differing(old, new)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use apimachinery::json;

    use super::*;

    /// What somebody is told who may do `allowed`, each a verb with a subresource.
    fn check(allowed: &[&str], node: &str, new: &Value, old: &Value) -> Vec<String> {
        let mut user = UserInfo::new("system:serviceaccount:ns:driver", [""; 0]);
        user.extra = BTreeMap::from([(NODE_NAME.to_owned(), vec![node.to_owned()])]);
        let may = |asked: &Attributes<'_>| {
            let wanted = format!("{} {}", asked.verb, asked.subresource);
            match allowed.contains(&wanted.as_str()) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion(String::new()),
            }
        };
        let namespace = || Some(Arc::new(json!({"metadata": {"name": "ns"}})));
        let asker =
            Asker { user: &user, verb: "update", namespace: "ns", may: &may, namespace_object: &namespace };
        asker.check_status(new, old).iter().map(ToString::to_string).collect()
    }

    fn claim(devices: Value, reserved: Value) -> Value {
        let selector = json!({"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
        let allocation = json!({"nodeSelector": selector, "devices": {"results": []}});
        json!({"status": {"allocation": allocation, "devices": devices, "reservedFor": reserved}})
    }

    #[test]
    fn only_who_binds_says_for_whom_a_claim_is() {
        let (old, new) = (claim(json!([]), json!([])), claim(json!([]), json!([{"uid": "u"}])));
        assert_eq!(check(&["update binding"], "n", &new, &old), [""; 0]);
        assert_eq!(check(&[], "n", &old, &old), [""; 0]);
        assert_eq!(
            check(&[], "n", &new, &old),
            [
                "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden: User \"system:serviceaccount:ns:driver\" cannot update resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope"
            ]
        );
    }

    #[test]
    fn a_driver_tells_of_its_devices_on_its_node_or_on_any() {
        let old = claim(json!([]), json!([]));
        let new = claim(json!([{"driver": "d", "pool": "p", "device": "x"}]), json!([]));
        let refused = |allowed: &[&str], node| check(allowed, node, &new, &old).len();
        assert_eq!(refused(&["associated-node:update driver"], "n"), 0);
        assert_eq!(refused(&["associated-node:update driver"], "another"), 1);
        assert_eq!(refused(&["arbitrary-node:update driver"], "another"), 0);
        assert_eq!(refused(&["update binding"], "n"), 1);
        // What is taken back is told too.
        assert_eq!(check(&[], "n", &old, &new).len(), 1);
    }

    #[test]
    fn administrators_access_needs_a_namespace_that_has_it() {
        let user = UserInfo::anonymous();
        let may = |_: &Attributes<'_>| Decision::Allow(String::new());
        let told = |labels: Value| {
            let namespace = || Some(Arc::new(json!({"metadata": {"labels": labels}})));
            let asker = Asker {
                user: &user,
                verb: "create",
                namespace: "ns",
                may: &may,
                namespace_object: &namespace,
            };
            let requests = json!([{"name": "a"}, {"name": "b", "exactly": {"adminAccess": true}}]);
            asker.check_requests(&requests).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(json!({ADMIN_ACCESS: "true"})), [""; 0]);
        assert_eq!(
            told(json!({})),
            [
                "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
            ]
        );
    }
}
