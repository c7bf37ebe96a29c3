//! LimitPodHardAntiAffinityTopology: required anti-affinity may speak of hosts only, since anything wider can keep
//! others out of whole zones. Off by default. Follows `plugin/pkg/admission/antiaffinity`.

use apimachinery::meta::{str_at, value_at};
use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Request, World};

const HOSTNAME: &str = "kubernetes.io/hostname";

pub struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(&self, request: &Request<'_>, pod: &Value, _world: &dyn World) -> Result<(), Status> {
        const TERMS: [&str; 4] =
            ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        if !request.writes_pod() {
            return Ok(());
        }
        let terms = value_at(pod, &TERMS).and_then(Value::as_array).into_iter().flatten();
        let wide = terms.map(|term| str_at(term, &["topologyKey"])).find(|key| *key != HOSTNAME);
        match wide {
            Some(key) => Err(request.forbidden(
                pod,
                format!("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::request::Operation;
    use crate::testing::{Objects, pod, request, run};

    #[test]
    fn required_anti_affinity_is_between_hosts() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "pods", "p");
        let check = |key: &str| {
            let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key}]}});
            let spec = json!({"affinity": affinity});
            run(&LimitPodHardAntiAffinityTopology, &create, pod(spec), &Objects::default()).is_ok()
        };
        assert!(check(HOSTNAME));
        assert!(!check("topology.kubernetes.io/zone"));
    }
}
