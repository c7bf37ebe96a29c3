//! ResourceQuota: what is written fits into what its namespace has left. Decides only; who calls stores the new usage
//! before the object is. Follows `CheckRequest`.

use api::quota::{
    self, Counting, Evaluator, ResourceList, add, amounts, exceeded, mask, negative, remove_zeros,
    subtract_to_zero,
};
use apimachinery::meta::str_at;
use apimachinery::{Map, Status, Value};

use crate::request::{Operation, Request};

/// Upstream's name, as `--enable-admission-plugins` takes it.
pub const NAME: &str = "ResourceQuota";

/// Whether a quota may have to pay for this request.
pub fn concerns(request: &Request<'_>, object: &Value) -> bool {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let creates_namespace = request.group.is_empty() && request.resource == "namespaces";
    let Some(evaluator) = Evaluator::of(request.group, request.resource) else { return false };
    writes && !request.namespace.is_empty() && !creates_namespace && handles(&evaluator, request, object)
}

fn handles(evaluator: &Evaluator, request: &Request<'_>, object: &Value) -> bool {
    let (creates, updates) = (request.operation == Operation::Create, request.operation == Operation::Update);
    let old = request.old.unwrap_or(&Value::Null);
    match (evaluator, request.subresource) {
        (Evaluator::Pods, "") => {
            creates || (updates && quota::pods::is_terminating(object) != quota::pods::is_terminating(old))
        }
        (Evaluator::Pods, "resize") => updates,
        (Evaluator::PersistentVolumeClaims, "status") => {
            let differs = |field: &str| object["status"][field] != old["status"][field];
            ["allocatedResources", "currentVolumeAttributesClassName", "modifyVolumeStatus"]
                .into_iter()
                .any(differs)
        }
        (Evaluator::Services | Evaluator::PersistentVolumeClaims | Evaluator::ResourceClaims, "") => true,
        (Evaluator::ObjectCount(_), "") => creates,
        _ => false,
    }
}

/// Those of the namespace's quotas that have to be stored, with the usage that this request adds.
pub fn charge(
    request: &Request<'_>,
    object: &Value,
    quotas: &[Value],
    counting: &Counting,
) -> Result<Vec<Value>, Status> {
    let Some(evaluator) = Evaluator::of(request.group, request.resource) else { return Ok(Vec::new()) };
    let matching = matching(&evaluator, request, object, quotas, counting)?;
    if matching.is_empty() {
        return Ok(Vec::new());
    }
    let usage = evaluator.usage(object, counting);
    let below_zero = negative(&usage);
    if !below_zero.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", below_zero.join(","));
        return Err(request.forbidden(object, why));
    }
    let old = request.old.filter(|_| request.operation == Operation::Update);
    let mut charged = Vec::new();
    for quota in matching {
        let delta = match old {
            Some(old) if evaluator.matches(quota, old, counting) => {
                subtract_to_zero(&usage, &evaluator.usage(old, counting))
            }
            _ => usage.clone(),
        };
        charged.extend(charge_one(request, object, quota, &remove_zeros(delta))?);
    }
    Ok(charged)
}

fn matching<'q>(
    evaluator: &Evaluator,
    request: &Request<'_>,
    object: &Value,
    quotas: &'q [Value],
    counting: &Counting,
) -> Result<Vec<&'q Value>, Status> {
    let mut matching = Vec::new();
    for quota in quotas.iter().filter(|quota| evaluator.matches(quota, object, counting)) {
        let name = str_at(quota, &["metadata", "name"]);
        let hard = amounts(quota.get("status"), "hard");
        let used = amounts(quota.get("status"), "used");
        let restricted = evaluator.matching_resources(hard.keys().map(String::as_str), counting);
        evaluator
            .constraints(&restricted, object)
            .map_err(|why| request.forbidden(object, format!("failed quota: {name}: {why}")))?;
        if restricted.iter().any(|name| !used.contains_key(*name)) {
            let names = restricted.join(",");
            let why = format!("status unknown for quota: {name}, resources: {names}");
            return Err(request.forbidden(object, why));
        }
        matching.push(quota);
    }
    Ok(matching)
}

