//! PersistentVolumeClaimResize: only bound claims grow, and only where their class allows it.
//! Follows `plugin/pkg/admission/storage/persistentvolume/resize`.

use api::core::pod::resources::list;
use api::quota::claims::storage_class;
use apimachinery::meta::str_at;
use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, request: &Request<'_>, claim: &Value, world: &dyn World) -> Result<(), Status> {
        let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else { return Ok(()) };
        let size =
            |claim: &Value| list(&claim["spec"], "requests").get("storage").copied().unwrap_or_default();
        if !request.is_for("", "persistentvolumeclaims") || size(claim) <= size(old) {
            return Ok(());
        }
        if str_at(old, &["status", "phase"]) != "Bound" {
            return Err(request.forbidden(claim, "Only bound persistent volume claims can be expanded"));
        }
        let class = storage_class(claim);
        let allows = !class.is_empty()
            && class == storage_class(old)
            && world
                .get("storageclasses.storage.k8s.io", "", class)
                .is_some_and(|class| class["allowVolumeExpansion"] == true);
        if allows {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(request.forbidden(claim, why))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    fn claim(size: &str, class: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "c"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
    }

    #[test]
    fn only_bound_claims_of_a_growing_class_grow() {
        let class =
            |name: &str, allows: bool| json!({"metadata": {"name": name}, "allowVolumeExpansion": allows});
        let world = Objects::default()
            .with("storageclasses.storage.k8s.io", class("yes", true))
            .with("storageclasses.storage.k8s.io", class("no", false));
        let table = [
            (claim("1Gi", "yes", "Bound"), claim("2Gi", "yes", "Bound"), ""),
            (claim("2Gi", "no", "Bound"), claim("1Gi", "no", "Bound"), ""),
            (claim("1Gi", "yes", "Pending"), claim("2Gi", "yes", "Pending"), "Only bound"),
            (claim("1Gi", "no", "Bound"), claim("2Gi", "no", "Bound"), "only dynamically provisioned"),
            (claim("1Gi", "gone", "Bound"), claim("2Gi", "gone", "Bound"), "only dynamically provisioned"),
        ];
        for (old, new, expect) in table {
            let user = UserInfo::anonymous();
            let update = Request {
                old: Some(&old),
                ..request(&user, Operation::Update, "persistentvolumeclaims", "c")
            };
            match run(&PersistentVolumeClaimResize, &update, new, &world) {
                Ok(_) => assert_eq!(expect, ""),
                Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{why}"),
            }
        }
    }
}
