//! What a table's row is made of, found in an object's text in one pass: what the kind's columns show becomes values, the
//! metadata is handed on as it is written, and the rest is passed over.

use std::borrow::Cow;

use api::shown::Shown;
use apimachinery::{Map, Value};

const METADATA: &str = "metadata";

/// What a kind's columns show of an object that this server itself encoded, and its metadata as it is written.
pub fn read<'t>(json: &'t [u8], shown: &Shown) -> (Value, &'t [u8]) {
    parse(json, shown).expect("the store keeps only JSON that this server wrote")
}

/// The metadata of an object that this server itself encoded, as it is written.
pub fn metadata(json: &[u8]) -> &[u8] {
    let mut scanner = Scanner { text: json, at: 0 };
    let mut found = None;
    // It stands before nearly everything else: what comes after it is not looked at.
    scanner.fields(|scanner, key| {
        let value = scanner.skipped()?;
        found = (key == METADATA).then_some(value);
        found.is_none().then_some(())
    });
    found.unwrap_or(b"{}")
}

fn parse<'t>(text: &'t [u8], shown: &Shown) -> Option<(Value, &'t [u8])> {
    let mut scanner = Scanner { text, at: 0 };
    let (mut object, mut metadata) = (Map::new(), &b"{}"[..]);
    scanner.fields(|scanner, key| {
        let from = scanner.at;
        let is_metadata = key == METADATA;
        scanner.field(key, shown, &mut object)?;
        if is_metadata {
            metadata = text.get(from..scanner.at)?;
        }
        Some(())
    })?;
    (scanner.at == text.len()).then_some((Value::Object(object), metadata))
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

    /// Calls `each` with the key of every field of an object; it is to go past the value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, Cow<'t, str>) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        if self.peek()? == b'}' {
            return self.eat(b'}');
        }
        loop {
            let quoted = self.skipped()?;
            self.eat(b':')?;
            each(self, unquoted(quoted)?)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// Puts what is shown of a field where it belongs.
    fn field(&mut self, key: Cow<'t, str>, shown: &Shown, into: &mut Map<String, Value>) -> Option<()> {
        let Some(below) = shown.field(&key) else { return self.skipped().map(drop) };
        let value = self.value(below)?;
        into.insert(key.into_owned(), value);
        Some(())
    }

    fn value(&mut self, shown: &Shown) -> Option<Value> {
        match self.peek()? {
            b'{' if !shown.is_all() => {
                let mut fields = Map::new();
                self.fields(|scanner, key| scanner.field(key, shown, &mut fields))?;
                Some(Value::Object(fields))
            }
            b'[' if !shown.is_all() => self.items(shown),
            _ => serde_json::from_slice(self.skipped()?).ok(),
        }
    }

    fn items(&mut self, shown: &Shown) -> Option<Value> {
        let mut items = Vec::new();
        self.eat(b'[')?;
        if self.peek()? != b']' {
            loop {
                items.push(self.value(shown)?);
                if !self.goes_on(b']')? {
                    return Some(Value::Array(items));
                }
            }
        }
        self.eat(b']')?;
        Some(Value::Array(items))
    }

    /// Goes past a value. Returns its text.
    fn skipped(&mut self) -> Option<&'t [u8]> {
        let text = &self.text[self.at..];
        let length = match text.first()? {
            b'"' => 1 + past_string(&text[1..])?,
            b'{' | b'[' => past_nested(text)?,
            _ => text.iter().position(|byte| matches!(byte, b',' | b'}' | b']'))?,
        };
        self.at += length;
        text.get(..length)
    }
}

/// What a string says. Few have escapes, least of all the names of fields.
fn unquoted(string: &[u8]) -> Option<Cow<'_, str>> {
    if string.contains(&b'\\') {
        return serde_json::from_slice(string).ok().map(Cow::Owned);
    }
    let text = string.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

/// How far the object or list goes that a text begins with.
fn past_nested(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at += past_string(&text[at + 1..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// How far the rest of a string goes, its closing quote included. Eight bytes are looked at together: most of what is
/// passed over is strings, and few of them are long.
fn past_string(text: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let mut at = 0;
    loop {
        while let Some(word) = text.get(at..at + WORD) {
            let word = u64::from_le_bytes(word.try_into().ok()?);
            let found = lowest(word, b'"') | lowest(word, b'\\');
            if found != 0 {
                at += (found.trailing_zeros() / u8::BITS) as usize;
                break;
            }
            at += WORD;
        }
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A word whose lowest bit that is set is the highest one of the first byte of `word` that is `byte`; 0 if none is.
fn lowest(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let differing = word ^ (ONES * u64::from(byte));
    differing.wrapping_sub(ONES) & !differing & HIGH
}

#[cfg(test)]
mod tests {
    use api::shown::{ALL, ALL_BUT_MANAGED_FIELDS};
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, shown: &Shown, object: &Value, metadata: &str) {
        assert_eq!(read(text.as_bytes(), shown), (object.clone(), metadata.as_bytes()));
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
        for (init, state) in states.iter().flat_map(|init| states.iter().map(move |state| (init, state))) {
            for (phase, reason) in [("Running", ""), ("Failed", "Evicted"), ("Running", "NodeLost")] {
                let pod =
                    pod(json!({"phase": phase, "reason": reason, "nominatedNodeName": "m", "hostIP": "h",
                    "podIPs": [{"ip": "192.0.2.1"}], "conditions": [{"type": "a", "status": "True"}],
                    "containerStatuses": [status("a", state), status("b", &json!({"running": {}}))],
                    "initContainerStatuses": [status("i", init)]}));
                let text = pod.to_string();
                let (shown, _) = read(text.as_bytes(), kind.strategy.shown());
                assert_ne!(shown, pod);
                assert_eq!(kind.row(&shown, now), kind.row(&pod, now), "{pod}");
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
                    .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
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
                let kept =
                    |(key, value): (&String, &Value)| Some((key.clone(), kept(value, shown.field(key)?)));
                fields.iter().filter_map(kept).collect::<Map<_, _>>().into()
            }
            Value::Array(items) => items.iter().map(|item| kept(item, shown)).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_a_decoder_reads(object in object()) {
            let paths = shown(&["metadata.a", "a.metadata", "a.a.a"]);
            let text = object.to_string();
            let object: Value = serde_json::from_str(&text).expect("is JSON");
            for shown in [&ALL, &*ALL_BUT_MANAGED_FIELDS, &paths] {
                let (read, metadata) = read(text.as_bytes(), shown);
                prop_assert_eq!(read, kept(&object, shown));
                let found: Value = serde_json::from_slice(metadata).expect("is a value");
                prop_assert_eq!(found, object.get(METADATA).cloned().unwrap_or(json!({})));
                prop_assert_eq!(metadata, super::metadata(text.as_bytes()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in r#"(\{|\}|"metadata":|"managedFields":|\[|\]|,|1|"a"|"|\\|null){0,12}"#) {
            drop(parse(text.as_bytes(), &ALL_BUT_MANAGED_FIELDS));
            metadata(text.as_bytes());
        }
    }
}
