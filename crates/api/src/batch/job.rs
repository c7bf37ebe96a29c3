//! Job (follows `pkg/registry/batch/job`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use apimachinery::{Text, Value, json, names};
use jiff::Timestamp;

use super::status::is_true;
use super::validation::{self, COMPLETIONS_HIGH, Mutable, PARALLELISM_HIGH_MAX};
use crate::apps::workload_cells;
use crate::columns::{
    AGE, NAME, age, column, count, format_label_selector, human_duration, name, since, wide,
};
use crate::core::pod;
use crate::defaults::{Fill, each, fill, object, object_or_new, store_as_none};
use crate::objectmeta;
use crate::strategy::{Column, GarbagePolicy, Strategy, advance_generation, keep, set_first_generation};
use crate::validation::{At, same_field};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The labels every pod of a Job has, old name and new: of its uid, and of its name.
const UID_LABELS: [&str; 2] = ["controller-uid", CONTROLLER_UID];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// Failures until a Job fails; without limit where each index has its own.
const BACKOFF_LIMIT: i64 = 6;
const BACKOFF_LIMIT_NONE: i64 = i32::MAX as i64;

const COLUMNS: [Column; 8] = [
    NAME,
    column("Status", "string", "Status of the job."),
    column("Completions", "string", "Pods that succeeded, of all wanted."),
    column("Duration", "string", "Time required to complete the job."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
    wide("Selector", "string", "Which pods belong to it."),
];

pub struct Job;

impl Strategy for Job {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        if let Some(spec) = object(obj, "spec") {
            default_spec(spec);
        }
        label_as_template(obj);
    }

    fn canonicalize(&self, obj: &mut Value) {
        if let Some(spec) = object(obj, "spec") {
            canonicalize_spec(spec);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        generate_selector(obj);
        // Upstream defaults what it reads back, the generated labels included.
        label_as_template(obj);
        obj["status"] = json!({});
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        let changed = !same_field(obj, old, "spec");
        advance_generation(obj, old, changed);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validate_whole(obj, true)
    }

    /// An update is validated as a new Job first, then as a change.
    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let labels = &old["spec"]["template"]["metadata"]["labels"];
        let prefixed = [UID_LABELS[1], NAME_LABELS[1]].iter().all(|label| labels[*label].is_string());
        let mut errors = validate_whole(obj, prefixed);
        errors.extend(objectmeta::validate_update(obj, old));
        let stopped = old["spec"]["suspend"] == true && is_stopped(&old["status"]);
        let mutable = Mutable { scheduling: stopped, resources: stopped };
        validation::job_spec_update(&At::root(obj).get("spec"), &old["spec"], mutable, &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = objectmeta::validate_update(obj, old);
        errors.extend(super::status::validate_update(obj, old));
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        match old {
            Some(old) if old["metadata"]["generation"] == obj["metadata"]["generation"] => return warnings,
            Some(_) => {}
            None => {
                let name = str_at(obj, &["metadata", "name"]);
                warnings.extend(pod::hostname_warning(name, "Pod names and hostnames"));
            }
        }
        warnings.extend(spec_warnings(&At::root(obj).get("spec")));
        warnings
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", count(obj, &["status", "succeeded"]).to_string())]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    /// As it was before there were owners.
    fn default_garbage_policy(&self) -> GarbagePolicy {
        GarbagePolicy::Orphan
    }

    fn deletion_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let mut row = vec![
            name(obj),
            phase(obj).into(),
            completions(obj).into(),
            took(&obj["status"], now).into(),
            age(obj, now),
        ];
        row.extend(workload_cells(obj));
        row.push(format_label_selector(obj.pointer("/spec/selector")).into());
        row
    }
}

/// A Job without labels has those of its template.
fn label_as_template(obj: &mut Value) {
    let labels = &obj["spec"]["template"]["metadata"]["labels"];
    if labels.is_object() && At::root(obj).at(&["metadata", "labels"]).is_empty() {
        obj["metadata"]["labels"] = labels.clone();
    }
}

/// The defaults of a Job, also of one in a CronJob's template.
pub fn default_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        fill(spec, &[("completions", Fill::Int(1))]);
    }
    let limit = if spec["backoffLimitPerIndex"].is_null() { BACKOFF_LIMIT } else { BACKOFF_LIMIT_NONE };
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill(
        spec,
        &[
            ("parallelism", Fill::Int(1)),
            ("backoffLimit", Fill::Int(limit)),
            ("completionMode", Fill::Text("NonIndexed")),
            ("suspend", Fill::Bool(false)),
            ("podReplacementPolicy", Fill::Text(replacement)),
            ("manualSelector", Fill::Bool(false)),
        ],
    );
    default_template(spec);
}

/// What a CronJob's template has defaulted of its Job: only the pods.
pub fn default_template(spec: &mut Value) {
    fill(spec, &[("template", Fill::Empty)]);
    if let Some(template) = object(spec, "template") {
        pod::defaults::pod_template(template);
    }
    let Some(policy) = object(spec, "podFailurePolicy") else { return };
    fill(policy, &[("rules", Fill::Null)]);
    for rule in each(policy, "rules") {
        for pattern in each(rule, "onPodConditions") {
            fill(pattern, &[("status", Fill::Text("True"))]);
        }
    }
}

/// The protobuf that upstream stores cannot tell an empty list from none.
pub fn canonicalize_spec(spec: &mut Value) {
    if let Some(policy) = object(spec, "podFailurePolicy") {
        store_as_none(policy, &["rules"]);
    }
}

