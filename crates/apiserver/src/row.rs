//! What a table's row is made of, read from an object's JSON: what its kind names, else all of it but who owns which
//! field, which no built-in kind shows and which is often half of the text.

use std::cell::Cell;
use std::fmt;

use api::strategy::Shown;
use apimachinery::{Map, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

const METADATA: &str = "metadata";
const MANAGED_FIELDS: &str = "managedFields";

/// What a kind's columns show of an object that this server itself encoded, and its metadata as it is written.
pub fn read(json: &[u8], shown: Shown) -> (Value, &str) {
    let text = std::str::from_utf8(json).ok();
    text.and_then(|text| parse(text, shown).ok()).expect("the store keeps only JSON that this server wrote")
}

fn parse(text: &str, shown: Shown) -> serde_json::Result<(Value, &str)> {
    let metadata = Cell::new("{}");
    let mut input = serde_json::Deserializer::from_str(text);
    let object = input.deserialize_map(Reader { shown, place: Place::Object, metadata: &metadata })?;
    input.end()?;
    Ok((object, metadata.get()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    Below,
}

/// Reads what is shown of a value, and passes over the rest.
#[derive(Clone, Copy)]
struct Reader<'r, 'de> {
    shown: Shown,
    place: Place,
    /// Where the text of the metadata is put.
    metadata: &'r Cell<&'de str>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Reader<'_, 'de> {
    /// The value of a field, if it is shown.
    fn field<A: MapAccess<'de>>(self, key: &str, input: &mut A) -> Result<Option<Value>, A::Error> {
        if self.place == Place::Object && key == METADATA {
            let text: &'de RawValue = input.next_value()?;
            self.metadata.set(text.get());
            let shown = self.shown.field(key).unwrap_or(Shown::ALL);
            let reader = Reader { shown, place: Place::Metadata, ..self };
            let fields = serde_json::Deserializer::from_str(text.get()).deserialize_map(reader);
            return fields.map(Some).map_err(A::Error::custom);
        }
        let shown = self.shown.field(key);
        match shown.filter(|_| self.place != Place::Metadata || key != MANAGED_FIELDS) {
            None => input.next_value::<IgnoredAny>().map(|_| None),
            Some(shown) if shown.is_all() => input.next_value().map(Some),
            Some(shown) => input.next_value_seed(Reader { shown, place: Place::Below, ..self }).map(Some),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    /// The keys here are names of fields, which need no escapes.
    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = input.next_key::<&'de str>()? {
            if let Some(value) = self.field(key, &mut input)? {
                fields.insert(key.to_owned(), value);
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = input.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn check(text: &str, shown: Shown, object: &Value, metadata: &str) {
        assert_eq!(read(text.as_bytes(), shown), (object.clone(), metadata));
    }

    #[test]
    fn a_row_is_made_without_the_managed_fields_of_its_object_alone() {
        let text =
            r#"{"kind":"Pod","metadata":{"managedFields":[{"a":{}}],"name":"a"},"spec":{"managedFields":1}}"#;
        let object = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"managedFields": 1}});
        check(text, Shown::ALL, &object, r#"{"managedFields":[{"a":{}}],"name":"a"}"#);
    }

    #[test]
    fn only_what_is_shown_is_read() {
        const SHOWN: Shown = Shown(&[
            ("metadata", Shown(&[("name", Shown::ALL)])),
            ("spec", Shown(&[("containers", Shown(&[("name", Shown::ALL)])), ("gates", Shown::ALL)])),
        ]);
        let metadata = r#"{"name":"a","labels":{"a\"b":"c"}}"#;
        let text = format!(
            r#"{{"kind":"Pod","metadata":{metadata},"spec":{{"containers":[{{"name":"c","env":[]}},{{}}],"gates":null,"x":{{}}}}}}"#
        );
        let object =
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}, {}], "gates": null}});
        check(&text, SHOWN, &object, metadata);
        check(r#"{"spec":null}"#, SHOWN, &json!({"spec": null}), "{}");
    }

    #[test]
    fn a_pods_row_is_the_same_of_what_is_shown_alone() {
        let kind = api::catalogue::by_resource("", "v1", "pods").expect("a row");
        let status = |name: &str, ready: bool| {
            json!({"name": name, "ready": ready, "started": true, "restartCount": 2, "state": {"running": {}},
                   "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}})
        };
        let pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:01:00Z"},
            "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a"}], "tolerations": [{"key": "k"}],
                     "containers": [{"name": "a", "env": [{"name": "E"}]}, {"name": "b"}],
                     "initContainers": [{"name": "i", "restartPolicy": "Always", "args": ["x"]}]},
            "status": {"phase": "Running", "nominatedNodeName": "m", "podIPs": [{"ip": "192.0.2.1"}],
                       "conditions": [{"type": "a", "status": "True"}],
                       "containerStatuses": [status("a", true), status("b", false)],
                       "initContainerStatuses": [status("i", true)]},
        });
        let now = apimachinery::time::parse_time("2026-01-01T00:10:00Z").expect("a time");
        let text = pod.to_string();
        let (shown, _) = read(text.as_bytes(), kind.strategy.shown());
        assert_ne!(shown, pod);
        assert_eq!(kind.row(&shown, now), kind.row(&pod, now));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"(\{|\}|"metadata":|"managedFields":|\[|\]|,|1|"a"|null){0,12}"#) {
            drop(parse(&text, Shown::ALL));
        }
    }
}
