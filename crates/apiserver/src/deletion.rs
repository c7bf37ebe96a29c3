//! What a DELETE does to an object, decided from the object and the request alone.
//! Follows `rest.BeforeDelete`, `deletionFinalizersForGarbageCollection`, `markAsDeleting`,
//! `ShouldDeleteDuringUpdate`, and for namespaces the registry's `REST.Delete`.

use api::catalogue::Kind;
use api::resource;
use api::strategy::GarbagePolicy;
use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, GroupResource, Map, Status, Value, json, time};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::query::{self, Query};

/// The finalizer that makes the garbage collector release dependents first.
const ORPHAN: &str = "orphan";
/// The finalizer that makes the garbage collector delete dependents first.
const FOREGROUND: &str = "foregroundDeletion";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub preconditions: Option<Preconditions>,
    pub orphan_dependents: Option<bool>,
    pub propagation_policy: Option<String>,
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    /// Options given in the query, for clients that send no body.
    pub fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
        let bad = |key: &str| Status::bad_request(format!("query parameter {key} is not a number"));
        let grace = query.get("gracePeriodSeconds").map(|v| v.parse().map_err(|_| bad("gracePeriodSeconds")));
        Ok(DeleteOptions {
            grace_period_seconds: grace.transpose()?,
            preconditions: None,
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            dry_run: query.all("dryRun").map(str::to_owned).collect(),
        })
    }

    /// Follows `ValidateDeleteOptions`; returns whether this is a dry run.
    pub fn validate(&self) -> Result<bool, Status> {
        let mut errors = ErrorList::new();
        let policy = Path::new("propagationPolicy");
        if let Some(found) = &self.propagation_policy {
            let allowed = ["Foreground", "Background", "Orphan"];
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(field::Error::invalid(&policy, found.as_str(), why));
            }
            if !allowed.contains(&found.as_str()) {
                let listed = [&allowed[..], &["nil"]].concat();
                errors.push(field::Error::not_supported_of(&policy, found.as_str(), &listed));
            }
        }
        let dry_run = query::dry_run(self.dry_run.iter().map(String::as_str)).unwrap_or_else(|error| {
            errors.push(error);
            false
        });
        if errors.is_empty() {
            Ok(dry_run)
        } else {
            Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", &errors))
        }
    }

    /// Refuses to touch another object than the one the client means.
    pub fn check_preconditions(&self, kind: &Kind, object: &Value) -> Result<(), Status> {
        let Some(preconditions) = &self.preconditions else { return Ok(()) };
        let name = str_at(object, &["metadata", "name"]);
        let text = |field: &str| str_at(object, &["metadata", field]);
        let (uid, version) = (text("uid"), text("resourceVersion"));
        let other_uid = preconditions.uid.as_deref().filter(|asked| *asked != uid);
        let other_version = preconditions.resource_version.as_deref().filter(|asked| *asked != version);
        if has_two_steps(kind) {
            let differing = [("UID", other_uid, uid), ("ResourceVersion", other_version, version)];
            let Some((what, Some(asked), found)) =
                differing.into_iter().find(|(_, asked, _)| asked.is_some())
            else {
                return Ok(());
            };
            let why = format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
            );
            return Err(Status::conflict(&kind.resource.group_resource(), name, why));
        }
        let named = GroupResource::new(kind.internal_group(), kind.resource.kind);
        let conflict = |why: String| Status::conflict(&named, name, why);
        if let Some(asked) = other_uid {
            return Err(conflict(format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            )));
        }
        if let Some(asked) = other_version {
            return Err(conflict(format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            )));
        }
        Ok(())
    }
}

/// What becomes of the object.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It goes now; this is its final state.
    Remove(Value),
    /// It stays, marked, until its grace period or finalizers are done with.
    Mark(Value),
    /// Its deletion is under way already and this request adds nothing.
    Pending,
}

