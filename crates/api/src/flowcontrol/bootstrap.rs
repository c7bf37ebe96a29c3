//! The flow schemas and priority levels of a new cluster (follows `apis/flowcontrol/bootstrap`). Two of each are
//! mandatory: they are always there, and always the same.

use std::sync::LazyLock;

use apimachinery::Value;
use apimachinery::meta::str_at;

const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("bootstrap.json")).expect("the bootstrap objects are JSON")
});

/// All objects, in the order in which they should be created: priority levels first, mandatory ones before others.
pub fn objects() -> &'static [Value] {
    &OBJECTS
}

/// The object that must be there under this name, if there is one.
pub fn mandatory(kind: &str, name: &str) -> Option<&'static Value> {
    if !MANDATORY.contains(&name) {
        return None;
    }
    OBJECTS.iter().find(|obj| str_at(obj, &["kind"]) == kind && str_at(obj, &["metadata", "name"]) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_of_a_new_cluster_are_valid() {
        assert_eq!(objects().len(), 19);
        for obj in objects() {
            let kind =
                crate::catalogue::by_kind("flowcontrol.apiserver.k8s.io", "v1", str_at(obj, &["kind"]))
                    .expect("is in the catalogue");
            let mut defaulted = obj.clone();
            kind.default(&mut defaulted);
            assert_eq!(defaulted["spec"], obj["spec"], "{}", obj["metadata"]["name"]);
            assert_eq!(kind.validate(&defaulted), [], "{}", obj["metadata"]["name"]);
        }
        for name in MANDATORY {
            assert!(mandatory("FlowSchema", name).is_some());
            assert!(mandatory("PriorityLevelConfiguration", name).is_some());
        }
    }
}
