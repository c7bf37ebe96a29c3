//! The states a DaemonSet or StatefulSet was in, kept as ControllerRevisions (follows upstream's
//! `pkg/controller/history`).

use std::collections::BTreeSet;
use std::sync::Arc;

use api::resource::{CONTROLLER_REVISIONS, Resource};
use api::view::apps::ControllerRevision;
use apimachinery::meta::{LabelSelector, ObjectMeta};
use apimachinery::{Value, json};

use crate::ownership::{Claim, adopt, claim, controller_reference, release};
use crate::plan::{Action, Plan};
use crate::podtemplate::{hash, name_with_hash, normal};

/// On a pod: which revision it is of.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// On a StatefulSet's revision: the hash in its name.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// Whose history it is.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub resource: Resource,
    pub meta: &'a ObjectMeta,
    pub selector: &'a LabelSelector,
    pub template: &'a Value,
    pub collision_count: Option<i32>,
}

/// The owner's revisions in their order, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub revisions: Vec<ControllerRevision>,
    /// The revision of the present template.
    pub update: ControllerRevision,
    /// How often a name was taken, if once more than the status says.
    pub collision_count: Option<i32>,
}

/// Claims the namespace's revisions, and finds, renews or plans the one of the present template.
pub fn sync(owner: Owner, all: &[Arc<ControllerRevision>], may_adopt: bool, plan: &mut Plan) -> History {
    let mut revisions = claim_revisions(owner, all, may_adopt, plan);
    revisions.sort_by(|a, b| {
        let key =
            |r: &ControllerRevision| (r.revision, r.metadata.creation_timestamp, r.metadata.name.clone());
        key(a).cmp(&key(b))
    });
    let data = data_of(owner.template);
    let next = revisions.last().map_or(1, |last| last.revision + 1);
    let same = revisions.iter().rposition(|revision| is_same(&revision.data, &data));
    let mut history = History { collision_count: owner.collision_count, ..History::default() };
    match same {
        Some(at) if at + 1 == revisions.len() => {}
        // Back to a state of old: it becomes the newest.
        Some(at) => {
            let mut revived = revisions.remove(at);
            revived.revision = next;
            let patch = json!({"revision": next});
            plan.act(Action::patch(CONTROLLER_REVISIONS, &revived.metadata, patch));
            revisions.push(revived);
        }
        None => match new_revision(owner, data, next, all) {
            Ok(made) => {
                plan.act(Action::create(CONTROLLER_REVISIONS, &owner.meta.namespace, object_of(&made)));
                revisions.push(made);
            }
            Err(collision_count) => {
                history.collision_count = Some(collision_count);
                return history;
            }
        },
    }
    history.update = revisions.last().cloned().unwrap_or_default();
    history.revisions = revisions;
    history
}

fn claim_revisions(
    owner: Owner,
    all: &[Arc<ControllerRevision>],
    may_adopt: bool,
    plan: &mut Plan,
) -> Vec<ControllerRevision> {
    let mut claimed = Vec::new();
    for revision in all {
        match claim(owner.meta, owner.selector, &revision.metadata) {
            Claim::Keep => claimed.push((**revision).clone()),
            Claim::Adopt if may_adopt => {
                plan.act(adopt((owner.resource, owner.meta), (CONTROLLER_REVISIONS, &revision.metadata)));
                claimed.push((**revision).clone());
            }
            Claim::Release => plan.act(release(owner.meta, (CONTROLLER_REVISIONS, &revision.metadata))),
            Claim::Adopt | Claim::Ignore => {}
        }
    }
    claimed
}

/// Whether there is a revision to adopt, which needs the server's word that the owner lives.
pub fn has_adoptable(meta: &ObjectMeta, selector: &LabelSelector, all: &[Arc<ControllerRevision>]) -> bool {
    all.iter().any(|revision| claim(meta, selector, &revision.metadata) == Claim::Adopt)
}

/// A template as the patch that brings its owner back to it (upstream: `getPatch`).
fn data_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision stands for.
pub fn template_of(revision: &ControllerRevision) -> Value {
    let mut template = revision.data["spec"]["template"].clone();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}

fn is_same(a: &Value, b: &Value) -> bool {
    normal(&a["spec"]["template"]) == normal(&b["spec"]["template"])
}

/// A revision not made yet, or the count of collisions when its name is taken by another state.
fn new_revision(
    owner: Owner,
    data: Value,
    revision: i64,
    all: &[Arc<ControllerRevision>],
) -> Result<ControllerRevision, i32> {
    let hash = hash(owner.template, owner.collision_count);
    let name = name_with_hash(&owner.meta.name, &hash);
    if all.iter().any(|other| other.metadata.name == name) {
        return Err(owner.collision_count.unwrap_or_default() + 1);
    }
    let labels = owner.template["metadata"]["labels"].clone();
    let mut metadata = ObjectMeta {
        name,
        namespace: owner.meta.namespace.clone(),
        labels: apimachinery::from_value(labels).unwrap_or_default(),
        annotations: owner.meta.annotations.clone(),
        owner_references: vec![controller_reference(owner.resource, owner.meta)],
        ..ObjectMeta::default()
    };
    for label in [HASH_LABEL, REVISION_LABEL] {
        metadata.labels.insert(label.to_owned(), hash.clone());
    }
    Ok(ControllerRevision { metadata, data, revision })
}

fn object_of(revision: &ControllerRevision) -> Value {
    json!({
        "apiVersion": CONTROLLER_REVISIONS.api_version(), "kind": CONTROLLER_REVISIONS.kind,
        "metadata": revision.metadata, "data": revision.data, "revision": revision.revision,
    })
}

/// The hash in a revision's name.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = &revision.metadata.labels;
    labels.get(HASH_LABEL).or_else(|| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// Deletes the oldest revisions past the limit that nothing is of (upstream: `truncateHistory`).
pub fn truncate(history: &History, limit: Option<i32>, live: &BTreeSet<&str>, plan: &mut Plan) {
    let Ok(limit) = usize::try_from(limit.unwrap_or(10)) else { return };
    let is_dead = |revision: &&ControllerRevision| {
        !live.contains(revision.metadata.name.as_str())
            && revision.metadata.name != history.update.metadata.name
    };
    let dead: Vec<&ControllerRevision> = history.revisions.iter().filter(is_dead).collect();
    for revision in &dead[..dead.len().saturating_sub(limit)] {
        plan.act(Action::delete(CONTROLLER_REVISIONS, &revision.metadata));
    }
}
