//! The ReplicaSet that is made from a Deployment's template.

use api::resource::{DEPLOYMENTS, REPLICA_SETS};
use api::view::apps::{Deployment, ReplicaSet};
use apimachinery::{Value, json};

use crate::ownership::controller_reference;
use crate::podtemplate::{POD_TEMPLATE_HASH, hash, name_with_hash, normal};

/// The oldest ReplicaSet made from the Deployment's template (upstream: `FindNewReplicaSet`).
pub fn find_new(deployment: &Deployment, replica_sets: &[ReplicaSet]) -> Option<usize> {
    let wanted = normal(&deployment.spec.template);
    let same = replica_sets.iter().enumerate().filter(|(_, rs)| normal(&rs.spec.template) == wanted);
    let oldest = same.min_by_key(|(_, rs)| (rs.metadata.creation_timestamp, rs.metadata.name.clone()));
    oldest.map(|(index, _)| index)
}

/// A ReplicaSet for the Deployment's template, of size 0.
pub fn replica_set(deployment: &Deployment) -> ReplicaSet {
    let hash = hash(&deployment.spec.template, deployment.status.collision_count);
    let owner = &deployment.metadata;
    let mut template = deployment.spec.template.clone();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.as_str().into();
    let mut replica_set = ReplicaSet::default();
    replica_set.metadata.name = name_with_hash(&owner.name, &hash);
    replica_set.metadata.namespace = owner.namespace.clone();
    replica_set.metadata.owner_references = vec![controller_reference(DEPLOYMENTS, owner)];
    replica_set.metadata.labels =
        apimachinery::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
    replica_set.spec.replicas = Some(0);
    replica_set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    replica_set.spec.selector = deployment.spec.selector.clone();
    replica_set.spec.selector.match_labels.insert(POD_TEMPLATE_HASH.to_owned(), hash);
    replica_set.spec.template = template;
    replica_set
}

/// The object to create, without a status.
pub fn to_object(replica_set: &ReplicaSet) -> Value {
    json!({
        "apiVersion": REPLICA_SETS.api_version(), "kind": REPLICA_SETS.kind,
        "metadata": replica_set.metadata, "spec": replica_set.spec,
    })
}
