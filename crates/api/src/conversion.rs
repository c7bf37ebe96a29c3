//! Between versions of one kind. Two kinds are served in two: Events, whose fields `v1` and `events.k8s.io/v1` name
//! differently (follows `pkg/apis/events/v1/conversion.go`), and HorizontalPodAutoscalers.

use apimachinery::{Map, Value};

use crate::autoscaling::conversion::{from_v1, to_v1};
use crate::resource::{
    EVENTS, EVENTS_V1, HORIZONTAL_POD_AUTOSCALERS, HORIZONTAL_POD_AUTOSCALERS_V1, Resource,
};

/// `v1` name, `events.k8s.io/v1` name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Fields that `v1` always writes, empty or not.
const ALWAYS_IN_V1: [&str; 3] = ["firstTimestamp", "lastTimestamp", "eventTime"];

/// The object as the other version writes it. Rows that are not versions of one kind are a mistake of the caller,
/// who gets the object back with only its `apiVersion` and `kind` changed.
pub fn convert(mut obj: Value, from: &Resource, to: &Resource) -> Value {
    match (*from, *to) {
        (HORIZONTAL_POD_AUTOSCALERS, HORIZONTAL_POD_AUTOSCALERS_V1) => to_v1(&mut obj),
        (HORIZONTAL_POD_AUTOSCALERS_V1, HORIZONTAL_POD_AUTOSCALERS) => from_v1(&mut obj),
        _ => {}
    }
    let Some(map) = obj.as_object_mut() else { return obj };
    if (*from, *to) == (EVENTS, EVENTS_V1) {
        for (old, new) in EVENT_FIELDS {
            rename(map, old, new);
        }
    } else if (*from, *to) == (EVENTS_V1, EVENTS) {
        for (new, old) in EVENT_FIELDS {
            rename(map, old, new);
        }
        map.entry("involvedObject").or_insert_with(|| Value::Object(Map::new()));
        for field in ALWAYS_IN_V1 {
            map.entry(field).or_insert(Value::Null);
        }
    }
    map.insert("apiVersion", to.api_version().into());
    map.insert("kind", to.kind.into());
    obj
}

fn rename(map: &mut Map, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod"}, "message": "m", "source": {"component": "c"}, "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "eventTime": null,
            "reportingComponent": "", "reportingInstance": "", "reason": "r", "type": "Normal"});
        let newer = convert(event.clone(), &EVENTS, &EVENTS_V1);
        assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
        assert_eq!((&newer["note"], &newer["deprecatedCount"]), (&json!("m"), &json!(3)));
        assert_eq!(newer["regarding"], json!({"kind": "Pod"}));
        assert_eq!(convert(newer, &EVENTS_V1, &EVENTS), event);
    }
}
