//! Event in both its versions; the store keeps `v1` (follows `pkg/registry/core/event` and `validation/events.go`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};
use jiff::Timestamp;

use crate::columns::{column, count, since, wide};
use crate::conversion::convert;
use crate::defaults::{Fill, fill, object};
use crate::objectmeta;
use crate::resource::{EVENTS, EVENTS_V1};
use crate::strategy::{Column, GarbagePolicy, NameRule, Strategy};
use crate::validation::{At, qualified_name, same_field};

const REPORTING_INSTANCE_MAX: usize = 128;
const ACTION_MAX: usize = 128;
const REASON_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// Selectable fields: as `v1` names them, and as `events.k8s.io/v1` does.
const SELECTABLE: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const SELECTABLE_V1: [&str; 10] = [
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// Fields that never change, by their `v1` names, in the order in which they are checked.
const IMMUTABLE: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

const COLUMNS: [Column; 10] = [
    column("Last Seen", "string", "Time since it last happened."),
    column("Type", "string", "Normal or Warning."),
    column("Reason", "string", "What happened, in one word."),
    column("Object", "string", "What it happened to."),
    wide("Subobject", "string", "Which part of the object."),
    wide("Source", "string", "Who reports it."),
    column("Message", "string", "What happened."),
    wide("First Seen", "string", "Time since it first happened."),
    wide("Count", "string", "How often it happened."),
    Column {
        name: "Name",
        column_type: "string",
        format: "name",
        description: "Name of the event.",
        priority: 1,
    },
];

/// `v1`, the stored form.
pub struct Event;

impl Strategy for Event {
    /// Upstream always writes these, in this version and in the other.
    fn default(&self, obj: &mut Value) {
        let times = ["eventTime", "firstTimestamp", "lastTimestamp"].map(|time| (time, Fill::Null));
        fill(obj, &times);
        fill_series(obj);
        fill(obj, &[("source", Fill::Empty)]);
        fill(obj, &[("reportingComponent", Fill::Text("")), ("reportingInstance", Fill::Text(""))]);
    }

    /// Upstream's registry asks for metadata once the strategy is content.
    fn validate_new(&self, obj: &Value, metadata: ErrorList) -> ErrorList {
        let errors = self.validate(obj);
        if errors.is_empty() { metadata } else { errors }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        legacy(obj, "reportingComponent", &mut errors);
        errors
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        SELECTABLE.iter().map(|field| (*field, selectable(obj, field))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        row(obj, now)
    }

    fn default_garbage_policy(&self) -> GarbagePolicy {
        GarbagePolicy::Unsupported
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    /// Whatever stands in a path: reporters derive names from all kinds of objects.
    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }
}

fn fill_series(obj: &mut Value) {
    if let Some(series) = object(obj, "series") {
        fill(series, &[("lastObservedTime", Fill::Null)]);
    }
}

/// `events.k8s.io/v1`: the same events, held to stricter rules.
pub struct EventV1;

impl Strategy for EventV1 {
    fn default(&self, obj: &mut Value) {
        let times = ["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"];
        fill(obj, &times.map(|time| (time, Fill::Null)));
        fill_series(obj);
        fill(obj, &[("deprecatedSource", Fill::Empty)]);
    }

    fn internal_group(&self) -> Option<&'static str> {
        Some(EVENTS.group)
    }

    fn judges_its_version(&self) -> bool {
        true
    }

    fn validate_new(&self, obj: &Value, metadata: ErrorList) -> ErrorList {
        let mut errors = ErrorList::new();
        legacy(&stored(obj), "reportingController", &mut errors);
        errors.extend(metadata);
        errors.extend(self.validate(obj));
        errors
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let event = stored(obj);
        let mut errors = ErrorList::new();
        series(&event, &mut errors);
        if !At::root(&event).get("eventTime").is_set() {
            errors.push(Error::required(&Path::new("eventTime"), ""));
        }
        let kind = str_at(&event, &["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(Error::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
        }
        for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            if !is_zero(event.get(field)) {
                errors.push(Error::invalid(&Path::new(field), "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let (event, old) = (stored(obj), stored(old));
        let mut errors = ErrorList::new();
        legacy(&event, "reportingController", &mut errors);
        errors.extend(objectmeta::validate_update(&event, &old));
        if !same_field(&event, &old, "series") {
            series(&event, &mut errors);
        }
        for field in IMMUTABLE {
            At::root(&event).get(field).check_unchanged(&At::root(&old).get(field), &mut errors);
        }
        errors
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        let event = stored(obj);
        SELECTABLE_V1.iter().map(|field| (*field, selectable(&event, &stored_field(field)))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &SELECTABLE_V1
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        row(&stored(obj), now)
    }

    fn default_garbage_policy(&self) -> GarbagePolicy {
        GarbagePolicy::Unsupported
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// Whether a field holds what Go calls its zero value.
fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Object(map)) => map.values().all(|value| is_zero(Some(value))),
        Some(_) => false,
    }
}

/// The event in its stored form, whichever form it has.
fn stored(obj: &Value) -> Value {
    if str_at(obj, &["apiVersion"]) == "v1" { obj.clone() } else { convert(obj.clone(), &EVENTS_V1, &EVENTS) }
}

fn stored_field(field: &str) -> String {
    match field {
        "reportingController" => "reportingComponent".to_owned(),
        other => other.replacen("regarding.", "involvedObject.", 1),
    }
}

fn selectable(event: &Value, field: &str) -> String {
    let component = str_at(event, &["source", "component"]);
    match field {
        "source" if component.is_empty() => str_at(event, &["reportingComponent"]).to_owned(),
        "source" => component.to_owned(),
        other => str_at(event, &other.split('.').collect::<Vec<_>>()).to_owned(),
    }
}

/// What holds for events of either version (follows `legacyValidateEvent`).
fn legacy(event: &Value, reporter: &str, errors: &mut ErrorList) {
    let root = At::root(event);
    let namespace = str_at(event, &["metadata", "namespace"]);
    let about = root.at(&["involvedObject", "namespace"]);
    let has_event_time = root.get("eventTime").is_set();
    let matches = match (about.text(), has_event_time) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (about, false) => about == namespace,
        (_, true) => true,
    };
    if !matches {
        errors.push(Error::invalid(&about.path, about.text(), "does not match event.namespace"));
    }
    if has_event_time {
        newer(&root, reporter, errors);
    }
    for complaint in names::is_dns1123_subdomain(namespace) {
        errors.push(Error::invalid(&Path::new("namespace"), namespace, complaint));
    }
}

/// Fields that events with an `eventTime` must have.
fn newer(root: &At, reporter: &str, errors: &mut ErrorList) {
    let controller = root.get("reportingComponent").under(&Path::new(reporter));
    if controller.is_empty() {
        errors.push(controller.required(""));
    }
    qualified_name(&controller, errors);
    for (field, max) in
        [("reportingInstance", REPORTING_INSTANCE_MAX), ("action", ACTION_MAX), ("reason", REASON_MAX)]
    {
        let at = root.get(field);
        if at.is_empty() {
            errors.push(at.required(""));
        }
        too_long(&at, max, errors);
    }
    too_long(&root.get("message"), NOTE_MAX, errors);
}

fn too_long(at: &At, max: usize, errors: &mut ErrorList) {
    if at.len() > max {
        errors.push(Error::invalid(&at.path, "", format!("can have at most {max} characters")));
    }
}

fn series(event: &Value, errors: &mut ErrorList) {
    let Some(series) = At::root(event).field("series") else { return };
    if series.get("count").int() < 2 {
        errors.push(Error::invalid(&series.get("count").path, "", "should be at least 2"));
    }
    if !series.get("lastObservedTime").is_set() {
        errors.push(series.get("lastObservedTime").required(""));
    }
}

fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let set = |field: &str| event.get(field).filter(|value| !value.is_null());
    let first = since(set("firstTimestamp").or_else(|| set("eventTime")), now);
    let (last, times) = match set("series") {
        Some(series) => (since(series.get("lastObservedTime"), now), count(series, &["count"])),
        None => {
            let last = set("lastTimestamp").map_or_else(|| first.clone(), |at| since(Some(at), now));
            (last, count(event, &["count"]).max(1))
        }
    };
    let text = |path: &[&str]| Value::from(str_at(event, path));
    vec![
        last.into(),
        text(&["type"]),
        text(&["reason"]),
        target(event).into(),
        text(&["involvedObject", "fieldPath"]),
        source(event).into(),
        str_at(event, &["message"]).trim().into(),
        first.into(),
        times.into(),
        text(&["metadata", "name"]),
    ]
}

fn target(event: &Value) -> String {
    let kind = str_at(event, &["involvedObject", "kind"]).to_lowercase();
    match str_at(event, &["involvedObject", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let either = |old: &[&str], new: &str| match str_at(event, old) {
        "" => str_at(event, &[new]).to_owned(),
        text => text.to_owned(),
    };
    let component = either(&["source", "component"], "reportingComponent");
    let instance = either(&["source", "host"], "reportingInstance");
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn event() -> Value {
        json!({"apiVersion": "v1", "metadata": {"name": "e", "namespace": "n"}, "type": "Normal", "reason": "Pulled",
            "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}, "message": " hi ", "count": 2,
            "source": {"component": "kubelet", "host": "h"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z"})
    }

    #[test]
    fn an_event_stands_in_the_namespace_it_is_about() {
        expect_errors(&Event.validate(&event()), &[]);
        let mut elsewhere = event();
        elsewhere["involvedObject"]["namespace"] = json!("other");
        expect_errors(
            &Event.validate(&elsewhere),
            &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
        );
        let mut of_a_node = event();
        of_a_node["involvedObject"]["namespace"] = json!("");
        of_a_node["metadata"]["namespace"] = json!("default");
        expect_errors(&Event.validate(&of_a_node), &[]);
    }

    #[test]
    fn each_version_holds_events_to_rules_of_its_own() {
        let kind = |resource: crate::Resource| {
            crate::catalogue::by_resource(resource.group, resource.version, resource.plural).expect("a row")
        };
        let mut new = event();
        new["metadata"]["name"] = json!("Not_Valid!");
        expect_errors(&kind(EVENTS).validate(&new), &[]);
        expect_errors(
            &kind(EVENTS_V1).validate(&new),
            &[
                "metadata.name: Invalid value: \"Not_Valid!\"",
                "eventTime: Required value",
                "firstTimestamp: Invalid value",
                "lastTimestamp: Invalid value",
                "count: Invalid value",
                "source: Invalid value",
            ],
        );
    }

    #[test]
    fn a_new_event_says_who_reports_what() {
        let mut new = event();
        new["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
        expect_errors(
            &Event.validate(&new),
            &[
                "reportingComponent: Required value",
                "reportingComponent: Invalid value: \"\": name part must be non-empty",
                "reportingComponent: Invalid value: \"\": name part must consist",
                "reportingInstance: Required value",
                "action: Required value",
            ],
        );
    }

    #[test]
    fn both_versions_print_and_select_alike() {
        let now = apimachinery::time::parse_time("2026-01-01T00:03:00Z").expect("a time");
        let newer = convert(event(), &EVENTS, &EVENTS_V1);
        let cells = Event.row(&event(), now);
        assert_eq!(cells, EventV1.row(&newer, now));
        assert_eq!(
            cells,
            [
                json!("2m"),
                json!("Normal"),
                json!("Pulled"),
                json!("pod/p"),
                json!(""),
                json!("kubelet, h"),
                json!("hi"),
                json!("3m"),
                json!(2),
                json!("e")
            ]
        );
        assert!(Event.selectable_fields(&event()).contains(&("involvedObject.name", "p".to_owned())));
        assert!(EventV1.selectable_fields(&newer).contains(&("regarding.name", "p".to_owned())));
    }
}
