//! Cells that many kinds print, worded as upstream's printers (`k8s.io/kubernetes/pkg/printers/internalversion`).

use apimachinery::meta::{str_at, value_at};
use apimachinery::value::ToCompactString;
use apimachinery::{Text, Value, time};
use jiff::Timestamp;

use crate::strategy::Column;

pub const NAME: Column = Column {
    name: "Name",
    column_type: "string",
    format: "name",
    description: "Name of the object.",
    priority: 0,
};

pub const AGE: Column = Column {
    name: "Age",
    column_type: "string",
    format: "",
    description: "Time since the object was created.",
    priority: 0,
};

pub const CREATED_AT: Column = Column {
    name: "Created At",
    column_type: "date",
    format: "",
    description: "When the object was created.",
    priority: 0,
};

/// Shown where there is nothing to show.
pub const NONE: &str = "<none>";
/// Shown where a time is not known.
pub const UNKNOWN: &str = "<unknown>";

const SECONDS_PER_MINUTE: i64 = 60;
const MINUTES_PER_HOUR: i64 = 60;
const HOURS_PER_DAY: i64 = 24;
const HOURS_PER_YEAR: i64 = HOURS_PER_DAY * 365;

/// A column that is always shown.
pub const fn column(name: &'static str, column_type: &'static str, description: &'static str) -> Column {
    Column { name, column_type, format: "", description, priority: 0 }
}

/// A column of wide output.
pub const fn wide(name: &'static str, column_type: &'static str, description: &'static str) -> Column {
    Column { name, column_type, format: "", description, priority: 1 }
}

pub fn name(obj: &Value) -> Value {
    str_at(obj, &["metadata", "name"]).into()
}

pub fn age(obj: &Value, now: Timestamp) -> Value {
    since(value_at(obj, &["metadata", "creationTimestamp"]), now).into()
}

/// The time of creation as it stands.
pub fn created_at(obj: &Value) -> Value {
    str_at(obj, &["metadata", "creationTimestamp"]).into()
}

/// How long ago a time was; `<unknown>` when it is not set.
pub fn since(at: Option<&Value>, now: Timestamp) -> Text {
    match at.and_then(Value::as_str).and_then(time::parse_time) {
        Some(at) => human_duration(now.as_second() - at.as_second()),
        None => UNKNOWN.into(),
    }
}

/// A duration in at most two units, coarser as it grows (follows `duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> Text {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let minutes = seconds / SECONDS_PER_MINUTE;
    let hours = minutes / MINUTES_PER_HOUR;
    let days = hours / HOURS_PER_DAY;
    match () {
        () if seconds < 2 * SECONDS_PER_MINUTE => units([(seconds, "s")]),
        () if minutes < 10 => two_units(minutes, "m", seconds % SECONDS_PER_MINUTE, "s"),
        () if minutes < 3 * MINUTES_PER_HOUR => units([(minutes, "m")]),
        () if hours < 8 => two_units(hours, "h", minutes % MINUTES_PER_HOUR, "m"),
        () if hours < 2 * HOURS_PER_DAY => units([(hours, "h")]),
        () if hours < 8 * HOURS_PER_DAY => two_units(days, "d", hours % HOURS_PER_DAY, "h"),
        () if hours < 2 * HOURS_PER_YEAR => units([(days, "d")]),
        () if hours < 8 * HOURS_PER_YEAR => two_units(days / 365, "y", days % 365, "d"),
        () => units([(days / 365, "y")]),
    }
}

fn two_units(major: i64, major_unit: &str, minor: i64, minor_unit: &str) -> Text {
    if minor == 0 { units([(major, major_unit)]) } else { units([(major, major_unit), (minor, minor_unit)]) }
}

/// Numbers, each followed by its unit; without a formatter, since lists have many rows.
pub fn units<T: ToCompactString, const N: usize>(parts: [(T, &str); N]) -> Text {
    let mut text = Text::default();
    for (number, unit) in parts {
        text.push_str(&number.to_compact_string());
        text.push_str(unit);
    }
    text
}

/// `a=1,b=2` in key order, or `<none>` (follows `labels.FormatLabels`).
pub fn format_labels(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .map(|map| map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect())
        .unwrap_or_default();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A label selector as text (follows `metav1.FormatLabelSelector`): `<none>` when empty.
pub fn format_label_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push((key.to_string(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for requirement in items(selector, &["matchExpressions"]) {
        let key = str_at(requirement, &["key"]);
        let mut values: Vec<&str> =
            items(requirement, &["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let term = match str_at(requirement, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let text: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    if text.is_empty() { NONE.to_owned() } else { text.join(",") }
}

/// The number at a path, 0 where upstream's integer field would be 0.
pub fn count(obj: &Value, path: &[&str]) -> i64 {
    value_at(obj, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The items of the list at a path; none when it is absent.
pub fn items<'a>(obj: &'a Value, path: &[&str]) -> &'a [Value] {
    value_at(obj, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn durations_grow_coarser_as_they_grow() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        let table = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (2 * MINUTE + 5, "2m5s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + MINUTE, "7h1m"),
            (8 * HOUR + MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY, "8d"),
            (729 * DAY, "729d"),
            (731 * DAY, "2y1d"),
            (3000 * DAY, "8y"),
        ];
        for (seconds, expect) in table {
            assert_eq!(human_duration(seconds), expect, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_shown_in_key_order() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(format_label_selector(Some(&selector)), "a in (x,y),b=1,!c");
        assert_eq!(format_label_selector(Some(&json!({}))), NONE);
        assert_eq!(format_labels(Some(&json!({"b": "2", "a": "1"}))), "a=1,b=2");
        assert_eq!(format_labels(None), NONE);
    }
}