/// Labels the pods with the Job's name and uid, and selects them by the latter, unless the user does that.
fn generate_selector(obj: &mut Value) {
    let [job, uid] = ["name", "uid"].map(|field| Value::from(str_at(obj, &["metadata", field])));
    let Some(spec) = object(obj, "spec").filter(|spec| spec["manualSelector"] != true) else { return };
    let labels = object_or_new(spec, "template")
        .and_then(|template| object_or_new(template, "metadata"))
        .and_then(|metadata| object_or_new(metadata, "labels"))
        .and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        for (keys, value) in [(NAME_LABELS, &job), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
    let selected = object_or_new(spec, "selector")
        .and_then(|selector| object_or_new(selector, "matchLabels"))
        .and_then(Value::as_object_mut);
    if let Some(selected) = selected {
        selected.entry(CONTROLLER_UID).or_insert(uid);
    }
}

/// Follows `ValidateJob`.
fn validate_whole(obj: &Value, prefixed: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(obj);
    validate_generated_selector(obj, prefixed, &mut errors);
    let spec = root.get("spec");
    validation::job_spec(&spec, &mut errors);
    validate_hostnames(&root, &spec, &mut errors);
    errors
}

fn validate_generated_selector(obj: &Value, prefixed: bool, errors: &mut ErrorList) {
    let spec = At::root(obj).get("spec");
    let selector = spec.get("selector");
    if spec.get("manualSelector").is_true() || !selector.is_set() {
        return;
    }
    let (uid, job) = (str_at(obj, &["metadata", "uid"]), str_at(obj, &["metadata", "name"]));
    let labels = spec.at(&["template", "metadata", "labels"]);
    let known = if prefixed { 2 } else { 1 };
    for (keys, expected) in [(UID_LABELS, uid), (NAME_LABELS, job)] {
        for key in &keys[..known] {
            has_label(&labels, key, expected, errors);
        }
    }
    let generated = [(UID_LABELS, uid), (NAME_LABELS, job)];
    let expected =
        generated.iter().flat_map(|(keys, value)| keys[..known].iter().map(move |key| (*key, *value)));
    let labels: apimachinery::meta::StringMap = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let parsed: apimachinery::meta::LabelSelector =
        apimachinery::from_value(selector.value.clone()).unwrap_or_default();
    if !parsed.matches(&labels) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// Follows `ValidateHasLabel`.
fn has_label(labels: &At, key: &str, expected: &str, errors: &mut ErrorList) {
    let label = labels.get(key);
    match label.value.as_str() {
        None => errors.push(Error::required(&labels.path.key(key), format!("must be '{expected}'"))),
        Some(actual) if actual != expected => {
            errors.push(Error::invalid(
                &labels.path.key(key),
                labels.value.clone(),
                format!("must be '{expected}'"),
            ));
        }
        Some(_) => {}
    }
}

/// Pods of an Indexed Job are called `NAME-INDEX`, and so are their hosts.
fn validate_hostnames(root: &At, spec: &At, errors: &mut ErrorList) {
    let completions = spec.get("completions").int();
    if !validation::is_indexed(spec) || completions <= 0 {
        return;
    }
    let name = root.at(&["metadata", "name"]);
    let longest = format!("{}-{}", name.text(), completions - 1);
    if !names::is_dns1123_label(&longest).is_empty() {
        errors.push(name.invalid(format!("will not able to create pod with invalid DNS label: {longest}")));
    }
}

/// Whether a suspended Job has no pods left that its template could contradict (upstream: shouldAllowMutablePodTemplate).
fn is_stopped(status: &Value) -> bool {
    status["startTime"].is_null()
        || (is_true(status, "Suspended") && status["active"].as_i64().unwrap_or(0) == 0)
}

/// Follows `WarningsForJobSpec`.
pub fn spec_warnings(spec: &At) -> Vec<String> {
    let mut warnings = Vec::new();
    let many = spec.get("completions").int() > COMPLETIONS_HIGH
        && spec.get("parallelism").int() > PARALLELISM_HIGH_MAX;
    if validation::is_indexed(spec) && many {
        warnings.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            spec.path
        ));
    }
    warnings.extend(pod::template_warnings(&spec.get("template")));
    warnings
}

fn phase(obj: &Value) -> &'static str {
    let status = &obj["status"];
    match () {
        () if is_true(status, "Complete") => "Complete",
        () if is_true(status, "Failed") => "Failed",
        () if !obj["metadata"]["deletionTimestamp"].is_null() => "Terminating",
        () if is_true(status, "Suspended") => "Suspended",
        () if is_true(status, "FailureTarget") => "FailureTarget",
        () if is_true(status, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(obj: &Value) -> String {
    let succeeded = count(obj, &["status", "succeeded"]);
    let parallelism = count(obj, &["spec", "parallelism"]);
    match obj["spec"]["completions"].as_i64() {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

/// From its start to its completion, or until now; nothing before it starts.
fn took(status: &Value, now: Timestamp) -> Text {
    let time = |field: &str| status[field].as_str().and_then(apimachinery::time::parse_time);
    match (time("startTime"), time("completionTime")) {
        (None, _) => Text::default(),
        (Some(_), None) => since(status.get("startTime"), now),
        (Some(start), Some(end)) => human_duration(end.as_second() - start.as_second()),
    }
}

#[cfg(test)]
mod tests;
