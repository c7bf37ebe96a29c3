//! Evicting a pod: a deletion that its disruption budget must allow, and that is announced in the pod's status.
//! Follows `EvictionREST.Create`.

mod budget;

use api::catalogue::{self, Kind};
use api::resource::POD_DISRUPTION_BUDGETS;
use api::view::core::Pod;
use api::view::policy::PodDisruptionBudget;
use apimachinery::meta::str_at;
use apimachinery::status::StatusDetails;
use apimachinery::{Status, Value, json, time};
use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use store::{CommitError, Entry, Expected as At, Op};

use crate::admit;
use crate::body::Body;
use crate::call::Call;
use crate::conversion;
use crate::delete;
use crate::deletion::{DeleteOptions, Preconditions};
use crate::draft::draft;
use crate::kind::KindRef;
use crate::negotiation::format_of_request;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::wire::{self, Document, Expected};
use crate::write::{Place, commit_failed};

use budget::Guard;

const EXPECTED: Expected =
    Expected { type_name: "io.k8s.api.policy.v1.Eviction", api_version: "policy/v1", kind: "Eviction" };

/// How often an eviction starts again because somebody else wrote in between (upstream: `EvictionsRetry`).
const ATTEMPTS: usize = 20;

pub async fn evict(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let write = WriteOptions::parse(&call.query, "CreateOptions")?;
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    let mut eviction = wire::decode_body(EXPECTED, format, body, write.field_validation, &mut call.warnings)?;
    call.audit_request(&eviction);
    let named = str_at(&eviction, &["metadata", "name"]);
    if !named.is_empty() && named != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let place = Place::of(call, kind, Part::Main);
    admit::posted(call, &place, "eviction", &mut eviction, write.dry_run).await?;
    let options = eviction.get("deleteOptions").cloned().unwrap_or(Value::Null);
    let options: DeleteOptions = match options {
        Value::Null => DeleteOptions::default(),
        options => apimachinery::from_value(options).map_err(|e| Status::bad_request(e.to_string()))?,
    };
    let dry_run = options.validate()? || write.dry_run;
    carry_out(call, &place, &options, dry_run).await?;
    call.target = call.target.plain();
    let mut success = Status::success(StatusDetails::default());
    success.details = None;
    success.code = 201;
    call.respond(201, Document::status(&success))
}

