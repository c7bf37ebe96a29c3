//! serde_json's value and the standard library's map are the models.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::json;

type Model = serde_json::Value;

fn any_model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::Null),
        any::<bool>().prop_map(Model::from),
        any::<i64>().prop_map(Model::from),
        any::<u64>().prop_map(Model::from),
        (-1e9..1e9).prop_map(Model::from),
        r#"(?s).{0,40}|[ -~"\\]{0,40}"#.prop_map(Model::from),
    ];
    leaf.prop_recursive(4, 200, 80, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Model::from),
            prop::collection::btree_map("[a-z~/]{0,3}", inner, 0..80)
                .prop_map(|map| map.into_iter().collect::<Model>()),
        ]
    })
}

/// What one may do with a map's key.
#[derive(Clone, Debug)]
enum Act {
    Insert,
    Remove,
    OrInsert,
    Change,
    /// Keeps those before it.
    Retain,
}

fn any_acts() -> impl Strategy<Value = Vec<(Act, u8)>> {
    use Act::*;
    let act = prop_oneof![
        8 => Just(Insert), 4 => Just(OrInsert), 3 => Just(Remove), 2 => Just(Change), 1 => Just(Retain)
    ];
    prop::collection::vec((act, any::<u8>()), 0..400)
}

proptest! {
    #[test]
    fn a_map_is_as_the_standard_librarys(acts in any_acts()) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        for (number, (act, key)) in acts.into_iter().enumerate() {
            let key = format!("key-{key}");
            match act {
                Act::Insert => {
                    prop_assert_eq!(map.insert(&*key, number.into()), model.insert(key, Value::from(number)));
                }
                Act::Remove => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                Act::OrInsert => {
                    let place = map.entry(&*key).or_insert(number.into());
                    prop_assert_eq!(place, model.entry(key).or_insert(number.into()));
                }
                Act::Change => {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    if let (Some(here), Some(there)) = (map.get_mut(&key), model.get_mut(&key)) {
                        (*here, *there) = (Value::Null, Value::Null);
                    }
                }
                Act::Retain => {
                    map.retain(|other, _| other.as_str() < &*key);
                    model.retain(|other, _| *other < key);
                }
            }
            prop_assert_eq!(map.len(), model.len());
            let model = model.iter().map(|(key, value)| (key.as_str(), value));
            prop_assert!(map.iter().map(|(key, value)| (key.as_str(), value)).eq(model));
        }
        prop_assert!(map.keys().rev().eq(model.keys().rev()));
        let again: Map = model.clone().into_iter().rev().collect();
        prop_assert_eq!(&map, &again, "however a map came to be");
        prop_assert!(map.into_iter().map(|(key, value)| (String::from(key), value)).eq(model));
    }

    #[test]
    fn a_value_reads_and_writes_as_serde_jsons(model in any_model()) {
        let text = model.to_string();
        let (value, model): (Value, Model) = (text.parse().unwrap(), text.parse().unwrap());
        prop_assert_eq!(value.to_string(), model.to_string());
        let mut written = Vec::new();
        write_json(&mut written, &value);
        prop_assert_eq!(String::from_utf8_lossy(&written), model.to_string());
        prop_assert_eq!(&format!("{value:#}"), &format!("{model:#}"));
        prop_assert_eq!(&Value::from(model.clone()), &value);
        prop_assert_eq!(serde_json::to_value(&value).unwrap(), model.clone());
        prop_assert_eq!(&to_value(&model).unwrap(), &value);
        prop_assert_eq!(from_value::<Model>(value.clone()).unwrap(), model);
        prop_assert_eq!(from_value::<Value>(value.clone()).unwrap(), value);
    }

    #[test]
    fn a_pointer_finds_what_serde_jsons_finds(model in any_model(), pointer in "(/[a-z0-9+~]{0,2}){0,3}|[a-z]") {
        let mut value = Value::from(model.clone());
        let found = model.pointer(&pointer).cloned().map(Value::from);
        prop_assert_eq!(value.pointer(&pointer).cloned(), found.clone());
        prop_assert_eq!(value.pointer_mut(&pointer).cloned(), found);
    }

    #[test]
    fn values_are_equal_when_serde_jsons_are(one in any_model(), other in any_model()) {
        prop_assert_eq!(Value::from(one.clone()) == Value::from(other.clone()), one == other);
    }
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Choice {
    Plain,
    Holding(u32),
    Both(u8, Option<char>),
    Named { name: String },
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Typed {
    choices: Vec<Choice>,
    some: Option<f64>,
    none: Option<String>,
    map: HashMap<String, Map>,
}

#[test]
fn types_are_read_from_values_and_become_values() {
    let value = json!({
        "choices": ["plain", {"holding": 4}, {"both": [1, "é"]}, {"named": {"name": "n"}}],
        "some": 1.5, "none": null, "map": {"a": {"b": [true]}},
    });
    let expect = Typed {
        choices: vec![
            Choice::Plain,
            Choice::Holding(4),
            Choice::Both(1, Some('é')),
            Choice::Named { name: "n".to_owned() },
        ],
        some: Some(1.5),
        none: None,
        map: HashMap::from([("a".to_owned(), Map::from([("b", json!([true]))]))]),
    };
    assert_eq!(from_value::<Typed>(value.clone()).unwrap(), expect);
    assert_eq!(to_value(expect).unwrap(), value);
}

#[test]
fn keys_are_text_as_far_as_serde_json_makes_them_text() {
    fn check(map: impl Serialize) {
        let model = serde_json::to_value(&map).map(Value::from).map_err(|error| error.to_string());
        assert_eq!(to_value(map).map_err(|error| error.to_string()), model);
    }
    check(BTreeMap::from([(-1, 'a'), (2, 'b')]));
    check(BTreeMap::from([(true, 1.5_f32)]));
    check(BTreeMap::from([('c', ())]));
    check(BTreeMap::from([("a", b"bytes")]));
    check(BTreeMap::from([([1], 1)]));
    check(BTreeMap::from([((), 1)]));
}

#[test]
fn what_is_written_in_code_is_what_it_looks_like() {
    const KEY: &str = "key";
    let (owned, some) = (String::from("owned"), Some(2_u8));
    let written = json!({
        KEY: [null, [], {}, [1, -1.5], {"a": true}, owned, &owned[1..], some],
        (format!("{KEY}-2")): {"nested": {"deeper": null}},
        "sum": 1 + 1, "choice": if some.is_none() { "none" } else { "some" },
        "text": "{\"not\": [JSON]}",
        "list": [1, 2].map(|number| number * 2),
    });
    let expect = r#"{"choice":"some","key":[null,[],{},[1,-1.5],{"a":true},"owned","wned",2],"key-2":{"nested":{"deeper":null}},
        "list":[2,4],"sum":2,"text":"{\"not\": [JSON]}"}"#;
    assert_eq!(written, expect.parse::<Value>().unwrap());
    assert_eq!(
        [json!(null), json!([]), json!({}), json!(owned)],
        [Value::Null, Value::Array(Vec::new()), Value::Object(Map::new()), Value::from("owned"),]
    );
}

