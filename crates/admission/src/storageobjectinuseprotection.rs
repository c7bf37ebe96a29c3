//! StorageObjectInUseProtection: volumes, claims and attribute classes get the finalizer that keeps them while they are
//! used. Follows `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use apimachinery::{Status, Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, _world: &dyn World) -> Result<(), Status> {
        if request.operation != Operation::Create || !object.is_object() {
            return Ok(());
        }
        let row = FINALIZERS.iter().find(|(group, resource, _)| request.is_for(group, resource));
        let Some((_, _, finalizer)) = row else { return Ok(()) };
        match &mut object["metadata"]["finalizers"] {
            Value::Array(finalizers) if finalizers.iter().any(|f| f == finalizer) => {}
            Value::Array(finalizers) => finalizers.push((*finalizer).into()),
            none => *none = json!([finalizer]),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    #[test]
    fn what_may_be_in_use_is_protected_once() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "persistentvolumeclaims", "c");
        let protect = |object| {
            run(&StorageObjectInUseProtection, &create, object, &Objects::default()).expect("is allowed")
        };
        let protected = protect(json!({"metadata": {"finalizers": ["x"]}}));
        assert_eq!(protected["metadata"]["finalizers"], json!(["x", "kubernetes.io/pvc-protection"]));
        assert_eq!(protect(protected.clone()), protected);
    }
}