async fn carry_out(
    call: &mut Call,
    place: &Place,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<(), Status> {
    let mut pod = current_pod(call, place)?;
    // A pending pod must not become ready unnoticed, so only this version of it may go.
    for _ in 0..ATTEMPTS {
        if !budget::ends_anyway(&pod) {
            break;
        }
        let is_waiting = pod.status.phase == "Pending" && !pod.metadata.is_being_deleted();
        let strict = if is_waiting { at_version(options, &pod) } else { options.clone() };
        match announce_and_delete(call, place, &strict, dry_run).await {
            Err(status) if status.is_conflict() && names_no_version(options) => {
                pod = current_pod(call, place)?
            }
            result => return result,
        }
    }
    match budget::guard(&pod, budgets(call, &pod.metadata.namespace)?)? {
        Guard::Nothing => announce_and_delete(call, place, options, dry_run).await,
        Guard::Budget(budget) => {
            take(call, &budget, &pod.metadata.name, dry_run).await?;
            announce_and_delete(call, place, options, dry_run).await
        }
        Guard::Unready(budget) => {
            let strict = at_version(options, &pod);
            match announce_and_delete(call, place, &strict, dry_run).await {
                Err(status) if status.is_conflict() && names_no_version(options) => {
                    Err(budget::behind(&budget))
                }
                result => result,
            }
        }
    }
}

/// Takes one disruption from the budget.
async fn take(call: &Call, budget: &PodDisruptionBudget, pod: &str, dry_run: bool) -> Result<(), Status> {
    let (namespace, name) = (&budget.metadata.namespace, &budget.metadata.name);
    let key = store::Key::new(budget_kind()?.storage, namespace.as_str(), name.as_str());
    for _ in 0..ATTEMPTS {
        let resource = POD_DISRUPTION_BUDGETS.group_resource();
        let entry = call.core.store.get(&key).ok_or_else(|| Status::not_found(&resource, name))?;
        let status = budget::take(&view(&entry)?, pod, call.now)?;
        if dry_run {
            return Ok(());
        }
        let mut object = conversion::decode(&entry.bytes);
        object["status"] = apimachinery::to_value(&status).expect("a status encodes");
        if put(call, budget_kind()?, &entry, &object).await?.is_some() {
            return Ok(());
        }
    }
    Err(Status::timeout(format!("couldn't update PodDisruptionBudget {name:?} due to conflicts"), 10))
}

/// Tells in the pod's status that it is being evicted, and deletes it.
async fn announce_and_delete(
    call: &mut Call,
    place: &Place,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<(), Status> {
    let mut options = options.clone();
    if !dry_run {
        let version = announce(call, place, &options).await?;
        if let Some(preconditions) = options.preconditions.as_mut().filter(|p| p.resource_version.is_some()) {
            preconditions.resource_version = Some(version);
        }
    }
    delete::delete_object(call, place, &options, dry_run).await.map(drop)
}

/// Sets the condition DisruptionTarget; returns the version that the pod has then.
async fn announce(call: &Call, place: &Place, options: &DeleteOptions) -> Result<String, Status> {
    for _ in 0..ATTEMPTS {
        let entry = place.current(call)?;
        let old = conversion::decode(&entry.bytes);
        options.check_preconditions(&place.kind, &old)?;
        let object = announced(&old, call.now);
        if object == old {
            return Ok(entry.revision.to_string());
        }
        if let Some(version) = put(call, place.kind.hub(), &entry, &object).await? {
            return Ok(version);
        }
    }
    Err(Status::modified(&place.kind.resource.group_resource(), &place.key.name))
}

fn announced(pod: &Value, now: Timestamp) -> Value {
    let mut pod = pod.clone();
    let mut target = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": time::format_time(now)});
    let conditions = pod.pointer_mut("/status/conditions").map(Value::take);
    let mut conditions = conditions.and_then(|all| all.as_array().cloned()).unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition["type"] == target["type"]) {
        Some(present) => {
            if present["status"] == target["status"] {
                target["lastTransitionTime"] = present["lastTransitionTime"].clone();
            }
            *present = target;
        }
        None => conditions.push(target),
    }
    pod["status"]["conditions"] = conditions.into();
    pod
}

/// Stores an object unless somebody else came first; returns its version.
async fn put(call: &Call, kind: &Kind, entry: &Entry, object: &Value) -> Result<Option<String>, Status> {
    let op = Op::Put(draft(kind, object));
    match call.core.commit(&entry.key, At::At(entry.revision), op).await {
        Ok(written) => Ok(Some(written.revision.to_string())),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(error) => Err(commit_failed(&error)),
    }
}

fn budgets(call: &Call, namespace: &str) -> Result<Vec<PodDisruptionBudget>, Status> {
    let page = call.core.store.range(budget_kind()?.storage, Some(namespace), None, None, 0, &|_| true);
    let entries = page.map(|page| page.entries).map_err(Status::internal)?;
    entries.iter().map(|entry| view(entry)).collect()
}

fn budget_kind() -> Result<&'static Kind, Status> {
    let of = POD_DISRUPTION_BUDGETS;
    catalogue::by_resource(of.group, of.version, of.plural).ok_or_else(Status::path_not_found)
}

fn current_pod(call: &Call, place: &Place) -> Result<Pod, Status> {
    view(&*place.current(call)?)
}

fn view<V: DeserializeOwned>(entry: &Entry) -> Result<V, Status> {
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

fn names_no_version(options: &DeleteOptions) -> bool {
    options.preconditions.as_ref().is_none_or(|preconditions| preconditions.resource_version.is_none())
}

/// The same, for this version of the pod only, unless the client has named one.
fn at_version(options: &DeleteOptions, pod: &Pod) -> DeleteOptions {
    let mut options = options.clone();
    let preconditions = options.preconditions.get_or_insert_with(Preconditions::default);
    preconditions.resource_version.get_or_insert_with(|| pod.metadata.resource_version.clone());
    options
}
