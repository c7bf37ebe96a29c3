//! IP families of a Service: those that the user names, or whose addresses he names, or the cluster's first; two where
//! the policy wants it and the cluster has both. Follows `initIPFamilyFields`.

use api::core::service::{CLUSTER_IP_NONE, validate_cluster_ips};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

pub const IPV4: &str = "IPv4";
pub const IPV6: &str = "IPv6";

const SINGLE_STACK: &str = "SingleStack";
const PREFER_DUAL_STACK: &str = "PreferDualStack";
const REQUIRE_DUAL_STACK: &str = "RequireDualStack";

/// Fills in policy and families; `configured` are the cluster's, the first of which is meant where none is named.
pub fn settle(service: &mut Value, old: Option<&Value>, configured: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.is_some_and(|old| goes_on_preferring_two(service, old)) {
        return errors;
    }
    if policy(service).is_empty() {
        service["spec"]["ipFamilyPolicy"] = default_policy(service, old).into();
    }
    validate_cluster_ips(service, old, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    if let Some(old) = old {
        release_second(service, old, &mut errors);
    }
    refuse_two_of_one(service, &mut errors);
    infer(service, configured, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    let mut families = texts(service, "ipFamilies");
    let dual = policy(service) != SINGLE_STACK;
    // Endpoints of a headless Service without selector are somebody else's, in whatever family.
    let anybodys = is_headless(service) && has_no_selector(service);
    if !anybodys {
        refuse_unconfigured(service, &families, configured, &mut errors);
        if !errors.is_empty() {
            return errors;
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|first| (*first).to_owned()));
    }
    if dual && families.len() == 1 && (anybodys || configured.len() > 1) {
        families.push(if families[0] == IPV4 { IPV6 } else { IPV4 }.to_owned());
    }
    service["spec"]["ipFamilies"] = json!(families);
    errors
}

/// A Service that prefers two families gains and loses none when the cluster does, unless it is asked for
/// (follows `isMatchingPreferDualStackClusterIPFields`).
fn goes_on_preferring_two(service: &Value, old: &Value) -> bool {
    let kind = str_at(service, &["spec", "type"]);
    policy(service) == PREFER_DUAL_STACK
        && matches!(policy(old), "" | PREFER_DUAL_STACK)
        && matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
        && kind == str_at(old, &["spec", "type"])
        && is_same(service, old, "clusterIPs")
        && is_same(service, old, "ipFamilies")
}

fn default_policy(service: &Value, old: Option<&Value>) -> String {
    match old.map(policy).filter(|policy| !policy.is_empty()) {
        Some(before) => before.to_owned(),
        None if is_headless(service) && has_no_selector(service) => REQUIRE_DUAL_STACK.to_owned(),
        None => SINGLE_STACK.to_owned(),
    }
}

/// What an update to one family means for the second; whoever changes the lists as well must say all of it.
fn release_second(service: &mut Value, old: &Value, errors: &mut ErrorList) {
    let lists = [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")];
    if policy(service) == SINGLE_STACK {
        let unchanged = lists.map(|(field, _)| is_same(service, old, field));
        for ((field, _), _) in lists.iter().zip(unchanged).filter(|(_, unchanged)| *unchanged) {
            if let Some(list) = service["spec"][*field].as_array_mut() {
                list.truncate(1);
            }
        }
        return;
    }
    for (field, what) in lists {
        let (now, before) = (texts(service, field), texts(old, field));
        if !now.is_empty() && now.len() < before.len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(of_policy(service, detail));
        }
    }
}

fn refuse_two_of_one(service: &Value, errors: &mut ErrorList) {
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if policy(service) == SINGLE_STACK && texts(service, field).len() == 2 {
            let detail =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(of_policy(service, detail));
        }
    }
}

/// Families of the addresses behind those that are named.
fn infer(service: &mut Value, configured: &[&str], errors: &mut ErrorList) {
    let addresses = texts(service, "clusterIPs");
    let mut families = texts(service, "ipFamilies");
    if is_headless(service) || addresses.len() <= families.len() {
        return;
    }
    for (at, address) in addresses.iter().enumerate().skip(families.len()) {
        let family = if address.contains(':') { IPV6 } else { IPV4 };
        if !configured.contains(&family) {
            let path = Path::new("spec").child("clusterIPs").index(at);
            let detail = format!("{family} is not configured on this cluster");
            errors.push(Error::invalid(&path, json!(addresses), detail));
        }
        families.push(family.to_owned());
    }
    service["spec"]["ipFamilies"] = json!(families);
}

fn refuse_unconfigured(service: &Value, families: &[String], configured: &[&str], errors: &mut ErrorList) {
    if policy(service) == REQUIRE_DUAL_STACK && configured.len() < 2 {
        errors.push(of_policy(service, "this cluster is not configured for dual-stack services".to_owned()));
    }
    for (at, family) in families.iter().enumerate().filter(|(_, it)| !configured.contains(&it.as_str())) {
        let path = Path::new("spec").child("ipFamilies").index(at);
        errors.push(Error::invalid(&path, family.as_str(), "not configured on this cluster"));
    }
}

fn of_policy(service: &Value, detail: String) -> Error {
    Error::invalid(&Path::new("spec").child("ipFamilyPolicy"), policy(service), detail)
}