#[test]
fn what_does_not_fit_a_type_is_told_as_serde_json_tells_it() {
    fn told<T: serde::de::DeserializeOwned + fmt::Debug>(value: Value) {
        let model = serde_json::from_value::<T>(serde_json::to_value(&value).unwrap());
        assert_eq!(from_value::<T>(value).unwrap_err().to_string(), model.unwrap_err().to_string());
    }
    told::<u8>(json!(-1));
    told::<u8>(json!(1.5));
    told::<String>(json!(["a"]));
    told::<Typed>(json!({}));
    told::<Choice>(json!("strange"));
    told::<Choice>(json!({"plain": 1, "holding": 2}));
    told::<Choice>(json!(true));
}

#[test]
fn what_is_not_there_is_null_and_made_on_assignment() {
    let mut value = json!({"list": [1, 2]});
    assert_eq!(value["list"][1], 2);
    assert!(value["list"][2].is_null() && value["list"]["x"].is_null() && value["a"]["b"].is_null());
    value["a"]["b"] = json!("made");
    assert_eq!(value, json!({"list": [1, 2], "a": {"b": "made"}}));
}

/// A map of many keys in the order that is worst for a sorted list takes no more than time for sorting: were it a list, this
/// would move ten terabytes.
#[test]
fn many_keys_in_any_order_are_no_burden() {
    let count = 500_000_u32;
    let map: Map = (0..count).rev().map(|key| (format!("{key:06}"), Value::Null)).collect();
    assert_eq!(map.len(), count as usize);
}

#[test]
fn values_are_small() {
    assert_eq!(size_of::<Value>(), 32);
}
