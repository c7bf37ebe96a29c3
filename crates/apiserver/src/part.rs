//! Which part of an object a write may change: the object itself, or what a subresource stands for.

use api::catalogue::Kind;
use api::objectmeta;
use apimachinery::field::ErrorList;
use apimachinery::{Map, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// The number of replicas; the rest was left alone by whoever made the change.
    Scale,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// `resources` of a pod's containers.
    Resize,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// Whether a certificate may be signed: `status.conditions` of a CertificateSigningRequest.
    Approval,
    /// The assignment of a pod to a node; the rest was left alone by whoever made the change.
    Binding,
}

impl Part {
    /// The part that a subresource stands for, where it takes and returns the object itself.
    pub fn of_subresource(name: &str) -> Option<Part> {
        match name {
            "status" => Some(Part::Status),
            "ephemeralcontainers" => Some(Part::EphemeralContainers),
            "resize" => Some(Part::Resize),
            "finalize" => Some(Part::Finalize),
            "approval" => Some(Part::Approval),
            _ => None,
        }
    }

    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Scale => "scale",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Finalize => "finalize",
            Part::Approval => "approval",
            Part::Binding => "binding",
        }
    }

    /// Takes everything but this part from the old object.
    pub fn confine(self, object: &mut Value, old: &Value) {
        match self {
            Part::Main | Part::Status | Part::Scale | Part::Approval | Part::Binding => {}
            Part::EphemeralContainers => keep_all_but(object, old, "ephemeralContainers"),
            Part::Finalize => keep_all_but(object, old, "finalizers"),
            Part::Resize => keep_all_but_spec(object, old),
        }
    }

    pub fn prepare(self, kind: &Kind, object: &mut Value, old: &Value) {
        match self {
            Part::Main | Part::Scale => kind.prepare_for_update(object, old),
            Part::Binding => objectmeta::prepare_for_update(object, old),
            Part::Status | Part::EphemeralContainers | Part::Resize | Part::Finalize | Part::Approval => {
                kind.prepare_for_subresource_update(self.subresource(), object, old);
            }
        }
    }

    pub fn validate(self, kind: &Kind, object: &Value, old: &Value) -> ErrorList {
        match self {
            Part::Main | Part::Scale => kind.validate_update(object, old),
            Part::Binding => objectmeta::validate_update(object, old),
            Part::Status | Part::EphemeralContainers | Part::Resize | Part::Finalize | Part::Approval => {
                kind.validate_subresource_update(self.subresource(), object, old)
            }
        }
    }
}

/// Makes `object` the old one but for a field of its spec, and for the identity and revision it names.
fn keep_all_but(object: &mut Value, old: &Value, field: &str) {
    let wanted = object.pointer_mut(&format!("/spec/{field}")).map(Value::take);
    let metadata = identity(object, old);
    *object = old.clone();
    object["metadata"] = metadata;
    if !object["spec"].is_object() {
        object["spec"] = Value::Object(Map::new());
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        match wanted {
            Some(value) => spec.insert(field, value),
            None => spec.remove(field),
        };
    }
}

/// What of the spec may change is for the kind's strategy to say, which refuses containers that are not the old ones.
fn keep_all_but_spec(object: &mut Value, old: &Value) {
    let (metadata, spec) = (identity(object, old), object["spec"].take());
    *object = old.clone();
    object["metadata"] = metadata;
    object["spec"] = spec;
}

/// The old metadata with what the writer says about which object, in which state, it means.
fn identity(object: &Value, old: &Value) -> Value {
    let mut metadata = old["metadata"].clone();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let (Some(map), Some(value)) = (metadata.as_object_mut(), object["metadata"].get(field)) {
            map.insert(field, value.clone());
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn a_subresource_changes_its_part_only() {
        let old = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let mut new = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"finalizers": []}, "status": {"phase": "Bogus"}});
        Part::Finalize.confine(&mut new, &old);
        assert_eq!(new["spec"]["finalizers"], json!([]));
        assert_eq!(new["status"], old["status"]);
        assert_eq!(new["metadata"], json!({"name": "a", "resourceVersion": "7", "labels": {"x": "y"}}));
    }

    #[test]
    fn a_debug_container_may_join_a_running_pod_but_not_start_with_it() {
        let kind = api::catalogue::by_resource("", "v1", "pods").expect("a row");
        let container = |name: &str| json!({"name": name, "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"});
        let old = json!({"metadata": {"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "1"}, "spec": {
            "containers": [container("main")], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30}});
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([container("debugger")]);
        Part::EphemeralContainers.prepare(kind, &mut new, &old);
        assert_eq!(Part::EphemeralContainers.validate(kind, &new, &old), []);
        assert_ne!(kind.validate(&new), []);
    }

    #[test]
    fn a_resize_changes_resources_of_the_same_containers() {
        let kind = api::catalogue::by_resource("", "v1", "pods").expect("a row");
        let resized = |containers: Value| {
            let old =
                json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
            let mut new = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": containers}});
            Part::Resize.confine(&mut new, &old);
            Part::Resize.prepare(kind, &mut new, &old);
            let errors = Part::Resize.validate(kind, &new, &old);
            let refused = errors.iter().any(|error| error.to_string().contains("renamed or reordered"));
            (new["spec"]["containers"].clone(), refused, new["metadata"].get("labels").is_some())
        };
        let limits = json!({"limits": {"cpu": "1"}});
        let (containers, refused, labelled) =
            resized(json!([{"name": "a", "image": "evil"}, {"name": "b", "resources": limits}]));
        assert_eq!(containers, json!([{"name": "a", "image": "i"}, {"name": "b", "resources": limits}]));
        assert!(!refused && !labelled);
        assert!(resized(json!([{"name": "b"}, {"name": "a"}])).1);
    }
}
