//! What a table's row is made of, found in an object's text in one pass: what the kind's columns show becomes values, the
//! metadata is handed on as it is written, and the rest is passed over.

mod nested;

use std::borrow::Cow;

use api::shown::Shown;
use apimachinery::plain::plain_until;
use apimachinery::schema::Head;
use apimachinery::{Map, Value};

use self::nested::past_nested;

const METADATA: &[u8] = b"metadata";

/// Reads objects one after the other into the same value: what they have in common, the names of their fields above all,
/// is made once.
#[derive(Default)]
pub struct Reader(Value);

impl Reader {
    /// What a kind's columns show of an object that this server itself encoded, and its metadata as it is written.
    pub fn read<'t>(&mut self, json: &'t [u8], shown: &Shown) -> (&Value, &'t [u8]) {
        let metadata = parse(json, shown, &mut self.0);
        (&self.0, metadata.expect("the store keeps only JSON that this server wrote"))
    }
}

/// The metadata of an object that this server itself encoded, as it is written.
pub fn metadata(json: &[u8]) -> &[u8] {
    let mut scanner = Scanner { text: json, at: 0 };
    let mut found = None;
    // It stands before nearly everything else: what comes after it is not looked at.
    scanner.fields(|scanner, key, _| {
        let value = scanner.skipped()?;
        found = (*key == *METADATA).then_some(value);
        found.is_none().then_some(())
    });
    found.unwrap_or(b"{}")
}

fn parse<'t>(text: &'t [u8], shown: &Shown, object: &mut Value) -> Option<&'t [u8]> {
    let mut scanner = Scanner { text, at: 0 };
    let mut metadata = &b"{}"[..];
    scanner.object(shown, object, Order::TypeFirst, |key, value| {
        if key == METADATA {
            metadata = value;
        }
    })?;
    (scanner.at == text.len()).then_some(metadata)
}

/// In which order an object has its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As [`crate::draft`] writes a whole object.
    TypeFirst,
    /// As everything else is written: by name, but for what comes first of all.
    ByName,
}

