//! The examples of RFC 8949 that JSON can hold, what upstream refuses, and that nothing gets lost.

use proptest::prelude::*;

use super::*;
use crate::{Value, json};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn check(encoded: &str, expect: Value) {
    assert_eq!(decode(&hex(encoded)).unwrap_or_else(|why| panic!("{encoded}: {why}")), expect, "{encoded}");
}

fn check_refused(encoded: &str, why: &str) {
    let error = decode(&hex(encoded)).expect_err(encoded).to_string();
    assert!(error.contains(why), "{encoded}: {error}");
}

#[test]
fn the_examples_of_the_standard_are_read() {
    check("1903e8", json!(1000));
    check("3903e7", json!(-1000));
    check("3b7fffffffffffffff", json!(i64::MIN));
    check("f93c00", json!(1.0));
    check("f90001", json!(5.960464477539063e-8));
    check("f9c400", json!(-4.0));
    check("fa47c35000", json!(100000.0));
    check("fb3ff199999999999a", json!(1.1));
    check("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z"));
    check("c11a514b67b0", json!("2013-03-21T20:04:00Z"));
    check("d74401020304", json!("01020304"));
    check("62c3bc", json!("\u{fc}"));
    check("a26161016162820203", json!({"a": 1, "b": [2, 3]}));
    check("5f42010243030405ff", json!("\u{1}\u{2}\u{3}\u{4}\u{5}"));
    check("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]}));
    check("d9d9f7a141614162", json!({"a": "b"}));
    check("d64401020304", json!("AQIDBA=="));
    check("f6", Value::Null);
}

#[test]
fn what_has_no_place_in_an_object_is_refused() {
    check_refused("", "unexpected EOF");
    check_refused("a161", "unexpected EOF");
    check_refused("0000", "1 bytes of extraneous data starting at index 1");
    check_refused("1bffffffffffffffff", "overflows Go's int64");
    check_refused("c249010000000000000000", "big integers");
    check_refused("f97e00", "NaN or infinity");
    check_refused("f7", "simple value 23 is not recognized");
    check_refused("a2616101616102", "found duplicate map key \"a\"");
    check_refused("a10101", "a map's key is no string");
    check_refused("61ff", "invalid UTF-8");
    check_refused("9bffffffffffffffff", "unexpected EOF");
    check_refused("c001", "must be a string");
    check_refused(&"81".repeat(crate::codec::DEPTH_MAX + 1), "exceeded max nested level");
}

#[test]
fn strings_are_written_as_bytes_under_the_tag_of_cbor() {
    let written = encode(&json!({"a": ["b", 24, -1, 1.5, true, null]}));
    assert_eq!(written, hex("d9d9f7a14161864162181820f93e00f5f6"));
}

#[test]
fn an_object_says_what_it_is() {
    let meta = type_meta(&encode(&json!({"apiVersion": "v1", "kind": "Pod", "spec": {}}))).expect("reads");
    assert_eq!((meta.api_version.as_str(), meta.kind.as_str()), ("v1", "Pod"));
    assert!(type_meta(&encode(&json!({"kind": 1}))).is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| json!(f64::from(n))),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in value()) {
        prop_assert_eq!(decode(&encode(&value)).expect("reads"), value);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes).ok();
        type_meta(&bytes).ok();
    }
}