pub fn decide(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Verdict {
    let deleting = is_being_deleted(object);
    if has_two_steps(kind) && !deleting {
        return Verdict::Mark(terminating(kind, object, options, now));
    }
    if is_namespace(kind) && has_namespace_finalizers(object) {
        return Verdict::Pending;
    }
    let mut next = object.clone();
    let grace = match graceful(kind, &mut next, options, now) {
        Grace::Pending => return Verdict::Pending,
        Grace::Seconds(seconds) => Some(seconds),
        Grace::None => None,
    };
    set_finalizers(&mut next, finalizers_for(kind, object, options));
    let pending_finalizers = has_finalizers(&next);
    match grace {
        Some(seconds) if seconds > 0 || pending_finalizers => Verdict::Mark(next),
        None if pending_finalizers => {
            mark_as_deleting(&mut next, now);
            if next == *object { Verdict::Pending } else { Verdict::Mark(next) }
        }
        _ => Verdict::Remove(next),
    }
}

/// Whether an update of an object that is being deleted takes away the last thing that held it.
pub fn completes_deletion(kind: &Kind, object: &Value, old: &Value) -> bool {
    let grace =
        old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
    is_being_deleted(old)
        && grace == 0
        && !has_finalizers(object)
        && !(is_namespace(kind) && has_namespace_finalizers(object))
}

pub fn is_being_deleted(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

enum Grace {
    /// The kind knows no grace period.
    None,
    /// The object was marked to go after this many seconds.
    Seconds(i64),
    Pending,
}

fn graceful(kind: &Kind, object: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    let Some(seconds) = kind.strategy.graceful_deletion(object, options.grace_period_seconds) else {
        return Grace::None;
    };
    if !is_being_deleted(object) {
        bump_generation(object);
        set_deletion(object, after(now, seconds), seconds);
        return Grace::Seconds(seconds);
    }
    let Some(current) = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64) else {
        return Grace::None;
    };
    // A grace period under way can only become shorter.
    match options.grace_period_seconds.map(|asked| if asked < 0 { 1 } else { asked }) {
        Some(asked) if asked < current => {
            let marked = time::parse_time(str_at(object, &["metadata", "deletionTimestamp"])).unwrap_or(now);
            set_deletion(object, after(marked, asked - current), asked);
            Grace::Seconds(asked)
        }
        _ => Grace::Pending,
    }
}

fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

fn mark_as_deleting(object: &mut Value, now: Timestamp) {
    if object.pointer("/metadata/deletionGracePeriodSeconds").is_none() {
        bump_generation(object);
    }
    let marked = time::parse_time(str_at(object, &["metadata", "deletionTimestamp"])).filter(|at| *at <= now);
    set_deletion(object, marked.unwrap_or(now), 0);
}

fn set_deletion(object: &mut Value, at: Timestamp, seconds: i64) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("deletionTimestamp", time::format_time(at).into());
        metadata.insert("deletionGracePeriodSeconds", seconds.into());
    }
}

fn bump_generation(object: &mut Value) {
    if let Some(generation) = object.pointer_mut("/metadata/generation")
        && let Some(current) = generation.as_i64().filter(|g| *g > 0)
    {
        *generation = (current + 1).into();
    }
}

/// The finalizers after this request's propagation policy has been written into them.
fn finalizers_for(kind: &Kind, object: &Value, options: &DeleteOptions) -> Vec<Value> {
    let current = finalizers(object);
    let has = |name: &str| current.iter().any(|f| f.as_str() == Some(name));
    let policy = kind.strategy.default_garbage_policy();
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        _ if policy == GarbagePolicy::Unsupported => (false, false),
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) if has(ORPHAN) => (true, false),
        (None, None) if has(FOREGROUND) => (false, true),
        (None, None) => (policy == GarbagePolicy::Orphan, false),
    };
    if orphan == has(ORPHAN) && foreground == has(FOREGROUND) {
        return current.to_vec();
    }
    let kept = current.iter().filter(|f| !matches!(f.as_str(), Some(ORPHAN | FOREGROUND))).cloned();
    let added = [(orphan, ORPHAN), (foreground, FOREGROUND)];
    kept.chain(added.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.into())).collect()
}

fn finalizers(object: &Value) -> &[Value] {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn has_finalizers(object: &Value) -> bool {
    !finalizers(object).is_empty()
}

fn set_finalizers(object: &mut Value, finalizers: Vec<Value>) {
    if let Some(metadata) = metadata_mut(object) {
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers", finalizers.into());
        }
    }
}

fn metadata_mut(object: &mut Value) -> Option<&mut Map> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

fn is_namespace(kind: &Kind) -> bool {
    kind.resource == resource::NAMESPACES
}

/// Whether the first DELETE only says that the object is to go, so that its content goes first.
fn has_two_steps(kind: &Kind) -> bool {
    [resource::NAMESPACES, resource::CUSTOM_RESOURCE_DEFINITIONS].contains(&kind.resource)
}