/// Goes through JSON without spaces, as this server writes it. It only finds where values begin and end: whether they
/// are well formed, their decoder says. None where the text ends too early.
struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether a list or an object goes on.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        match self.peek()? {
            b',' => self.at += 1,
            byte if byte == end => {
                self.at += 1;
                return Some(false);
            }
            _ => return None,
        }
        Some(true)
    }

    /// Calls `each` with the key of every field of an object and the key's head; it is to go past the value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, Cow<'t, [u8]>, Head) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        if self.peek()? == b'}' {
            return self.eat(b'}');
        }
        loop {
            let text = self.text.get(self.at + 1..)?;
            let key = self.string()?;
            let head = match &key {
                Cow::Borrowed(name) => Head::at_start(text, name.len()),
                Cow::Owned(name) => Head::of(name),
            };
            self.eat(b':')?;
            each(self, key, head)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// Makes `value` what is shown of an object, and calls `each` with the key and text of every field up to the last one
    /// that may be shown.
    fn object(
        &mut self,
        shown: &Shown,
        value: &mut Value,
        order: Order,
        mut each: impl FnMut(&[u8], &'t [u8]),
    ) -> Option<()> {
        if !value.is_object() {
            *value = Map::new().into();
        }
        let fields = value.as_object_mut()?;
        let (begin, mut count) = (self.at, 0);
        let mut in_order = false;
        self.fields(|scanner, key, head| {
            let from = scanner.at;
            let may_end = std::mem::replace(&mut in_order, order == Order::ByName);
            match shown.field(&key, head) {
                Some(below) => {
                    scanner.field(std::str::from_utf8(&key).ok()?, below, fields)?;
                    count += 1;
                }
                None if may_end && shown.ends_at(&key, head) => return scanner.skip_rest(),
                None => drop(scanner.skipped()?),
            }
            each(&key, scanner.text.get(from..scanner.at)?);
            Some(())
        })?;
        if fields.len() <= count {
            return Some(());
        }
        // The object before had fields that this one has not.
        fields.clear();
        self.at = begin;
        self.object(shown, value, order, each)
    }

    fn field(&mut self, name: &str, shown: &Shown, fields: &mut Map) -> Option<()> {
        if let Some(value) = fields.get_mut(name) {
            return self.value(shown, value);
        }
        let mut value = Value::Null;
        self.value(shown, &mut value)?;
        fields.insert(name, value);
        Some(())
    }

    /// Makes `value` what is shown of what comes next.
    fn value(&mut self, shown: &Shown, value: &mut Value) -> Option<()> {
        match (self.peek()?, &mut *value) {
            (b'{', _) if !shown.is_all() => {
                return self.object(shown, value, Order::ByName, |_, _| {});
            }
            (b'[', _) if !shown.is_all() => return self.items(shown, value),
            (b'"', Value::String(text)) => {
                text.clear();
                text.push_str(std::str::from_utf8(&self.string()?).ok()?);
            }
            _ => *value = serde_json::from_slice(self.skipped()?).ok()?,
        }
        Some(())
    }

    fn items(&mut self, shown: &Shown, value: &mut Value) -> Option<()> {
        if !value.is_array() {
            *value = Value::Array(Vec::new());
        }
        let items = value.as_array_mut()?;
        let mut count = 0;
        self.eat(b'[')?;
        let mut goes_on = self.peek()? != b']';
        if !goes_on {
            self.eat(b']')?;
        }
        while goes_on {
            if items.len() == count {
                items.push(Value::Null);
            }
            self.value(shown, &mut items[count])?;
            count += 1;
            goes_on = self.goes_on(b']')?;
        }
        items.truncate(count);
        Some(())
    }

    /// Goes past a string. Returns what it says: few have escapes, least of all the names of fields.
    fn string(&mut self) -> Option<Cow<'t, [u8]>> {
        let quoted = &self.text[self.at..];
        let text = quoted.strip_prefix(b"\"")?;
        let end = plain_until(text, 0, &mut 0);
        if *text.get(end)? == b'"' {
            self.at += end + 2;
            return Some(Cow::Borrowed(&text[..end]));
        }
        let text: String = serde_json::from_slice(self.skipped()?).ok()?;
        Some(Cow::Owned(text.into_bytes()))
    }

    /// Goes on to the bracket that ends the object whose value comes next.
    fn skip_rest(&mut self) -> Option<()> {
        self.at += past_nested(&self.text[self.at..], 1)? - 1;
        Some(())
    }

    /// Goes past a value. Returns its text.
    fn skipped(&mut self) -> Option<&'t [u8]> {
        let text = &self.text[self.at..];
        let length = match text.first()? {
            b'"' => past_string(text, 1)?,
            b'{' | b'[' => past_nested(text, 0)?,
            _ => text.iter().position(|byte| matches!(byte, b',' | b'}' | b']'))?,
        };
        self.at += length;
        text.get(..length)
    }
}

