//! PodResizeValidator: a running pod does not grow beyond what its node can give at all.
//! Follows `plugin/pkg/admission/podresize`.

use api::core::pod::resources::{Counted, amounts, pod_requests};
use apimachinery::meta::{str_at, value_at};
use apimachinery::quantity::Quantity;
use apimachinery::status::StatusCause;
use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn validate(&self, request: &Request<'_>, pod: &Value, world: &dyn World) -> Result<(), Status> {
        let is_resize =
            request.group.is_empty() && request.resource == "pods" && request.subresource == "resize";
        let Some(old) = request.old.filter(|_| is_resize && request.operation == Operation::Update) else {
            return Ok(());
        };
        let name = str_at(pod, &["spec", "nodeName"]);
        if name.is_empty() || old["metadata"]["generation"] == pod["metadata"]["generation"] {
            return Ok(());
        }
        let node = world.get("nodes", "", name);
        let node = node.ok_or_else(|| request.forbidden(pod, format!("node {name:?} not found")))?;
        let refuse = |why: String, cause: &str| {
            let mut status = request.forbidden(pod, why);
            if let Some(details) = &mut status.details {
                details.causes.push(StatusCause { reason: cause.to_owned(), ..StatusCause::default() });
            }
            Err(status)
        };
        let os = value_at(&node, &["metadata", "labels", "kubernetes.io/os"]).and_then(Value::as_str);
        if let Some(os) = os.filter(|os| *os != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
            return refuse(why, "UnsupportedPlatform");
        }
        let lacking = lacking(pod, &node);
        if lacking.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
        refuse(why, "NodeCapacity")
    }
}

fn lacking(pod: &Value, node: &Value) -> Vec<String> {
    let (asked, given) = (pod_requests(pod, Counted::Spec), amounts(node.get("status"), "allocatable"));
    let count =
        |name: &str, amount: &Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    let lacks = |name: &&str| {
        let zero = Quantity::ZERO;
        let (asked, given) = (asked.get(*name).unwrap_or(&zero), given.get(*name).unwrap_or(&zero));
        (asked > given).then(|| {
            format!("{name}, requested: {}, allocatable: {}", count(name, asked), count(name, given))
        })
    };
    ["cpu", "memory"].iter().filter_map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    #[test]
    fn a_pod_does_not_outgrow_its_node() {
        let node =
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let world = Objects::default().with("nodes", node);
        let pod = |cpu: &str, generation: i64| {
            json!({"metadata": {"name": "p", "generation": generation}, "spec": {"nodeName": "n",
                "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}})
        };
        let user = UserInfo::anonymous();
        let old = pod("1", 1);
        let update = Request { old: Some(&old), ..request(&user, Operation::Update, "pods/resize", "p") };
        assert!(run(&PodResizeValidator, &update, pod("2", 2), &world).is_ok());
        assert_eq!(
            run(&PodResizeValidator, &update, pod("3", 2), &world),
            Err("pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000".to_owned())
        );
    }
}
