//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going away, and the namespaces that
//! the cluster lives from stay.

use apimachinery::meta::str_at;
use apimachinery::status::StatusCause;
use apimachinery::{GroupResource, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

/// Namespaces nobody may delete.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        let namespaces = GroupResource::new("", "namespaces");
        let is_namespace = request.group.is_empty() && request.resource == "namespaces";
        if is_namespace && request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
            return Err(Status::forbidden(&namespaces, request.name, "this namespace may not be deleted"));
        }
        // To say anything about the namespace of an access review would give it away.
        let is_review =
            request.group == "authorization.k8s.io" && request.resource == "localsubjectaccessreviews";
        let elsewhere = matches!(request.operation, Operation::Delete | Operation::Connect);
        if is_namespace || is_review || request.namespace.is_empty() || elsewhere {
            return Ok(());
        }
        let namespace = world
            .get("namespaces", "", request.namespace)
            .ok_or_else(|| Status::not_found(&namespaces, request.namespace))?;
        if request.operation == Operation::Create && str_at(&namespace, &["status", "phase"]) == "Terminating"
        {
            return Err(terminating(request, object));
        }
        Ok(())
    }
}

fn terminating(request: &Request<'_>, object: &Value) -> Status {
    let namespace = request.namespace;
    let mut status = request.forbidden(
        object,
        format!("unable to create new content in namespace {namespace} because it is being terminated"),
    );
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    status
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn check(
        operation: Operation,
        resource: &str,
        name: &str,
        phase: Option<&str>,
        expect: Result<(), &str>,
    ) {
        let mut world = Objects::default();
        if let Some(phase) = phase {
            let namespace = json!({"metadata": {"name": "ns"}, "status": {"phase": phase}});
            world = world.with("namespaces", namespace);
        }
        let user = UserInfo::anonymous();
        let found =
            run(&NamespaceLifecycle, &request(&user, operation, resource, name), pod(json!({})), &world);
        assert_eq!(found.map(|_| ()), expect.map_err(str::to_owned), "{operation:?} {resource} {phase:?}");
    }

    #[test]
    fn nothing_new_goes_into_an_absent_or_dying_namespace() {
        let (create, update, delete) = (Operation::Create, Operation::Update, Operation::Delete);
        let dying = "pods \"p\" is forbidden: unable to create new content in namespace ns because it is being terminated";
        check(create, "pods", "", Some("Active"), Ok(()));
        check(create, "pods", "", Some("Terminating"), Err(dying));
        check(create, "pods", "", None, Err("namespaces \"ns\" not found"));
        check(update, "pods", "p", Some("Terminating"), Ok(()));
        check(delete, "pods", "p", None, Ok(()));
        check(create, "localsubjectaccessreviews.authorization.k8s.io", "", None, Ok(()));
        check(create, "nodes", "n", None, Ok(()));
    }

    #[test]
    fn the_clusters_own_namespaces_stay() {
        let refused = "namespaces \"kube-system\" is forbidden: this namespace may not be deleted";
        check(Operation::Delete, "namespaces", "kube-system", None, Err(refused));
        check(Operation::Delete, "namespaces", "ns", None, Ok(()));
    }
}