/// Where the string ends that `at` is in, its closing quote included.
fn past_string(text: &[u8], mut at: usize) -> Option<usize> {
    while at < text.len() {
        at = plain_until(text, at, &mut 0);
        if *text.get(at)? == b'"' {
            return Some(at + 1);
        }
        // What is not plain is an escape: this server writes no control characters.
        at += 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use api::shown::{ALL, ALL_BUT_MANAGED_FIELDS};
    use apimachinery::Text;
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, shown: &Shown, object: &Value, metadata: &str) {
        assert_eq!(Reader::default().read(text.as_bytes(), shown), (object, metadata.as_bytes()));
        assert_eq!(super::metadata(text.as_bytes()), metadata.as_bytes());
    }

    fn shown(paths: &[&str]) -> Shown {
        Shown::of(paths.iter().map(|path| path.split('.')))
    }

    #[test]
    fn a_row_is_made_without_the_managed_fields_of_its_object_alone() {
        let text =
            r#"{"kind":"Pod","metadata":{"managedFields":[{"a":{}}],"name":"a"},"spec":{"managedFields":1}}"#;
        let object = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"managedFields": 1}});
        check(text, &ALL_BUT_MANAGED_FIELDS, &object, r#"{"managedFields":[{"a":{}}],"name":"a"}"#);
    }

    #[test]
    fn only_what_is_shown_is_read() {
        let paths = shown(&["metadata.name", "spec.containers.name", "spec.gates"]);
        let metadata = r#"{"name":"a","labels":{"a\"b":"c"}}"#;
        let text = format!(
            r#"{{"kind":"Pod","metadata":{metadata},"spec":{{"containers":[{{"name":"c","env":[]}},{{}}],"gates":null,"x":{{}}}}}}"#
        );
        let object =
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}, {}], "gates": null}});
        check(&text, &paths, &object, metadata);
        check(r#"{"spec":null}"#, &paths, &json!({"spec": null}), "{}");
        let metadata = r#"{"resourceVersion":"1","labels":{"a":"}"},"name":"a","uid":"u","x":[{}]}"#;
        let text = format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{metadata},"spec":{{"gates":1,"x":"]"}}}}"#
        );
        check(&text, &paths, &json!({"metadata": {"name": "a"}, "spec": {"gates": 1}}), metadata);
    }

    #[test]
    fn a_pods_row_is_the_same_of_what_is_shown_alone() {
        let kind = api::catalogue::by_resource("", "v1", "pods").expect("a row");
        let last = json!({"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}});
        let status = |name: &str, state: &Value| {
            json!({"name": name, "ready": true, "started": true, "restartCount": 2, "state": state, "lastState": last,
                   "image": "i"})
        };
        let pod = |status: Value| {
            json!({
                "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:01:00Z"},
                "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a"}], "tolerations": [{"key": "k"}],
                         "containers": [{"name": "a", "env": [{"name": "E"}]}, {"name": "b"}],
                         "initContainers": [{"name": "i", "restartPolicy": "Always", "args": ["x"]}]},
                "status": status,
            })
        };
        let now = apimachinery::time::parse_time("2026-01-01T00:10:00Z").expect("a time");
        let states = [
            json!({"running": {}}),
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "m"}}),
            json!({"terminated": {"reason": "Error", "exitCode": 1}}),
            json!({"terminated": {"signal": 9}}),
            json!({"terminated": {"reason": "Completed", "exitCode": 0}}),
        ];
        let mut reader = Reader::default();
        for (init, state) in states.iter().flat_map(|init| states.iter().map(move |state| (init, state))) {
            for (phase, reason) in [("Running", ""), ("Failed", "Evicted"), ("Running", "NodeLost")] {
                let pod =
                    pod(json!({"phase": phase, "reason": reason, "nominatedNodeName": "m", "hostIP": "h",
                    "podIPs": [{"ip": "192.0.2.1"}], "conditions": [{"type": "a", "status": "True"}],
                    "containerStatuses": [status("a", state), status("b", &json!({"running": {}}))],
                    "initContainerStatuses": [status("i", init)]}));
                let text = pod.to_string();
                let (shown, _) = reader.read(text.as_bytes(), kind.strategy.shown());
                assert_ne!(*shown, pod);
                assert_eq!(kind.row(shown, now), kind.row(&pod, now), "{pod}");
            }
        }
    }

    /// Values whose texts need every care that a text can need.
    fn value() -> impl Strategy<Value = Value> {
        let text = r#"[a"\\\\{}\[\],:\n\u{1}é世🦀 ]{0,20}"#;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let key = prop_oneof![Just("metadata".to_owned()), Just("a".to_owned()), text];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect::<Map>().into()),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        value().prop_filter("objects alone are stored", Value::is_object)
    }

    /// What is shown of a value that has been read as a whole.
    fn kept(value: &Value, shown: &Shown) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = |(key, value): (&Text, &Value)| {
                    Some((key.clone(), kept(value, shown.field(key.as_bytes(), Head::of(key.as_bytes()))?)))
                };
                fields.iter().filter_map(kept).collect::<Map>().into()
            }
            Value::Array(items) => items.iter().map(|item| kept(item, shown)).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_a_decoder_reads(objects in prop::collection::vec(object(), 1..4)) {
            let paths = shown(&["metadata.a", "a.metadata", "a.a.a"]);
            for shown in [&ALL, &*ALL_BUT_MANAGED_FIELDS, &paths] {
                // Whatever was read before.
                let mut reader = Reader::default();
                for object in &objects {
                    let text = object.to_string();
                    let object: Value = serde_json::from_str(&text).expect("is JSON");
                    let (read, metadata) = reader.read(text.as_bytes(), shown);
                    prop_assert_eq!(read, &kept(&object, shown));
                    let found: Value = serde_json::from_slice(metadata).expect("is a value");
                    prop_assert_eq!(found, object.get("metadata").cloned().unwrap_or(json!({})));
                    prop_assert_eq!(metadata, super::metadata(text.as_bytes()));
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in r#"(\{|\}|"metadata":|"managedFields":|\[|\]|,|1|"a"|"|\\|null){0,12}"#) {
            let mut object = Value::Null;
            parse(text.as_bytes(), &ALL_BUT_MANAGED_FIELDS, &mut object);
            metadata(text.as_bytes());
        }
    }
}