/// The quota with the added usage, none when it stays as it is.
fn charge_one(
    request: &Request<'_>,
    object: &Value,
    quota: &Value,
    delta: &ResourceList,
) -> Result<Option<Value>, Status> {
    let hard = amounts(quota.get("status"), "hard");
    let used = amounts(quota.get("status"), "used");
    let requested = mask(delta, hard.keys().map(String::as_str));
    if requested.is_empty() {
        return Ok(None);
    }
    let mut next = used.clone();
    add(&mut next, &requested);
    if request.subresource != "status" {
        let new = mask(&next, requested.keys().map(String::as_str));
        let beyond = exceeded(&new, &hard);
        if !beyond.is_empty() {
            let shown = |list: &ResourceList| {
                let parts: Vec<String> = mask(list, beyond.iter().copied())
                    .iter()
                    .map(|(n, amount)| format!("{n}={amount}"))
                    .collect();
                parts.join(",")
            };
            let name = str_at(quota, &["metadata", "name"]);
            let why = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                shown(&requested),
                shown(&used),
                shown(&hard)
            );
            return Err(request.forbidden(object, why));
        }
    }
    let mut charged = quota.clone();
    if !charged["status"].is_object() {
        charged["status"] = Value::Object(Map::new());
    }
    charged["status"]["used"] = quota::to_value(&next);
    Ok(Some(charged))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;
    use jiff::Timestamp;

    use super::*;
    use crate::testing::{pod, request};

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn check(request: &Request<'_>, object: &Value, quota: Value, expect: Result<Value, &str>) {
        let nothing = |_: &str| Vec::new();
        let counting = Counting { now: Timestamp::UNIX_EPOCH, list: &nothing, device_classes: &Vec::new };
        let found = charge(request, object, &[quota], &counting).map_err(|status| status.message);
        let found = found.map(|charged| charged.first().map_or(Value::Null, |q| q["status"]["used"].clone()));
        assert_eq!(found, expect.map_err(str::to_owned));
    }

    #[test]
    fn what_fits_is_added_and_what_does_not_is_refused() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "pods", "p");
        let object = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]}));
        let hard = json!({"requests.cpu": "1", "pods": "5", "configmaps": "1"});
        check(
            &create,
            &object,
            quota(hard.clone(), json!({"requests.cpu": "500m", "pods": "1", "configmaps": "0"})),
            Ok(json!({"requests.cpu": "1", "pods": "2", "configmaps": "0"})),
        );
        check(
            &create,
            &object,
            quota(hard.clone(), json!({"requests.cpu": "600m", "pods": "5", "configmaps": "0"})),
            Err(
                "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=5,requests.cpu=600m, limited: pods=5,requests.cpu=1",
            ),
        );
        check(
            &create,
            &object,
            quota(hard, json!({"requests.cpu": "0"})),
            Err("pods \"p\" is forbidden: status unknown for quota: q, resources: pods,requests.cpu"),
        );
        check(
            &create,
            &pod(json!({"containers": [{"name": "a"}]})),
            quota(json!({"limits.memory": "1"}), json!({"limits.memory": "0"})),
            Err("pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: a"),
        );
    }

    #[test]
    fn an_update_pays_the_difference() {
        let user = UserInfo::anonymous();
        let service =
            |kind: &str| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": [{}, {}]}});
        let old = service("ClusterIP");
        let update = Request { old: Some(&old), ..request(&user, Operation::Update, "services", "s") };
        let with = |used: &str| {
            quota(
                json!({"services": "1", "services.nodeports": "2"}),
                json!({"services": "1", "services.nodeports": used}),
            )
        };
        check(
            &update,
            &service("NodePort"),
            with("0"),
            Ok(json!({"services": "1", "services.nodeports": "2"})),
        );
        check(
            &update,
            &service("NodePort"),
            with("1"),
            Err(
                "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: services.nodeports=2",
            ),
        );
        check(&update, &service("ClusterIP"), with("0"), Ok(Value::Null));
    }

    #[test]
    fn quotas_look_at_writes_in_namespaces_only() {
        let user = UserInfo::anonymous();
        let table = [
            (Operation::Create, "pods", true),
            (Operation::Update, "pods", false),
            (Operation::Update, "pods/resize", true),
            (Operation::Update, "pods/status", false),
            (Operation::Create, "deployments.apps", true),
            (Operation::Update, "deployments.apps", false),
            (Operation::Create, "events.events.k8s.io", false),
            (Operation::Create, "nodes", false),
            (Operation::Delete, "pods", false),
        ];
        for (operation, resource, expect) in table {
            assert_eq!(
                concerns(&request(&user, operation, resource, "x"), &Value::Null),
                expect,
                "{resource}"
            );
        }
    }
}
