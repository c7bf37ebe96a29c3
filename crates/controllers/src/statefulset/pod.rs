//! One pod of a StatefulSet: its name, what makes it that one, and how it is.

use api::resource::STATEFUL_SETS;
use api::view::apps::{ControllerRevision, StatefulSet};
use api::view::core::Pod;
use apimachinery::{Value, json};

use super::claims;
use crate::history::{REVISION_LABEL, template_of};
use crate::podtemplate::from_template;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name)
}

/// The number at the end of a pod's name, if the rest is the set's.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

pub fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.get(REVISION_LABEL).map_or("", String::as_str)
}

pub fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.phase == "Running" && pod.is_ready()
}

/// The object to create (upstream: `newStatefulSetPod`).
pub fn object(set: &StatefulSet, of: &ControllerRevision, ordinal: i32) -> Value {
    let mut pod = from_template(STATEFUL_SETS, &set.metadata, &template_of(of));
    let name = name(set, ordinal);
    let metadata = pod["metadata"].as_object_mut().expect("a pod has metadata");
    metadata.remove("generateName");
    metadata.insert("name", name.as_str().into());
    let labels = &mut pod["metadata"]["labels"];
    labels[NAME_LABEL] = name.as_str().into();
    labels[INDEX_LABEL] = ordinal.to_string().into();
    labels[REVISION_LABEL] = of.metadata.name.as_str().into();
    let spec = &mut pod["spec"];
    spec["hostname"] = name.as_str().into();
    if !set.spec.service_name.is_empty() {
        spec["subdomain"] = set.spec.service_name.as_str().into();
    }
    mount_claims(set, ordinal, spec);
    pod
}

/// The claims' volumes, in place of any the template has under their names.
fn mount_claims(set: &StatefulSet, ordinal: i32, spec: &mut Value) {
    if set.spec.volume_claim_templates.is_empty() {
        return;
    }
    let own = spec["volumes"].as_array().cloned().unwrap_or_default();
    let mut volumes: Vec<Value> = claims::names(set, ordinal)
        .map(|(volume, claim)| json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let names: Vec<Value> = volumes.iter().map(|volume| volume["name"].clone()).collect();
    volumes.extend(own.into_iter().filter(|volume| !names.contains(&volume["name"])));
    spec["volumes"] = volumes.into();
}

/// The labels that a pod of this ordinal lacks, which an adopted one may (upstream: `identityMatches`).
pub fn missing_labels(set: &StatefulSet, pod: &Pod, ordinal: i32) -> Option<Value> {
    let wanted = [(NAME_LABEL, name(set, ordinal)), (INDEX_LABEL, ordinal.to_string())];
    let lacks = |(key, value): &&(&str, String)| pod.metadata.labels.get(*key) != Some(value);
    let missing: apimachinery::Map =
        wanted.iter().filter(lacks).map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
    (!missing.is_empty()).then(|| json!({"metadata": {"labels": missing}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_with_its_ordinal() {
        assert_eq!(ordinal("web", "web-10"), Some(10));
        for other in ["web", "web-", "web-a", "web-1-2", "other-1", "web--1"] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }
}
