//! DefaultTolerationSeconds: pods stay on a node that is not ready or cannot be reached for five minutes, unless they
//! say otherwise.

use apimachinery::{Status, Value, json};

use crate::chain::Plugin;
use crate::request::{Request, World};

const TOLERATION_SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, _world: &dyn World) -> Result<(), Status> {
        if !request.writes_pod() || !object["spec"].is_object() {
            return Ok(());
        }
        let tolerations = &mut object["spec"]["tolerations"];
        if !tolerations.is_array() {
            *tolerations = json!([]);
        }
        let Value::Array(tolerations) = tolerations else { return Ok(()) };
        let given = tolerations.len();
        for taint in TAINTS {
            if !tolerations[..given].iter().any(|toleration| tolerates(toleration, taint)) {
                tolerations.push(default_toleration(taint));
            }
        }
        Ok(())
    }
}

fn default_toleration(taint: &str) -> Value {
    json!({
        "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
    })
}

/// Whether a toleration speaks of this taint with effect NoExecute; an empty key or effect speaks of all.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    matches!(text("key"), key if key.is_empty() || key == taint) && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;
    use crate::request::Operation;
    use crate::testing::{Objects, pod, request, run};

    fn check(spec: Value, expect: &[(&str, Value)]) {
        let user = UserInfo::anonymous();
        let request = request(&user, Operation::Create, "pods", "");
        let found = run(&DefaultTolerationSeconds, &request, pod(spec), &Objects::default()).expect("passes");
        let found: Vec<(&str, Value)> = found["spec"]["tolerations"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|t| (t["key"].as_str().unwrap_or_default(), t["tolerationSeconds"].clone()))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_pod_tolerates_both_taints_for_five_minutes_unless_it_says_otherwise() {
        let [not_ready, unreachable] = TAINTS;
        check(json!({}), &[(not_ready, json!(300)), (unreachable, json!(300))]);
        check(json!({"tolerations": [{"operator": "Exists"}]}), &[("", Value::Null)]);
        check(
            json!({"tolerations": [{"key": not_ready, "effect": "NoExecute", "tolerationSeconds": 5}]}),
            &[(not_ready, json!(5)), (unreachable, json!(300))],
        );
        check(
            json!({"tolerations": [{"key": not_ready, "effect": "NoSchedule"}]}),
            &[(not_ready, Value::Null), (not_ready, json!(300)), (unreachable, json!(300))],
        );
    }
}