/// Namespaces have finalizers of their own beside the ordinary ones.
fn has_namespace_finalizers(object: &Value) -> bool {
    object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// What the first DELETE makes of an object whose content goes first.
fn terminating(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Value {
    let mut next = object.clone();
    if let Some(metadata) = metadata_mut(&mut next) {
        metadata.insert("deletionTimestamp", time::format_time(now).into());
    }
    if !is_namespace(kind) {
        return next;
    }
    match next.get_mut("status").and_then(Value::as_object_mut) {
        Some(status) => {
            status.insert("phase", "Terminating".into());
        }
        None => next["status"] = json!({"phase": "Terminating"}),
    }
    set_finalizers(&mut next, finalizers_for(kind, object, options));
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(grace: Option<i64>, policy: Option<&str>) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: grace,
            propagation_policy: policy.map(str::to_owned),
            ..DeleteOptions::default()
        }
    }

    fn kind(resource: api::Resource) -> &'static Kind {
        api::catalogue::by_resource(resource.group, resource.version, resource.plural)
            .expect("is in the catalogue")
    }

    fn check(resource: api::Resource, object: Value, options: &DeleteOptions, expect: &str) -> Value {
        let (name, state) = match decide(kind(resource), &object, options, Timestamp::UNIX_EPOCH) {
            Verdict::Remove(state) => ("remove", state),
            Verdict::Mark(state) => ("mark", state),
            Verdict::Pending => ("pending", object.clone()),
        };
        assert_eq!(name, expect, "{object}");
        state
    }

    #[test]
    fn an_object_without_finalizers_goes_at_once() {
        check(resource::CONFIG_MAPS, json!({"metadata": {"name": "x"}}), &options(None, None), "remove");
    }

    #[test]
    fn finalizers_hold_an_object_and_are_marked_once() {
        let object = json!({"metadata": {"name": "x", "generation": 3, "finalizers": ["a/b"]}});
        let marked = check(resource::CONFIG_MAPS, object, &options(None, None), "mark");
        assert_eq!(marked["metadata"]["deletionTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(marked["metadata"]["generation"], 4);
        check(resource::CONFIG_MAPS, marked.clone(), &options(None, None), "pending");
        let mut freed = marked.clone();
        set_finalizers(&mut freed, Vec::new());
        assert!(completes_deletion(kind(resource::CONFIG_MAPS), &freed, &marked));
    }

    #[test]
    fn the_propagation_policy_becomes_a_finalizer() {
        let object = json!({"metadata": {"name": "x"}});
        let foreground =
            check(resource::DEPLOYMENTS, object.clone(), &options(None, Some("Foreground")), "mark");
        assert_eq!(foreground["metadata"]["finalizers"], json!([FOREGROUND]));
        let orphan = check(resource::DEPLOYMENTS, object.clone(), &options(None, Some("Orphan")), "mark");
        assert_eq!(orphan["metadata"]["finalizers"], json!([ORPHAN]));
        check(resource::DEPLOYMENTS, object, &options(None, Some("Background")), "remove");
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let marked = check(resource::NAMESPACES, object, &options(None, None), "mark");
        assert_eq!(marked["status"]["phase"], "Terminating");
        check(resource::NAMESPACES, marked.clone(), &options(None, None), "pending");
        let mut empty = marked.clone();
        empty["spec"]["finalizers"] = json!([]);
        assert!(completes_deletion(kind(resource::NAMESPACES), &empty, &marked));
    }

    #[test]
    fn events_know_no_dependents() {
        let object = json!({"metadata": {"name": "x"}});
        for events in [resource::EVENTS, resource::EVENTS_V1] {
            check(events, object.clone(), &options(None, Some("Foreground")), "remove");
        }
    }

    #[test]
    fn a_definition_is_only_marked_at_first() {
        let object = json!({"metadata": {"name": "x", "generation": 1, "finalizers": ["a/b"]}});
        let marked = check(resource::CUSTOM_RESOURCE_DEFINITIONS, object, &options(None, None), "mark");
        assert_eq!(marked["metadata"]["generation"], 1);
        assert!(marked["metadata"].get("deletionGracePeriodSeconds").is_none(), "{marked}");
        let other = DeleteOptions {
            preconditions: Some(Preconditions { uid: None, resource_version: Some("7".to_owned()) }),
            ..options(None, None)
        };
        let refused = other.check_preconditions(kind(resource::CUSTOM_RESOURCE_DEFINITIONS), &marked);
        let message = refused.expect_err("another state").message;
        assert!(message.contains("ResourceVersion in precondition: 7, ResourceVersion in object meta: "));
    }

    #[test]
    fn preconditions_name_what_differs() {
        let mut options = options(None, None);
        options.preconditions = Some(Preconditions { uid: Some("a".to_owned()), resource_version: None });
        let object = json!({"metadata": {"name": "x", "uid": "b"}});
        let status = options.check_preconditions(kind(resource::PODS), &object).expect_err("another object");
        assert!(
            status.message.contains("the UID in the precondition (a) does not match the UID in record (b)"),
            "{}",
            status.message
        );
    }
}
