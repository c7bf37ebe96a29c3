//! PodTopologyLabels: a pod bound to a node is told where that node is. Follows `plugin/pkg/admission/podtopologylabels`.

use apimachinery::meta::{str_at, value_at};
use apimachinery::{Map, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.group.is_empty() || request.resource != "pods" {
            return Ok(());
        }
        let node = match request.subresource {
            "" => str_at(object, &["spec", "nodeName"]),
            "binding" if str_at(object, &["target", "kind"]) == "Node" => str_at(object, &["target", "name"]),
            _ => "",
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = world.get("nodes", "", node) else { return Ok(()) };
        for label in LABELS {
            let Some(value) = value_at(&node, &["metadata", "labels", label]) else { continue };
            if !object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"] = Value::Object(Map::new());
            }
            object["metadata"]["labels"][label] = value.clone();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    #[test]
    fn bindings_and_bound_pods_carry_the_nodes_place() {
        let node = json!({"metadata": {"name": "n", "labels": {(LABELS[0]): "z", "other": "x"}}});
        let world = Objects::default().with("nodes", node);
        let user = UserInfo::anonymous();
        let binding = json!({"metadata": {}, "target": {"kind": "Node", "name": "n"}});
        let create = request(&user, Operation::Create, "pods/binding", "p");
        let found = run(&PodTopologyLabels, &create, binding, &world).expect("is allowed");
        assert_eq!(found["metadata"]["labels"], json!({(LABELS[0]): "z"}));
        let create = request(&user, Operation::Create, "pods", "p");
        let pod = json!({"metadata": {"labels": {(LABELS[0]): "y"}}, "spec": {"nodeName": "n"}});
        let found = run(&PodTopologyLabels, &create, pod, &world).expect("is allowed");
        assert_eq!(found["metadata"]["labels"], json!({(LABELS[0]): "z"}));
    }
}
