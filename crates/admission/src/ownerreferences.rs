//! OwnerReferencesPermissionEnforcement: who sets owner references must be allowed to delete the object, and who makes
//! an owner wait for it must be allowed to finalize the owner. Not among the standard plugins.

use apimachinery::gvk::GroupVersion;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value};
use auth::{Attributes, Decision};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

pub struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        let is_binding = request.resource == "pods" && request.subresource == "binding";
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let owners =
            |object: &Value| object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let (new, old) = (owners(object), request.old.map(owners).unwrap_or_default());
        if !writes || is_binding || new == old {
            return Ok(());
        }
        check_delete(request, object, world)?;
        let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true && !old.contains(owner);
        new.iter().filter(blocks).try_for_each(|owner| check_finalize(request, object, owner, world))
    }
}

fn check_delete(request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
    if request.operation == Operation::Create {
        return Ok(());
    }
    let delete = Attributes {
        verb: "delete",
        group: request.group,
        resource: request.resource,
        namespace: request.namespace,
        name: request.name,
        ..Attributes::of(request.user)
    };
    match world.authorize(&delete) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => Err(request.forbidden(
            object,
            format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"),
        )),
    }
}

fn check_finalize(
    request: &Request<'_>,
    object: &Value,
    owner: &Value,
    world: &dyn World,
) -> Result<(), Status> {
    let refuse = |reason: &str| {
        let reason = format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
        );
        Err(request.forbidden(object, reason))
    };
    let version = GroupVersion::parse(str_at(owner, &["apiVersion"])).unwrap_or_default();
    let Some((resource, namespaced)) = world.resource_of(&version.group, str_at(owner, &["kind"])) else {
        return refuse("no such kind");
    };
    let finalize = Attributes {
        verb: "update",
        group: &version.group,
        resource: &resource,
        subresource: "finalizers",
        namespace: if namespaced { request.namespace } else { "" },
        name: str_at(owner, &["name"]),
        ..Attributes::of(request.user)
    };
    match world.authorize(&finalize) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => refuse(&reason),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn check(verbs: &'static [&'static str], block: bool, expect: bool) {
        let user = UserInfo::anonymous();
        let old = pod(json!({}));
        let update = Request { old: Some(&old), ..request(&user, Operation::Update, "pods", "p") };
        let mut new = old.clone();
        new["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "blockOwnerDeletion": block}]);
        let world = verbs.iter().fold(Objects::default(), |world, verb| world.allowing(verb, ""));
        let plugin = OwnerReferencesPermissionEnforcement;
        assert_eq!(run(&plugin, &update, new, &world).is_ok(), expect, "{verbs:?} {block}");
    }

    #[test]
    fn owners_are_set_by_those_who_may_delete_and_finalize() {
        check(&["delete", "update"], true, true);
        check(&["delete"], true, false);
        check(&["delete"], false, true);
        check(&["update"], false, false);
    }
}
