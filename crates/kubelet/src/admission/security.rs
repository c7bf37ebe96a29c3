//! Whether the kernel can confine the pod as it asks (follows `security/apparmor/validate.go`).

use api::view::core::{AppArmorProfile, Pod};

use super::Refusal;

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

pub fn app_armor_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// `app_armor` is whether the kernel enforces it.
pub fn admit(pod: &Pod, app_armor: bool) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::new("AppArmor", format!("Cannot enforce AppArmor: {why}")));
    let mut confined = profiles(pod).filter(|profile| profile.kind != "Unconfined").peekable();
    if confined.peek().is_none() {
        return Ok(());
    }
    if !app_armor {
        return refuse("AppArmor is not enabled on the host");
    }
    let nameless = |profile: &AppArmorProfile| {
        profile.kind == "Localhost"
            && profile.localhost_profile.as_deref().unwrap_or_default().trim().is_empty()
    };
    match confined.find(|profile| nameless(profile)) {
        Some(_) => refuse("invalid empty AppArmor profile name: \"\""),
        None => Ok(()),
    }
}

/// The pod's own profile, and those of its containers.
fn profiles(pod: &Pod) -> impl Iterator<Item = &AppArmorProfile> {
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = crate::pod::all_containers(pod);
    let contexts = containers.filter_map(|(container, _)| container.security_context.as_ref());
    of_pod.into_iter().chain(contexts.filter_map(|context| context.app_armor_profile.as_ref()))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(profile: &str, app_armor: bool, expect: Option<&str>) {
        let context = json!({"appArmorProfile": {"type": profile}});
        let of_container = json!({"containers": [{"name": "a", "securityContext": context}]});
        for spec in [of_container, json!({"securityContext": context})] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
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
}
