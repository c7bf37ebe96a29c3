//! Devices that others use, for their administrators: only in namespaces that are labelled for it (follows
//! `AuthorizedForAdmin` and `AuthorizedForAdminStatus`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;

use crate::resource::{RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS, Resource};
use crate::validation::At;

/// The label of the namespaces whose claims may have such access.
pub const NAMESPACE_LABEL: &str = "resource.kubernetes.io/admin-access";

/// Complaints about a claim or template that asks for administrators' access, or a claim to which it is given, where it
/// had none before. `namespace` is asked for only then.
pub fn validate(
    resource: &Resource,
    obj: &Value,
    old: Option<&Value>,
    namespace: impl FnOnce() -> Option<Value>,
) -> ErrorList {
    let Some(path) = wanted(resource, obj).filter(|_| old.and_then(|old| wanted(resource, old)).is_none())
    else {
        return ErrorList::new();
    };
    let labelled = |namespace: &Value| str_at(namespace, &["metadata", "labels", NAMESPACE_LABEL]) == "true";
    if namespace().is_some_and(|namespace| labelled(&namespace)) {
        return ErrorList::new();
    }
    let why = format!(
        "admin access to devices requires the `{NAMESPACE_LABEL}: true` label on the containing namespace"
    );
    vec![Error::forbidden(&path, why)]
}

/// Where an object first asks for access, or has it.
fn wanted(resource: &Resource, obj: &Value) -> Option<Path> {
    let root = At::root(obj);
    // Upstream speaks of a template's claims as if they stood in its place.
    let devices = match *resource {
        RESOURCE_CLAIMS => root.at(&["spec", "devices"]),
        RESOURCE_CLAIM_TEMPLATES => {
            root.at(&["spec", "spec", "devices"]).under(&Path::new("spec").child("devices"))
        }
        _ => return None,
    };
    let asked = devices.get("requests").items().find_map(|request| {
        let asks = request.at(&["exactly", "adminAccess"]).is_true();
        asks.then(|| request.path.child("adminAccess"))
    });
    let given = || {
        let results = root.at(&["status", "allocation", "devices", "results"]);
        let given = results.items().map(|result| result.get("adminAccess")).find(At::is_true);
        given.map(|access| access.path)
    };
    asked.or_else(given)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::resource::PODS;
    use crate::testing::expect_errors;

    #[test]
    fn access_is_for_namespaces_that_are_labelled_for_it() {
        let devices = json!({"requests": [{"name": "a"}, {"name": "b", "exactly": {"adminAccess": true}}]});
        let claim = json!({"spec": {"devices": devices}});
        let template = json!({"spec": {"spec": {"devices": devices}}});
        let labelled = json!({"metadata": {"labels": {(NAMESPACE_LABEL): "true"}}});
        let refused = "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label";
        for (resource, obj) in [(RESOURCE_CLAIMS, &claim), (RESOURCE_CLAIM_TEMPLATES, &template)] {
            expect_errors(&validate(&resource, obj, None, || Some(json!({}))), &[refused]);
            expect_errors(&validate(&resource, obj, None, || None), &[refused]);
            expect_errors(&validate(&resource, obj, None, || Some(labelled.clone())), &[]);
        }
        let unasked = || panic!("nobody asks for access");
        expect_errors(&validate(&RESOURCE_CLAIMS, &json!({"spec": {}}), None, unasked), &[]);
        expect_errors(&validate(&RESOURCE_CLAIMS, &claim, Some(&claim), unasked), &[]);
        expect_errors(&validate(&PODS, &claim, None, unasked), &[]);
        let given = json!({"status": {"allocation": {"devices": {"results": [{"adminAccess": true}]}}}});
        let refused = "status.allocation.devices.results[0].adminAccess: Forbidden";
        expect_errors(&validate(&RESOURCE_CLAIMS, &given, Some(&json!({})), || None), &[refused]);
    }
}