fn policy(service: &Value) -> &str {
    str_at(service, &["spec", "ipFamilyPolicy"])
}

fn is_headless(service: &Value) -> bool {
    str_at(service, &["spec", "clusterIP"]) == CLUSTER_IP_NONE
}

fn has_no_selector(service: &Value) -> bool {
    service.pointer("/spec/selector").and_then(Value::as_object).is_none_or(|selector| selector.is_empty())
}

fn is_same(service: &Value, old: &Value, field: &str) -> bool {
    texts(service, field) == texts(old, field)
}

/// A list of the specification.
pub fn texts(service: &Value, field: &str) -> Vec<String> {
    let list = service["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[&str] = &[IPV4];
    const V6: &[&str] = &[IPV6];
    const DUAL: &[&str] = &[IPV4, IPV6];
    const DUAL_V6: &[&str] = &[IPV6, IPV4];

    /// Policy and families, or what is refused.
    fn settled(spec: Value, old: Option<Value>, configured: &[&str]) -> (String, String) {
        let mut service = json!({"spec": spec});
        let errors = settle(&mut service, old.map(|spec| json!({"spec": spec})).as_ref(), configured);
        match errors.first() {
            Some(error) => (String::new(), error.to_string()),
            None => (policy(&service).to_owned(), texts(&service, "ipFamilies").join(",")),
        }
    }

    #[test]
    fn a_new_service_has_the_families_that_it_asks_for_and_the_cluster_has() {
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        let selecting = json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}});
        for (spec, configured, policy, families) in [
            (json!({}), V4, SINGLE_STACK, "IPv4"),
            (json!({}), V6, SINGLE_STACK, "IPv6"),
            (json!({}), DUAL_V6, SINGLE_STACK, "IPv6"),
            (json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}), DUAL, SINGLE_STACK, "IPv6"),
            (json!({"ipFamilyPolicy": PREFER_DUAL_STACK}), V6, PREFER_DUAL_STACK, "IPv6"),
            (json!({"ipFamilyPolicy": PREFER_DUAL_STACK}), DUAL_V6, PREFER_DUAL_STACK, "IPv6,IPv4"),
            (
                json!({"ipFamilyPolicy": REQUIRE_DUAL_STACK, "ipFamilies": [IPV6]}),
                DUAL,
                REQUIRE_DUAL_STACK,
                "IPv6,IPv4",
            ),
            (headless.clone(), V4, REQUIRE_DUAL_STACK, "IPv4,IPv6"),
            (headless, V6, REQUIRE_DUAL_STACK, "IPv6,IPv4"),
            (selecting, V6, SINGLE_STACK, "IPv6"),
        ] {
            assert_eq!(settled(spec, None, configured), (policy.to_owned(), families.to_owned()));
        }
    }

    #[test]
    fn what_the_cluster_has_not_is_refused() {
        let both = json!({"ipFamilyPolicy": PREFER_DUAL_STACK, "ipFamilies": [IPV6, IPV4]});
        for (spec, configured, refusal) in [
            (
                json!({"ipFamilies": [IPV4]}),
                V6,
                "spec.ipFamilies[0]: Invalid value: \"IPv4\": not configured on this cluster",
            ),
            (both, V6, "spec.ipFamilies[1]: Invalid value: \"IPv4\": not configured on this cluster"),
            (
                json!({"ipFamilyPolicy": REQUIRE_DUAL_STACK}),
                V4,
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}),
                V6,
                "spec.clusterIPs[0]: Invalid value: [\"10.0.0.1\"]: IPv4 is not configured on this cluster",
            ),
            (
                json!({"ipFamilies": [IPV4, IPV6]}),
                DUAL,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ),
        ] {
            assert_eq!(settled(spec, None, configured).1, refusal);
        }
    }

    #[test]
    fn an_update_gains_and_loses_the_second_family_only_on_purpose() {
        let two = json!({"type": "ClusterIP", "ipFamilyPolicy": PREFER_DUAL_STACK, "ipFamilies": [IPV4, IPV6],
            "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd00::9"]});
        let one = json!({"type": "ClusterIP", "ipFamilyPolicy": SINGLE_STACK, "ipFamilies": [IPV4],
            "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]});
        let with = |spec: &Value, policy: &str| {
            let mut spec = spec.clone();
            spec["ipFamilyPolicy"] = policy.into();
            spec
        };
        let families = |spec: Value, old: &Value, configured| settled(spec, Some(old.clone()), configured).1;
        assert_eq!(families(with(&one, PREFER_DUAL_STACK), &one, DUAL), "IPv4,IPv6");
        assert_eq!(families(with(&two, SINGLE_STACK), &two, DUAL), "IPv4");
        let preferring = with(&one, PREFER_DUAL_STACK);
        assert_eq!(families(preferring.clone(), &preferring, DUAL), "IPv4", "the cluster became dual-stack");
        assert_eq!(families(two.clone(), &two, V4), "IPv4,IPv6", "it is dual-stack no more");
        let mut released = two.clone();
        released["clusterIPs"] = json!(["10.0.0.9"]);
        assert!(families(released, &two, DUAL).ends_with("to release the secondary cluster IP"));
    }
}
