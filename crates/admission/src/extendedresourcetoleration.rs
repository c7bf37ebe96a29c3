//! ExtendedResourceToleration: who asks for an extended resource tolerates the taint that keeps others off its nodes.
//! Off by default. Follows `plugin/pkg/admission/extendedresourcetoleration`.

use std::collections::BTreeSet;

use api::core::pod::resources::list;
use api::validation::is_extended_resource;
use apimachinery::meta::value_at;
use apimachinery::{Status, Value, json};

use crate::chain::Plugin;
use crate::request::{Request, World};
use crate::tolerations;

pub struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn admit(&self, request: &Request<'_>, pod: &mut Value, _world: &dyn World) -> Result<(), Status> {
        if !request.writes_pod() {
            return Ok(());
        }
        let containers = ["containers", "initContainers"].into_iter().flat_map(|field| {
            value_at(pod, &["spec", field]).and_then(Value::as_array).into_iter().flatten()
        });
        let extended: BTreeSet<String> = containers
            .flat_map(|c| list(c, "requests").into_keys())
            .filter(|name| is_extended_resource(name))
            .collect();
        if extended.is_empty() {
            return Ok(());
        }
        let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        for key in extended {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
            tolerations::add_or_update(&mut all, toleration);
        }
        pod["spec"]["tolerations"] = all.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;
    use crate::request::Operation;
    use crate::testing::{Objects, pod, request, run};

    #[test]
    fn who_asks_for_a_device_tolerates_its_taint() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "pods", "p");
        let asks =
            pod(json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]}));
        let found = run(&ExtendedResourceToleration, &create, asks, &Objects::default()).expect("is allowed");
        assert_eq!(
            found["spec"]["tolerations"],
            json!([{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}])
        );
    }
}
