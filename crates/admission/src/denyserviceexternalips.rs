//! DenyServiceExternalIPs: no Service takes addresses it was not given before. Off by default.
//! Follows `plugin/pkg/admission/network/denyserviceexternalips`.

use apimachinery::meta::value_at;
use apimachinery::{Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

pub struct DenyServiceExternalIPs;

impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(&self, request: &Request<'_>, service: &Value, _world: &dyn World) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !request.is_for("", "services") {
            return Ok(());
        }
        let addresses = |service: &Value| {
            value_at(service, &["spec", "externalIPs"]).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let old = request.old.map(addresses).unwrap_or_default();
        if addresses(service).iter().all(|address| old.contains(address)) {
            return Ok(());
        }
        Err(request.forbidden(service, "Use of external IPs is denied by admission control"))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    #[test]
    fn only_addresses_that_were_there_stay() {
        let user = UserInfo::anonymous();
        let service = |ips: Value| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ips}});
        let old = service(json!(["1.1.1.1", "2.2.2.2"]));
        let update = Request { old: Some(&old), ..request(&user, Operation::Update, "services", "s") };
        let check = |ips| run(&DenyServiceExternalIPs, &update, service(ips), &Objects::default()).is_ok();
        assert!(check(json!(["2.2.2.2"])));
        assert!(!check(json!(["3.3.3.3"])));
    }
}
