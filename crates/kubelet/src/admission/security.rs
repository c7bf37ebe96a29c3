//! Whether the kernel can confine the pod as it asks (follows `security/apparmor/validate.go`).

use api::core::pod::apparmor::ANNOTATION_PREFIX;
use api::view::core::{AppArmorProfile, Pod};

use super::Refusal;
use crate::pod::{all_containers, apparmor};

/// `app_armor` is whether the kernel enforces it.
pub fn admit(pod: &Pod, app_armor: bool) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::new("AppArmor", format!("Cannot enforce AppArmor: {why}")));
    if !asks_for_a_profile(pod) {
        return Ok(());
    }
    if !app_armor {
        return refuse("AppArmor is not enabled on the host");
    }
    let nameless = |profile: &AppArmorProfile| {
        profile.kind == "Localhost"
            && profile.localhost_profile.as_deref().unwrap_or_default().trim().is_empty()
    };
    let mut profiles = all_containers(pod).filter_map(|(container, _)| apparmor::profile(pod, container));
    if profiles.any(|profile| nameless(&profile)) {
        return refuse("invalid empty AppArmor profile name: \"\"");
    }
    Ok(())
}

/// Whether anything in the pod names a profile to be held to, be it overruled by something nearer to the container.
fn asks_for_a_profile(pod: &Pod) -> bool {
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = all_containers(pod).filter_map(|(container, _)| container.security_context.as_ref());
    let mut fields = of_pod.into_iter().chain(containers.filter_map(|own| own.app_armor_profile.as_ref()));
    let mut annotations =
        pod.metadata.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    fields.any(|profile| profile.kind != "Unconfined") || annotations.any(|(_, value)| value != "unconfined")
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(profile: &str, app_armor: bool, expect: Option<&str>) {
        let context = json!({"appArmorProfile": {"type": profile}});
        let of_container = json!({"containers": [{"name": "a", "securityContext": context}]});
        let of_pod = json!({"securityContext": context, "containers": [{"name": "a"}]});
        for spec in [of_container, of_pod] {
            let pod: Pod = apimachinery::from_value(json!({"spec": spec})).expect("a pod");
            let refused = admit(&pod, app_armor).err().map(|refusal| refusal.message);
            assert_eq!(refused.as_deref(), expect, "{profile}");
        }
    }

    #[test]
    fn a_profile_needs_a_kernel_that_enforces_it() {
        check("Unconfined", false, None);
        check("RuntimeDefault", true, None);
        check("RuntimeDefault", false, Some("Cannot enforce AppArmor: AppArmor is not enabled on the host"));
        check("Localhost", true, Some("Cannot enforce AppArmor: invalid empty AppArmor profile name: \"\""));
    }

    #[test]
    fn an_annotation_asks_as_the_field_does() {
        let annotated = |value: &str, app_armor: bool| {
            let annotations = json!({(api::core::pod::apparmor::annotation_key("a")): value});
            let pod =
                json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}});
            admit(&apimachinery::from_value(pod).expect("a pod"), app_armor).is_ok()
        };
        assert!(annotated("unconfined", false) && annotated("localhost/mine", true));
        assert!(!annotated("runtime/default", false) && !annotated("localhost/", true));
    }
}
