//! Which names a definition gets when it is written, decided at once from the others in the store: its answer says whether
//! its kind is served.

use std::sync::Arc;

use api::catalogue::Kind;
use apiextensions::conditions::{self, Condition, TERMINATING};
use apiextensions::definition::CLEANUP_FINALIZER;
use apiextensions::names::Names;
use apimachinery::Value;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::registry::DEFINITIONS;
use crate::core::Core;

/// Whether objects of this kind are definitions.
pub fn is_definition(kind: &Kind) -> bool {
    kind.storage == DEFINITIONS
}

/// Brings the status of a definition that is about to be stored up to date.
pub fn settle_definition(core: &Core, object: &mut Value, now: Timestamp) {
    let (name, group) = (str_at(object, &["metadata", "name"]), str_at(object, &["spec", "group"]));
    let others = others(core, name, group);
    conditions::settle(object, &others, now);
}

/// A deletion of a definition waits for that of its instances.
pub fn mark_terminating(kind: &Kind, object: &mut Value, now: Timestamp) {
    if !is_definition(kind) || !object["metadata"]["deletionTimestamp"].is_string() {
        return;
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let condition = Condition::new(TERMINATING, true, "InstanceDeletionPending", message);
    conditions::set_terminating(object, condition, now);
}

/// A definition that is about to be deleted gets the finalizer that keeps it until its instances are gone.
pub fn add_finalizer(kind: &Kind, object: &mut Value) {
    if !is_definition(kind) || object["metadata"]["deletionTimestamp"].is_string() {
        return;
    }
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|name| name == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.into());
        object["metadata"]["finalizers"] = finalizers.into();
    }
}

/// The names that other definitions of a group have, and those of its built-in kinds.
fn others(core: &Core, name: &str, group: &str) -> Vec<Names> {
    let in_group = |registered: &Arc<super::Registered>| {
        let kind = registered.kinds.first()?;
        let is_other = kind.kind.resource.group == group && &*registered.entry.key.name != name;
        is_other.then(|| registered.names.clone())
    };
    core.customresources.all(&core.store).iter().filter_map(in_group).collect()
}

/// Makes what was just stored known, so that watches of what was before end. Other kinds pass.
pub fn definition_written(core: &Core, kind: &Kind, name: &str) {
    if is_definition(kind) {
        core.customresources.find(&core.store, name);
    }
}
