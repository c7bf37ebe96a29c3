//! TaintNodesByCondition: a new node takes no pods until it is seen to be ready.

use apimachinery::{Status, Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, _world: &dyn World) -> Result<(), Status> {
        if !request.is_for("", "nodes") || request.operation != Operation::Create || !object.is_object() {
            return Ok(());
        }
        if !object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let is_there = |t: &Value| t["key"] == taint["key"] && t["effect"] == taint["effect"];
        match &mut object["spec"]["taints"] {
            Value::Array(taints) if taints.iter().any(is_there) => {}
            Value::Array(taints) => taints.push(taint),
            none => *none = json!([taint]),
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
    fn a_new_node_is_tainted_once() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "nodes", "n");
        let world = Objects::default();
        let once = run(&TaintNodesByCondition, &create, json!({"metadata": {"name": "n"}}), &world);
        let once = once.expect("passes");
        assert_eq!(once["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        assert_eq!(run(&TaintNodesByCondition, &create, once.clone(), &world), Ok(once));
    }
}
