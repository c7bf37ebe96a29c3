//! Which AppArmor profile a container asks for (follows `pkg/security/apparmor`).

use std::borrow::Cow;

use api::core::pod::apparmor;
use api::view::core::{AppArmorProfile, Container, Pod};
use runtime::cri::{SecurityProfile, security_profile::ProfileType};

/// A container's own profile, or its pod's. Of a static pod nobody has made the old annotation a field.
pub fn profile<'p>(pod: &'p Pod, spec: &'p Container) -> Option<Cow<'p, AppArmorProfile>> {
    let own = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let annotated = || of_annotation(pod.metadata.annotations.get(&apparmor::annotation_key(&spec.name))?);
    own.map(Cow::Borrowed).or_else(|| annotated().map(Cow::Owned)).or(of_pod.map(Cow::Borrowed))
}

fn of_annotation(annotation: &str) -> Option<AppArmorProfile> {
    apimachinery::from_value(apparmor::field(annotation)?).ok()
}

/// Without a profile it is for the runtime to choose one.
pub fn of_cri(profile: &AppArmorProfile) -> SecurityProfile {
    let (kind, localhost_ref) = match profile.kind.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    #[test]
    fn a_containers_field_goes_before_its_annotation_and_that_before_its_pods_field() {
        let check = |own: Value, annotation: &str, of_pod: Value, expect: Option<(&str, &str)>| {
            let container = json!({"name": "c", "securityContext": {"appArmorProfile": own}});
            let annotations = json!({(apparmor::annotation_key("c")): annotation});
            let pod = json!({"metadata": {"annotations": annotations}, "spec": {
                "securityContext": {"appArmorProfile": of_pod}, "containers": [container]}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            let found = profile(&pod, &pod.spec.containers[0]).map(|profile| of_cri(&profile));
            let told = found.as_ref().map(|it| (it.profile_type().as_str_name(), it.localhost_ref.as_str()));
            assert_eq!(told, expect, "{annotation}");
        };
        let none = || Value::Null;
        let default = || json!({"type": "RuntimeDefault"});
        let mine = || json!({"type": "Localhost", "localhostProfile": "mine"});
        check(none(), "", none(), None);
        check(none(), "", default(), Some(("RuntimeDefault", "")));
        check(mine(), "", default(), Some(("Localhost", "mine")));
        check(json!({"type": "Unconfined"}), "runtime/default", none(), Some(("Unconfined", "")));
        check(none(), "localhost/old", default(), Some(("Localhost", "old")));
        check(none(), "runtime/default", json!({"type": "Unconfined"}), Some(("RuntimeDefault", "")));
        check(none(), "nonsense", mine(), Some(("Localhost", "mine")));
    }
}
