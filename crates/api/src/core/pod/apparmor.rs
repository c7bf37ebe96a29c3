//! The annotations by which containers named AppArmor profiles before there was a field (follows
//! `applyAppArmorVersionSkew`).

use apimachinery::meta::{str_at, value_at};
use apimachinery::{Value, json};

use super::validation::CONTAINER_LISTS;
use super::validation::security::is_app_armor_profile;
use crate::columns::items;
use crate::defaults::{each, object, object_or_new};
use crate::validation::At;

/// Followed by the container's name.
pub const ANNOTATION_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The annotation for the container of this name.
pub fn annotation_key(container: &str) -> String {
    format!("{ANNOTATION_PREFIX}{container}")
}

/// What an annotation says, as the field says it (follows `getProfileFromPodAnnotations`).
pub fn field(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let profile = other.strip_prefix("localhost/")?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// Fills the field of containers that have the annotation alone and do not say what their pod says anyway.
pub fn sync(pod: &mut Value) {
    if is_windows(pod) {
        return;
    }
    let annotations = value_at(pod, &["metadata", "annotations"]).cloned().unwrap_or_default();
    let Some(spec) = object(pod, "spec") else { return };
    let of_pod = of_context(spec).cloned();
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            if let Some(Said::Anew(profile)) = said(&annotations, of_pod.as_ref(), container)
                && let Some(context) = object_or_new(container, "securityContext")
            {
                context["appArmorProfile"] = profile;
            }
        }
    }
}

/// The annotations that say something no field says yet, or nothing that is understood.
pub fn warnings(pod: &Value) -> Vec<String> {
    if is_windows(pod) {
        return Vec::new();
    }
    let root = At::root(pod);
    let annotations = root.at(&["metadata", "annotations"]);
    let spec = root.get("spec");
    let containers = CONTAINER_LISTS.into_iter().flat_map(|list| items(spec.value, &[list]));
    let outdated = containers.filter(|it| said(annotations.value, of_context(spec.value), it).is_some());
    let keys = outdated.map(|it| annotation_key(str_at(it, &["name"])));
    keys.map(|key| deprecation(&annotations, &key)).collect()
}

pub fn deprecation(annotations: &At, key: &str) -> String {
    format!(
        "{}: deprecated since v1.30; use the \"appArmorProfile\" field instead",
        annotations.path.key(key)
    )
}

enum Said {
    Anew(Value),
    Nonsense,
}

/// What the annotation of a container without the field adds.
fn said(annotations: &Value, of_pod: Option<&Value>, container: &Value) -> Option<Said> {
    if of_context(container).is_some() {
        return None;
    }
    let key = annotation_key(str_at(container, &["name"]));
    let annotation = annotations.get(&key)?.as_str()?;
    match field(annotation).filter(is_app_armor_profile) {
        Some(profile) => (Some(&profile) != of_pod).then_some(Said::Anew(profile)),
        None => Some(Said::Nonsense),
    }
}

/// The profile of a container or of a pod's spec.
fn of_context(holder: &Value) -> Option<&Value> {
    value_at(holder, &["securityContext", "appArmorProfile"]).filter(|profile| !profile.is_null())
}

fn is_windows(pod: &Value) -> bool {
    str_at(pod, &["spec", "os", "name"]) == "windows"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_fills_the_field_unless_the_pod_says_so_already() {
        let check = |annotation: &str, of_pod: Value, own: Value, expect: Value, warns: bool| {
            let key = annotation_key("c");
            let container = json!({"name": "c", "securityContext": {"appArmorProfile": own}});
            let mut pod = json!({"metadata": {"annotations": {(&key): annotation}}, "spec": {
                "securityContext": {"appArmorProfile": of_pod}, "initContainers": [container]}});
            let warned = warnings(&pod);
            sync(&mut pod);
            let found = &pod["spec"]["initContainers"][0]["securityContext"]["appArmorProfile"];
            assert_eq!((found, warned.len()), (&expect, usize::from(warns)), "{annotation}");
            if warns {
                assert!(warned[0].starts_with(&format!("metadata.annotations[{key}]: deprecated")));
            }
        };
        let (none, default) = (Value::Null, json!({"type": "RuntimeDefault"}));
        let mine = json!({"type": "Localhost", "localhostProfile": "mine"});
        check("localhost/mine", none.clone(), none.clone(), mine.clone(), true);
        check("unconfined", default.clone(), none.clone(), json!({"type": "Unconfined"}), true);
        check("runtime/default", default.clone(), none.clone(), none.clone(), false);
        check("runtime/default", none.clone(), mine.clone(), mine.clone(), false);
        check("localhost/", none.clone(), none.clone(), none.clone(), true);
        check("localhost/ padded", default, none.clone(), none, true);
    }

    #[test]
    fn a_container_without_a_context_gets_one() {
        let key = annotation_key("c");
        let mut pod = json!({"metadata": {"annotations": {(&key): "unconfined"}}, "spec": {
            "containers": [{"name": "c"}, {"name": "d"}]}});
        let mut windows = pod.clone();
        windows["spec"]["os"] = json!({"name": "windows"});
        let before = windows.clone();
        sync(&mut windows);
        assert_eq!((&windows, warnings(&before).len()), (&before, 0));
        sync(&mut pod);
        let context = json!({"appArmorProfile": {"type": "Unconfined"}});
        assert_eq!(
            pod["spec"]["containers"],
            json!([{"name": "c", "securityContext": context}, {"name": "d"}])
        );
    }
}
